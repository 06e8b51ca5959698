"""make bench-peers: update rates beside d3rlpy's, measured in one run.

Each side is a process of its own that keeps its networks and data and trains when told to, in turn with the other, on one
thread. A ratio is taken of two neighbouring bursts, so what else the machine does strikes both sides alike.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

import tyro

from flywheel.bench.machine import describe
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PeersConfig:
    """Measure update rates beside d3rlpy's."""

    python: Path = Path(".venv-peers/bin/python")
    """The interpreter that has d3rlpy; `make bench-peers` makes it."""
    algorithms: tuple[Literal["bc", "iql", "cql"], ...] = ("iql", "cql")
    """Which algorithms, of those that both sides have."""
    bursts: int = 7
    """Pairs of bursts per algorithm."""
    seconds: float = 2.0
    """The length of a burst."""
    transitions: int = 1_000_000
    """Transitions in memory, on each side."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


@dataclass(frozen=True)
class Comparison:
    """Rates of paired bursts, in updates per second."""

    algorithm: str
    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, pair by pair."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def row(self) -> str:
        """A row of the Markdown table."""
        return f"| {self.algorithm} | {_spread(self.ours)} | {_spread(self.theirs)} | {_spread(self.ratios)} |"


class Side:
    """One process that trains on command."""

    def __init__(self, command: list[str]) -> None:
        self._name = Path(command[-3]).name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed in __exit__
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment
        )

    @property
    def process(self) -> int:
        """Its id."""
        return self._process.pid

    def burst(self, seconds: float) -> float:
        """Train for so long; updates per second. Raises `FlywheelError` with the process's last words if it died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(seconds, file=self._process.stdin, flush=True)
            return float(self._process.stdout.readline())
        except (BrokenPipeError, ValueError):
            self._process.wait()
            self._errors.seek(0)
            words = self._errors.read().strip().splitlines()[-1:] or ["it said nothing"]
            raise FlywheelError(f"The process {self._name} ended early: {words[0]}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._errors.close()


def compare(algorithm: str, config: PeersConfig) -> Comparison:
    """Bursts of both sides in turn, after one each that is thrown away."""
    arguments = [algorithm, str(config.transitions)]
    with (
        Side([sys.executable, "-m", "flywheel.bench.peer_flywheel", *arguments]) as ours,
        Side([str(config.python), str(_FOLDER / "peer_d3rlpy.py"), *arguments]) as theirs,
    ):
        pairs = [(ours.burst(config.seconds), theirs.burst(config.seconds)) for _ in range(config.bursts + 1)][1:]
    return Comparison(algorithm, [pair[0] for pair in pairs], [pair[1] for pair in pairs])


def main(config: PeersConfig) -> None:
    """Print a Markdown table as it comes; raises `FlywheelError` if d3rlpy's environment is missing."""
    if not config.python.exists():
        raise FlywheelError(f"There is no {config.python}; 'make bench-peers' installs d3rlpy there.")
    machine = describe()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    print("\nupdates/s, batch 256, 60-d state, 7-d action, 2 x 256, one thread, sampling included; median (min-max)\n")
    print("| | flywheel | d3rlpy | ratio |\n|---|---|---|---|")
    comparisons = []
    for algorithm in config.algorithms:
        comparisons.append(compare(algorithm, config))
        print(comparisons[-1].row(), flush=True)
    if config.output:
        figures = [{**asdict(item), "ratios": item.ratios} for item in comparisons]
        write_atomically(config.output, json.dumps({"machine": machine, "comparisons": figures}, indent=1).encode())


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    try:
        main(tyro.cli(PeersConfig, description=__doc__))
    except FlywheelError as error:
        sys.exit(f"error: {error}")

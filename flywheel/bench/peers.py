"""make bench-peers: update rates beside those of d3rlpy, CORL, robomimic, TorchRL and OGBench's JAX agents, in one run.

Each side is a process of its own that keeps its networks and data and trains when told to, in turn with the other, on one
thread and the same core. Seconds are those of the process on that core, so that what else the machine does hardly counts, and a
ratio is taken of two neighbouring bursts, so that what is left of it strikes both sides alike.
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
from typing import NamedTuple, Self

import tyro

from flywheel.bench.machine import describe
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically

_FOLDER = Path(__file__).parent
_PYTHON = {
    "d3rlpy": ".venv-peers/bin/python",
    "corl": ".venv-peers/bin/python",
    "robomimic": ".venv-peers/robomimic/bin/python",
    "torchrl": ".venv-peers/bin/python",
    "ogbench": ".venv-peers/ogbench/bin/python",
}
"""The interpreter that each peer runs in."""


class Pair(NamedTuple):
    """An algorithm and who else has it."""

    algorithm: str
    peer: str
    hidden: tuple[int, ...] = (256, 256)
    """The hidden layers of both sides."""


PAIRS = (
    *(Pair(algorithm, "d3rlpy") for algorithm in ("bc", "awac", "td3_bc", "iql", "cql")),
    *(Pair(algorithm, "corl") for algorithm in ("bc", "td3_bc", "iql", "cql")),
    Pair("awac", "corl", (256, 256, 256)),  # its depth is no setting there
    *(Pair(algorithm, "robomimic") for algorithm in ("bc", "td3_bc", "iql", "cql")),
    *(Pair(algorithm, "torchrl") for algorithm in ("td3_bc", "iql", "cql")),
    *(Pair(algorithm, "ogbench") for algorithm in ("gcbc", "gcivl", "gciql", "crl", "hiql")),
)


@dataclass(frozen=True)
class PeersConfig:
    """Measure update rates beside the peers'."""

    algorithms: tuple[str, ...] = ()
    """Which algorithms alone; all that a peer has if empty."""
    peers: tuple[str, ...] = tuple(_PYTHON)
    """Which peers; `make bench-peers` makes their environments."""
    folder: Path = Path()
    """Where their environments are."""
    bursts: int = 7
    """Pairs of bursts per algorithm."""
    seconds: float = 2.0
    """The length of a burst, in seconds of processor time."""
    transitions: int = 1_000_000
    """Transitions in memory, on each side."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


@dataclass(frozen=True)
class Comparison:
    """Rates of paired bursts, in updates per second of processor time."""

    algorithm: str
    peer: str
    hidden: tuple[int, ...]
    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, pair by pair."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def row(self) -> str:
        """A row of the Markdown table."""
        layers = " x ".join(map(str, self.hidden))
        rates = (_spread(self.ours, 1), self.peer, _spread(self.theirs, 1), _spread(self.ratios, 2))
        return f"| {' | '.join((self.algorithm, layers, *rates))} |"


class Side:
    """One process that trains on command."""

    def __init__(self, command: list[str]) -> None:
        self._name = " ".join(command[1:3])
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


def compare(pair: Pair, config: PeersConfig) -> Comparison:
    """Bursts of both sides in turn, after one each that is thrown away."""
    arguments = [pair.algorithm, str(config.transitions)]
    script = str(_FOLDER / f"peer_{pair.peer}.py")
    with (
        Side([sys.executable, "-m", "flywheel.bench.peer_flywheel", *arguments, *map(str, pair.hidden)]) as ours,
        Side([str(_python(pair.peer, config)), script, *arguments]) as theirs,
    ):
        bursts = [(ours.burst(config.seconds), theirs.burst(config.seconds)) for _ in range(config.bursts + 1)][1:]
    return Comparison(pair.algorithm, pair.peer, pair.hidden, [burst[0] for burst in bursts], [burst[1] for burst in bursts])


def _python(peer: str, config: PeersConfig) -> Path:
    """Raises `FlywheelError` for a peer that is unknown or not installed."""
    if peer not in _PYTHON:
        raise FlywheelError(f"There is no peer '{peer}'; known: {', '.join(_PYTHON)}.")
    python = config.folder / _PYTHON[peer]
    if not python.exists():
        raise FlywheelError(f"There is no {python}; 'make bench-peers' installs {peer} there.")
    return python


def main(config: PeersConfig) -> None:
    """Print a Markdown table as it comes; raises `FlywheelError` if a peer's environment is missing."""
    for peer in config.peers:
        _python(peer, config)
    pairs = [pair for pair in PAIRS if pair.peer in config.peers and pair.algorithm in (config.algorithms or (pair.algorithm,))]
    machine = describe()
    _stay_on_one_core()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    print("\nupdates per second of processor time, one thread, sampling included, batch 256, 60-d state, 7-d action\n")
    print("| | hidden | flywheel, median (range) | peer | its rate | ratio |\n|---|---|---|---|---|---|")
    comparisons = []
    for pair in pairs:
        comparisons.append(compare(pair, config))
        print(comparisons[-1].row(), flush=True)
    if config.output:
        figures = [{**asdict(item), "ratios": item.ratios} for item in comparisons]
        write_atomically(config.output, json.dumps({"machine": machine, "comparisons": figures}, indent=1).encode())


def _stay_on_one_core() -> None:
    """The processes to come stay there too; JAX would start as many threads as it sees cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the last, where little else is put by default


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    try:
        main(tyro.cli(PeersConfig, description=__doc__))
    except FlywheelError as error:
        sys.exit(f"error: {error}")

"""python -m flywheel.bench.simulation: control steps and resets per second beside robosuite's defaults, in one run.

Each side is a process of its own, which simulates when told to, in turn with the others on the same core, in seconds of
processor time; a ratio is taken of two neighbouring bursts. Then, how far our pictures and motions are from robosuite's.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from flywheel.bench.machine import describe
from flywheel.bench.peers import Side
from flywheel.bench.simulation_side import OWN_NAMES, SIZE
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically


@dataclass(frozen=True)
class SimulationConfig:
    """Measure our simulation beside robosuite's defaults."""

    bursts: int = 7
    """Bursts of each side, and resets."""
    seconds: float = 1.0
    """The length of a burst, in seconds of processor time."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


@dataclass(frozen=True)
class Result:
    """What neighbouring bursts gave with some cameras."""

    what: str
    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times as fast ours is, burst by burst."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def row(self) -> str:
        """A row of the Markdown table."""
        return f"| {self.what} | {_spread(self.ours)} | {_spread(self.theirs)} | {_spread(self.ratios, 2)} |"


def main(config: SimulationConfig) -> None:
    """Print Markdown; raises `FlywheelError` if a side ended early."""
    machine = describe()
    results = measure(config)
    print(f"On {machine}.\n\n| per second of processor time | flywheel | robosuite's defaults | ratio |\n|---|---|---|---|")
    print("\n".join(result.row() for result in results))
    found = differences()
    print(f"\nGreatest difference of a joint after random motions: {found['joints']:g} rad.")
    for camera in OWN_NAMES:
        mean, share = found[camera]
        print(f"Pictures of {camera}: mean difference {mean:.2f} of 255, {share:.1%} of pixels differ by more than 16.")
    if config.output:
        figures = [{**asdict(result), "ratios": result.ratios} for result in results]
        document = {"machine": machine, "results": figures, "differences": found}
        write_atomically(config.output, json.dumps(document, indent=1).encode())


def measure(config: SimulationConfig) -> list[Result]:
    """Control steps and resets, without cameras and with two, after a burst of each that is thrown away."""
    settings: dict[str, list[str]] = {"no camera": [], f"two cameras of {SIZE} pixels": list(OWN_NAMES)}
    sides = ("flywheel", "robosuite")
    rates: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        running = {
            (what, side): stack.enter_context(Side([sys.executable, "-m", f"{__package__}.simulation_side", side, *cameras]))
            for what, cameras in settings.items()
            for side in sides
        }
        for _ in range(config.bursts + 1):
            for (what, side), process in running.items():
                rates.setdefault((f"control steps, {what}", side), []).append(process.burst(config.seconds))
                rates.setdefault((f"resets, {what}", side), []).append(process.burst(0))
    names = dict.fromkeys(what for what, _ in rates)
    return [Result(what, *(rates[what, side][1:] for side in sides)) for what in names]


def differences() -> dict[str, Any]:
    """What `flywheel.bench.simulation_difference` finds."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "pictures.npz"))
        return _ask("motion") | _ask("draw", path) | _ask("compare", path)


def _ask(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"{__package__}.simulation_difference", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise FlywheelError(f"{' '.join(command[2:4])} failed: {answer.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def _spread(values: list[float], digits: int = 1) -> str:
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


if __name__ == "__main__":
    try:
        main(tyro.cli(SimulationConfig, description=__doc__))
    except FlywheelError as error:
        sys.exit(f"error: {error}")

"""python -m flywheel.bench.append: durable appends of episodes with pictures, ours beside the disk's own rate and the peers'.

An episode has 200 steps and two 84 x 84 cameras, 8.5 MB raw. Each side is a process of its own that appends when told to, in
turn with the others, and what one of them has left in the page cache is written before the next begins. A ratio is taken of
two bursts of one round. LeRobot, robomimic and Minari are measured where `make test-interop` has installed them.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from flywheel.bench.append_side import named, open_store
from flywheel.bench.cameras import picture_episodes
from flywheel.bench.durability import latency
from flywheel.bench.machine import describe
from flywheel.bench.peers import Side
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically

_FOLDER = Path(__file__).parent
_OURS = {"raw": "flywheel raw", "jpeg": "flywheel JPEG", "png": "flywheel PNG", "file": "a raw file + fsync"}
_PEERS = {
    "tfds-jpeg": ("TFDS SequentialWriter JPEG", Path(sys.executable)),
    "tfds-png": ("TFDS SequentialWriter PNG", Path(sys.executable)),
    "lerobot": ("LeRobot PNG", Path(".venv-interop/lerobot/bin/python")),
    "robomimic": ("robomimic HDF5", Path(".venv-interop/robomimic/bin/python")),
    "minari": ("Minari HDF5", Path(".venv-interop/minari/bin/python")),
}
_RATIOS = (
    ("raw", "file"),
    ("jpeg", "tfds-jpeg"),
    ("png", "tfds-png"),
    ("jpeg", "lerobot"),
    ("raw", "robomimic"),
    ("jpeg", "minari"),
)

Rates = dict[str, list[float]]


@dataclass(frozen=True)
class AppendConfig:
    """Measure durable appends beside the peers."""

    bursts: int = 7
    """Bursts per side; their median and range are printed."""
    seconds: float = 1.0
    """The length of a burst, of which the fastest need less for 32 episodes."""
    latency_rounds: int = 3
    """Rounds of 1,000 small episodes beside SQLite; 0 leaves them out."""
    folder: Path = Path()
    """What disk is measured: a folder on it."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


@dataclass(frozen=True)
class Figures:
    """Everything that was measured."""

    rates: Rates
    """Episodes per second of each side, round by round."""
    scaling: Rates
    """Episodes per second of 1, 2 and 4 processes together."""
    seen_ms: list[float]
    """From an acknowledgement until another process has read the episode."""

    def ratios(self) -> Rates:
        """Ours over theirs, round by round."""
        pairs = [(ours, theirs) for ours, theirs in _RATIOS if theirs in self.rates]
        return {
            f"{_name(ours)} / {_name(theirs)}": [a / b for a, b in zip(self.rates[ours], self.rates[theirs], strict=True)]
            for ours, theirs in pairs
        }


def measure_rates(folder: Path, bursts: int, seconds: float) -> Rates:
    """Bursts of every side that is installed, in turn, in reversed order every other time, after one that is thrown away."""
    rates: Rates = {}
    template = next(picture_episodes())
    np.savez(folder / "episode.npz", action=template.action, **template.observation)
    with ExitStack() as stack:
        sides = {name: stack.enter_context(side) for name, side in _sides(folder)}
        for turn in range(bursts + 1):
            for name in list(sides) if turn % 2 else reversed(list(sides)):
                os.sync()
                rates.setdefault(name, []).append(sides[name].burst(seconds))
    return {name: found[1:] for name, found in rates.items()}


def measure_scaling(folder: Path, kind: str, bursts: int, seconds: float) -> Rates:
    """Episodes per second that 1, 2 and 4 processes append to one store together."""
    found: Rates = {}
    for processes in (1, 2, 4):
        with ExitStack() as stack, ThreadPoolExecutor(processes) as pool:
            sides = [stack.enter_context(_ours(folder, kind)) for _ in range(processes)]
            bursted = [sum(pool.map(lambda side: side.burst(seconds), sides)) for _ in range(bursts + 1)]
        found[f"{_name(kind)}, {processes} writers"] = bursted[1:]
    return found


def measure_seen(folder: Path, episodes: int = 20) -> list[float]:
    """Milliseconds from each acknowledgement until another process, which looks every half, has read the episode."""
    template = next(picture_episodes())
    taken = []
    with open_store(folder, "jpeg").writer() as writer, ThreadPoolExecutor(1) as pool:
        writer.append(named(template, "seen-0"))
        with _side(sys.executable, "-m", "flywheel.bench.append_side", folder / "append_jpeg", "watch") as side:
            for number in range(episodes):
                seen = pool.submit(side.burst, number)
                time.sleep(0.02)
                if number:
                    writer.append(named(template, f"seen-{number}"))
                acknowledged = time.monotonic()
                taken.append(1e3 * (seen.result() - acknowledged))
    return taken[1:]


def _sides(folder: Path) -> Iterator[tuple[str, Side]]:
    for kind in _OURS:
        yield kind, _ours(folder, kind)
    for peer, (name, python) in _PEERS.items():
        if python.exists():
            yield peer, _side(python, _FOLDER / "peer_append.py", folder, peer)
        else:
            print(f"{name} is left out: 'make test-interop' installs it.")


def _ours(folder: Path, kind: str) -> Side:
    return _side(sys.executable, "-m", "flywheel.bench.append_side", folder, kind)


def _side(*command: str | Path) -> Side:
    return Side(list(map(str, command)))


def _name(side: str) -> str:
    return _OURS[side] if side in _OURS else _PEERS[side][0]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.2f} ({min(values):,.2f}-{max(values):,.2f})"


def _table(heading: str, rows: Rates) -> str:
    lines = [f"| {name} | {_spread(values)} |" for name, values in rows.items()]
    return "\n".join([f"| {heading} | median (min-max) |", "|---|---|", *lines, ""])


def main(config: AppendConfig) -> None:
    """Print Markdown tables as they come."""
    machine = describe()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()) + "\n")
    with tempfile.TemporaryDirectory(dir=config.folder.resolve()) as name:
        folder = Path(name)
        rates = measure_rates(folder, config.bursts, config.seconds)
        print(_table("episodes/s, 200 steps, two cameras", {_name(side): found for side, found in rates.items()}), flush=True)
        scaling: Rates = {}
        for kind in ("jpeg", "raw"):
            scaling |= measure_scaling(folder / "scaling", kind, config.bursts, config.seconds)
        figures = Figures(rates, scaling, measure_seen(folder / "seen"))
        print(_table("ratio", figures.ratios()))
        print(_table("episodes/s together", scaling))
        print(_table("ms", {"from acknowledged to read by another process": figures.seen_ms}), flush=True)
        if config.latency_rounds:
            for what, cells in latency.summary(latency.measure(folder / "latency", config.latency_rounds)):
                print(f"{what}: {cells}")
    if config.output:
        content = {"machine": machine, **asdict(figures), "ratios": figures.ratios()}
        write_atomically(config.output, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    try:
        main(tyro.cli(AppendConfig, description=__doc__))
    except FlywheelError as error:
        sys.exit(f"error: {error}")

"""python -m flywheel.bench.memory: what training holds in memory on a store of ten times the budget, as time goes by.

The store's decoded pictures are ten times the budget, real bytes on a real disk. Ours trains (``bc`` through `train`, with both
cameras in every batch) once on a cache that keeps pictures raw up to the budget and the others as JPEG, of which as much again
is held decoded, and once on one that keeps all of them raw. TF-data then reads the same store, as its users write it, with a
shuffle buffer of 10,000 steps. Each is a process of its own, one after the other so that none takes another's memory, and is
looked at after each burst of work.

Anonymous memory is what a process holds of its own: it must fit. The proportional set (PSS) has the mapped pages of the cache,
too, which the system takes back whenever somebody needs them. The slope is that of a line through all but the first third.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from flywheel.bench.cameras import CAMERAS, HORIZON, SIZE
from flywheel.bench.machine import describe
from flywheel.bench.peers import Side
from flywheel.bench.sampling import make_store
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically

_MIB = 1 << 20
_EPISODE_BYTES = (HORIZON + 1) * SIZE * SIZE * 3 * len(CAMERAS)
_OURS = {"jpeg": "ours, budget raw, the rest JPEG", "raw": "ours, all raw, mapped"}
_PEER = "TF-data over RLDS JPEG"


@dataclass(frozen=True)
class MemoryConfig:
    """Measure memory while training."""

    budget_mib: int = 256
    """Mebibytes of decoded pictures that may be kept."""
    times: int = 10
    """How many times as much the store holds."""
    minutes: float = 2.0
    """How long each side works."""
    seconds: float = 5.0
    """The length of a burst, after which memory is read."""
    folder: Path = Path()
    """Where the store is made."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


class Reading(NamedTuple):
    """A process's memory after so many seconds of its own work, in MiB."""

    seconds: float
    anonymous: float
    proportional: float
    """Shared pages in equal parts to all who map them (PSS)."""


@dataclass(frozen=True)
class Course:
    """One side's readings, and how fast it was: updates per second, or frames per second for TF-data."""

    readings: list[Reading]
    rates: list[float]

    @property
    def settled(self) -> list[Reading]:
        """All but the first third, in which buffers fill."""
        return self.readings[len(self.readings) // 3 :]

    def slope(self) -> float:
        """Of the anonymous memory, by least squares, in MiB per minute of work; 0 for a single reading."""
        settled = np.array(self.settled)
        if len(settled) < 2:
            return 0.0
        return 60 * float(np.polyfit(settled[:, 0], settled[:, 1], 1)[0])


def read_memory(process: int) -> tuple[float, float]:
    """Anonymous memory and proportional set of a process, in MiB; raises `FlywheelError` where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError as error:
        raise FlywheelError(f"This system does not tell the memory of process {process} ({error}); Linux does.") from None
    kib = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines)}
    return kib["Anonymous"] / 1024, kib["Pss"] / 1024


def serve(folder: Path, kind: str, budget: int) -> None:
    """Train while standard input gives numbers of seconds, each answered with updates per second."""
    from flywheel.algorithms.bc import BCConfig
    from flywheel.training.recipe import DataConfig
    from flywheel.training.train import TrainConfig, train

    raw = budget if kind == "jpeg" else 1 << 40
    data = DataConfig(pictures=CAMERAS, picture_budget=raw, picture_pool=budget, relabel="hindsight")
    config = TrainConfig("bc", BCConfig(), store=folder, output=folder / "run", updates=1 << 40, data=data)
    train(config, on_progress=_Bursts())


class _Bursts:
    """Called between updates: holds them up between bursts, and ends the process when standard input closes."""

    def __init__(self) -> None:
        self._start, self._end, self._first = 0.0, 0.0, 0

    def __call__(self, done: int, total: int) -> None:
        now = time.perf_counter()
        if now < self._end:
            return
        if self._end:
            print((done - self._first) / (now - self._start), flush=True)
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        self._start, self._first = time.perf_counter(), done
        self._end = self._start + float(line)


def measure(config: MemoryConfig, folder: Path) -> dict[str, Course]:
    """The course of every side, one after the other."""
    rounds = max(1, round(60 * config.minutes / config.seconds))
    courses = {}
    for name, command in _commands(config, folder).items():
        course = Course([], [])
        with Side(command) as side:
            for number in range(1, rounds + 1):
                course.rates.append(side.burst(config.seconds))
                course.readings.append(Reading(number * config.seconds, *read_memory(side.process)))
                now = f"{course.readings[-1].anonymous:,.0f} MiB"
                print(f"{name}, round {number} of {rounds}: {now}", file=sys.stderr, flush=True)
        courses[name] = course
    return courses


def _commands(config: MemoryConfig, folder: Path) -> dict[str, list[str]]:
    """Make the store, and say how each side is started on it; each of ours has a cache of its own in a copy."""
    episodes = -(-config.times * config.budget_mib * _MIB // _EPISODE_BYTES)
    print(f"making a store of {episodes} episodes", file=sys.stderr, flush=True)
    path = make_store(folder / "jpeg", episodes).path
    shutil.copytree(folder / "jpeg", folder / "raw")
    paths = {kind: folder / kind / path.relative_to(folder / "jpeg") for kind in _OURS}
    own = [sys.executable, "-m", "flywheel.bench.memory", "serve"]
    ours = {name: [*own, str(paths[kind]), kind, str(config.budget_mib * _MIB)] for kind, name in _OURS.items()}
    return ours | {_PEER: [sys.executable, "-m", "flywheel.bench.peer_tfdata", str(path), "stream"]}


def main(config: MemoryConfig) -> None:
    """Print a Markdown table; raises `FlywheelError` if a side dies, or where the system does not tell a process's memory."""
    if min(config.budget_mib, config.times, config.seconds, config.minutes) <= 0:
        raise FlywheelError("The budget (--budget-mib), --times, --minutes and --seconds must be above zero.")
    machine = describe()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()) + "\n", flush=True)
    with tempfile.TemporaryDirectory(dir=config.folder.resolve(), prefix="bench-memory-") as name:
        courses = measure(config, Path(name))
    print("| MiB | anonymous | highest | slope a minute | PSS, highest | updates/s, or frames/s |\n|---|---|---|---|---|---|")
    for side, course in courses.items():
        print(_row(side, course))
    if config.output:
        content = {"machine": machine, "budget_mib": config.budget_mib, "times": config.times}
        figures = {side: {**asdict(course), "slope": course.slope()} for side, course in courses.items()}
        write_atomically(config.output, json.dumps(content | {"sides": figures}, indent=1).encode())


def _row(side: str, course: Course) -> str:
    own = [reading.anonymous for reading in course.settled]
    highest = max(reading.proportional for reading in course.readings)
    rate = statistics.median(course.rates)
    return (
        f"| {side} | {own[0]:,.0f} to {own[-1]:,.0f} | {max(own):,.0f} | {course.slope():+.1f} | {highest:,.0f} | {rate:,.0f} |"
    )


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["serve"]:
            serve(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        else:
            main(tyro.cli(MemoryConfig, description=__doc__))
    except FlywheelError as error:
        sys.exit(f"error: {error}")

"""python -m flywheel.bench.compaction: small shards into few while writers append and readers read (goal S10).

For each size a store of so many one-episode shards is made, which is what sealing at every append leaves, and copied for each
run. Then two processes append, a shard an episode, two open the store over and over and compare an episode bit by bit, and
this one compacts. In the end everything that was acknowledged is compared. Growth is the exponent between the medians of two
sizes: 1 is linear.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from flywheel.bench.durability.episodes import SCHEMA, check_content, check_listing, make_episode
from flywheel.bench.durability.kills import Child
from flywheel.bench.machine import describe
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.datasets.journal import StoreWarning
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep.compact import compact

_LANES = ("writing", "reading")
_OPENINGS = 7
_OPENING_COLUMNS = ("opening_before", "opening_after", "opening_beside")
_PAUSE = 0.02
"""Seconds between a writer's appends: faster than any two robots, and the store still grows by less than it is compacted."""


@dataclass(frozen=True)
class CompactionConfig:
    """Measure compaction beside writers and readers."""

    shards: tuple[int, ...] = (625, 1_250, 2_500, 5_000)
    """The sizes, in one-episode shards."""
    processes: int = 2
    """Writers, and as many readers; 0 leaves the store to the compaction alone."""
    runs: int = 3
    """Compactions per size; their median and range are printed."""
    folder: Path = Path()
    """What disk is measured: a folder on it."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


@dataclass(frozen=True)
class Compacted:
    """One compaction; times in seconds."""

    shards: int
    """Before, without those that were added meanwhile."""
    listed: int
    """When it had ended."""
    seconds: float
    opening_before: list[float]
    """From a path to the rows of all episodes, with nobody else at the store."""
    opening_after: list[float]
    opening_beside: list[float]
    """The readers', while it ran."""
    append_beside: list[float]
    """The writers', until acknowledged, while it ran."""


def measure(path: Path, shards: int, processes: int) -> Compacted:
    """Compact the store at a path; raises `AssertionError` for whatever is lost, doubled, or wrong to a reader."""
    before = [_opening(path) for _ in range(_OPENINGS)]
    with ExitStack() as stack:
        children = {lane: [_start(stack, path, lane, number) for number in range(processes)] for lane in _LANES}
        for child in (child for group in children.values() for child in group):
            assert child.pipe.readline(), "a child failed"  # all are under way
        start = time.perf_counter()
        done = compact(EpisodeStore.open(path)).rewrite
        seconds = time.perf_counter() - start
        told = {lane: [child.kill() for child in group] for lane, group in children.items()}
        stack.pop_all()
    with EpisodeStore.open(path).writer():
        pass  # seals what the killed writers left
    _check(path, shards, [1 + len(lines) for lines in told["writing"]])
    beside = {lane: [float(line) for lines in group for line in lines] for lane, group in told.items()}
    after = [_opening(path) for _ in range(_OPENINGS)]
    return Compacted(shards, done.after, seconds, before, after, beside["reading"], beside["writing"])


def _check(path: Path, shards: int, acknowledged: list[int]) -> None:
    """Compare what the store began with, and what each writer was told is stored."""
    names = [f"{lane}-{number}" for lane, count in enumerate([shards, *acknowledged]) for number in range(count)]
    lost = set(names) - set(check_listing(path))
    assert not lost, f"{len(lost)} episodes that were acknowledged are not listed"
    check_content(EpisodeStore.open(path), names)


def make_store(folder: Path, shards: int) -> EpisodeStore:
    """A store of so many shards of one episode each."""
    store = EpisodeStore.create(folder, "compaction", SCHEMA)
    with store.writer(seal_episodes=1) as writer, warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)  # of many shards, which are wanted here
        for number in range(shards):
            writer.append(make_episode(f"0-{number}"))
    return store


def _start(stack: ExitStack, path: Path, lane: str, number: int) -> Child:
    """A child that is under way, and is killed whatever happens."""
    work = {"writing": _write, "reading": _read}[lane]
    child = Child.fork(lambda tell: work(path, number, tell))
    stack.callback(child.kill)
    return child


def _write(path: Path, number: int, tell: Callable[[str], None]) -> None:
    with EpisodeStore.open(path).writer(seal_episodes=1) as writer:
        for count in itertools.count():
            episode, start = make_episode(f"{number + 1}-{count}"), time.perf_counter()
            writer.append(episode)
            tell(f"{time.perf_counter() - start:.5f}")
            time.sleep(_PAUSE)


def _read(path: Path, number: int, tell: Callable[[str], None]) -> None:
    rng = random.Random(number)
    while True:
        tell(f"{_opening(path):.4f}")
        store = EpisodeStore.open(path)
        check_content(store, [rng.choice(store.rows()).episode_id])


def _opening(path: Path) -> float:
    start = time.perf_counter()
    EpisodeStore.open(path).rows()
    return time.perf_counter() - start


def main(config: CompactionConfig) -> None:
    """Print a row per size as it comes; raises `FlywheelError` for sizes that cannot be measured."""
    if min(config.shards, default=0) < 2 or config.runs < 1:
        raise FlywheelError("A figure needs a size of two shards or more (--shards) and a run or more (--runs).")
    machine = describe()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()) + "\n")
    print("| shards | listed after | compaction | growth | opening before | after | beside | append beside, p50 and worst |")
    print("|---|---|---|---|---|---|---|---|")
    found: list[Compacted] = []
    for size in config.shards:
        with tempfile.TemporaryDirectory(dir=config.folder.resolve(), prefix="bench-compaction-") as name:
            runs = _runs(Path(name), size, config)
        print(_row(runs, _growth(found, runs)), flush=True)
        found += runs
    if config.output:
        content = {"machine": machine, "compactions": [asdict(item) for item in found]}
        write_atomically(config.output, json.dumps(content, indent=1).encode())


def _runs(folder: Path, shards: int, config: CompactionConfig) -> list[Compacted]:
    """The compactions of one size, each of a copy of the same store."""
    path = make_store(folder / "made", shards).path
    runs = []
    for number in range(config.runs):
        copy = folder / f"{number}"
        shutil.copytree(path, copy)
        runs.append(measure(copy, shards, config.processes))
        shutil.rmtree(copy)
    return runs


def _growth(found: list[Compacted], runs: list[Compacted]) -> str:
    smaller = [item for item in found if item.shards == found[-1].shards and item.shards != runs[0].shards]
    if not smaller:
        return ""
    one, other = (statistics.median(item.seconds for item in group) for group in (smaller, runs))
    return f"{math.log(other / one) / math.log(runs[0].shards / smaller[0].shards):.2f}"


def _row(runs: list[Compacted], growth: str) -> str:
    appends = [seconds for item in runs for seconds in item.append_beside]
    groups = (
        [item.seconds for item in runs],
        *([seconds for item in runs for seconds in getattr(item, name)] for name in _OPENING_COLUMNS),
    )
    compaction, *openings = map(_spread, groups)
    worst = f"{1e3 * statistics.median(appends):.1f} and {1e3 * max(appends):.0f} ms of {len(appends)}" if appends else ""
    cells = [f"{runs[0].shards:,}", str(max(item.listed for item in runs)), compaction, growth, *openings, worst]
    return f"| {' | '.join(cells)} |"


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})" if seconds else ""


if __name__ == "__main__":
    try:
        main(tyro.cli(CompactionConfig, description=__doc__))
    except FlywheelError as error:
        sys.exit(f"error: {error}")

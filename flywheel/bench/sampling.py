"""python -m flywheel.bench.sampling: random batches of pictures per second, ours beside TF-data over the same RLDS store, and
beside robomimic, LeRobot and TorchRL over the same frames in their own formats, where they are installed.

One store of 200 episodes of 200 steps, with two 84 x 84 cameras kept as JPEG (1.7 GB raw), a 32-d state and a 7-d action.
A sample is observation, action, next observation and a random future goal: six frames. Each side is a process of its own that
works when told to, in turn with the others, so what else the machine does strikes all alike. The page cache is warm.
"""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from flywheel.bench import loaders
from flywheel.bench.cameras import CAMERAS, HORIZON, SIZE, picture_episodes, picture_schema
from flywheel.bench.data import measure
from flywheel.bench.machine import describe
from flywheel.bench.peers import Side
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.datasets.columns import PICTURE_POOL, Columns
from flywheel.datasets.relabel import Hindsight
from flywheel.datasets.sampler import UniformSampler
from flywheel.datasets.store import EpisodeStore
from flywheel.training.data import ChunkSource

BATCH, FRAMES = 256, 6
_GOALS = Hindsight(p_current=0.0, p_future=1.0, p_random=0.0, horizon="uniform")
_BUDGETS = {"raw": 1 << 40, "half": None, "jpeg": 0}
_INDEPENDENT = "independent"
"""The JPEG store without a pool of decoded episodes: each frame is decoded for itself."""


@dataclass(frozen=True)
class SamplingConfig:
    """Measure random batches of pictures beside TF-data."""

    bursts: int = 7
    """Bursts per side; their median and range are printed."""
    seconds: float = 2.0
    """The length of a burst."""
    episodes: int = 200
    """Episodes in the store."""
    loaders: bool = True
    """Whether to measure robomimic, LeRobot and TorchRL, too, which takes minutes."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


def make_store(folder: Path, episodes: int) -> EpisodeStore:
    """The benchmark's store."""
    store = EpisodeStore.create(folder, "pictures", picture_schema())
    source = picture_episodes()
    with store.writer() as writer:
        for _ in range(episodes):
            writer.append(next(source))
    return store


def open_columns(folder: Path, kind: str, pool: int = PICTURE_POOL) -> Columns:
    """The store's columns: all pictures ``raw``, all ``jpeg``, or ``half`` of each; and so many bytes for decoded ones."""
    store = EpisodeStore.open(folder)
    budget = _BUDGETS[kind]
    if budget is None:
        budget = (HORIZON + 1) * len(store.rows()) * SIZE * SIZE * 3 * len(CAMERAS) // 2
    return Columns.open(store, store.snapshot(), arrays=CAMERAS, picture_budget=budget, picture_pool=pool)


def first_batch(folder: Path, kind: str) -> float:
    """Seconds from a path to the first batch, on a cache that is there."""
    start = time.perf_counter()
    columns = open_columns(folder, kind)
    sampler, rng = UniformSampler(columns.table), np.random.default_rng(0)
    indices = sampler.sample(rng, BATCH)
    columns.gather(indices, _GOALS(columns.table, indices, rng), 0.99)
    return time.perf_counter() - start


def serve(folder: Path, kind: str) -> None:
    """Answer a number of seconds on each line of standard input with the frames per second over a burst of that length."""
    torch.set_num_threads(1)
    found = {"limit": "raw", _INDEPENDENT: "jpeg"}.get(kind, kind)
    columns = open_columns(folder, found, 0 if kind == _INDEPENDENT else PICTURE_POOL)
    work = _limit(columns) if kind == "limit" else _batches(columns, in_advance=kind != "raw")
    for line in sys.stdin:
        print(measure(work, bursts=1, seconds=float(line))[0], flush=True)


def _batches(columns: Columns, in_advance: bool) -> Callable[[], int]:
    """From a generator's state to finished batches: one at a time on this thread, or in advance and decoded on all cores."""
    source = ChunkSource(columns, UniformSampler(columns.table), _GOALS, batch_size=BATCH, discount=0.99, seed=0)
    batches = source.updates(0, sys.maxsize) if in_advance else source._batches(0, sys.maxsize, 1)

    def work() -> int:
        return len(next(batches)) * FRAMES

    return work


def _limit(columns: Columns) -> Callable[[], int]:
    """Nothing but torch's `index_select` of the same frames into memory that is there: what no sampler can exceed."""
    rng = np.random.default_rng(0)
    frames = [column._words for column in columns.arrays.values()]
    out = [torch.zeros((BATCH * 3, frame.shape[1]), dtype=frame.dtype) for frame in frames]
    rows = [torch.from_numpy(rng.integers(len(columns.state), size=BATCH * 3)) for _ in range(200)]
    turn = itertools.cycle(rows)

    def work() -> int:
        drawn = next(turn)
        for frame, buffer in zip(frames, out, strict=True):
            torch.index_select(frame, 0, drawn, out=buffer)
        return BATCH * FRAMES

    return work


def main(config: SamplingConfig) -> None:
    """Print a Markdown table; raises `FlywheelError` if a side dies."""
    print("\n".join(f"{key}: {value}" for key, value in describe().items()), flush=True)
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="bench-sampling-") as name:
        folders = {kind: Path(name) / kind for kind in _BUDGETS}
        make_store(folders["raw"], config.episodes)
        for kind in ("half", "jpeg"):
            shutil.copytree(folders["raw"], folders[kind])
        for kind, folder in folders.items():
            open_columns(folder, kind)
        first = {kind: [first_batch(folder, kind) for _ in range(config.bursts)] for kind, folder in folders.items()}
        rates = _measure(config, folders)
    _print(first, rates)
    if config.output:
        figures = {"machine": describe(), "frames_per_second": rates, "first_batch_seconds": first}
        write_atomically(config.output, json.dumps(figures, indent=1).encode())


def _measure(config: SamplingConfig, folders: dict[str, Path]) -> dict[str, list[float]]:
    """Frames per second of each side, burst by burst in turn, after one each that is thrown away."""
    path = EpisodeStore.open(folders["raw"]).path
    ours, theirs = (
        [sys.executable, "-m", "flywheel.bench.sampling", "serve"],
        [sys.executable, "-m", "flywheel.bench.peer_tfdata"],
    )
    commands = {
        "torch index_select, 1 thread: the limit": [*ours, str(folders["raw"]), "limit"],
        "ours, raw, 1 thread": [*ours, str(folders["raw"]), "raw"],
        "ours, half raw, half JPEG": [*ours, str(folders["half"]), "half"],
        "ours, JPEG": [*ours, str(folders["jpeg"]), "jpeg"],
        "ours, JPEG, each frame decoded for itself": [*ours, str(folders["jpeg"]), _INDEPENDENT],
        "TF-data over RLDS JPEG": [*theirs, str(path), "stream"],
        "TF-data over RLDS JPEG, cached": [*theirs, str(path), "cache"],
    }
    if config.loaders:
        commands |= loaders.commands(EpisodeStore.open(folders["raw"]), folders["raw"].parent)
    rates: dict[str, list[float]] = {name: [] for name in commands}
    with ExitStack() as stack:
        sides = {name: stack.enter_context(Side(command)) for name, command in commands.items()}
        for burst in range(config.bursts + 1):
            for name, side in sides.items():
                rate = side.burst(config.seconds)
                if burst:
                    rates[name].append(rate)
    return rates


def _print(first: dict[str, list[float]], rates: dict[str, list[float]]) -> None:
    print("\n| frames/s | median | range | beside TF-data |\n|---|---|---|---|")
    peer = rates["TF-data over RLDS JPEG"]
    for name, found in rates.items():
        ratio = statistics.median(own / theirs for own, theirs in zip(found, peer, strict=True))
        print(f"| {name} | {statistics.median(found):,.0f} | {min(found):,.0f} to {max(found):,.0f} | {ratio:.1f} |")
    print("\n| first batch, existing cache | median | range |\n|---|---|---|")
    for kind, found in first.items():
        print(f"| {kind} | {statistics.median(found):.3f} s | {min(found):.3f} to {max(found):.3f} |")


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["serve"]:
            serve(Path(sys.argv[2]), sys.argv[3])
        else:
            main(tyro.cli(SamplingConfig, description=__doc__))
    except FlywheelError as error:
        sys.exit(f"error: {error}")

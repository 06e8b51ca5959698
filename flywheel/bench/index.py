"""python -m flywheel.bench.index: how long a store of many small episodes takes to list, ask, snapshot and label.

The store is made once in a folder that is given or temporary, so that a second run on it measures at once. Each figure is
the median of several runs with its range; "first" is a store opened anew, the others one that has been read.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from flywheel.bench.machine import describe
from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore

_SCHEMA = Schema(ObservationSpec({"state": ArraySpec((4,))}), ActionSpec((-1.0,) * 2, (1.0,) * 2))
_TASKS, _POLICIES, _STEPS = 10, 7, 3


@dataclass(frozen=True)
class IndexConfig:
    """How many episodes, and how often."""

    episodes: int = 100_000
    """Episodes in the store."""
    runs: int = 7
    """Runs per figure."""
    folder: Path | None = None
    """Where the store is made, or was made before; a temporary folder if not given."""


def main(config: IndexConfig) -> None:
    """Make the store, measure, and print."""
    if config.episodes < 1 or config.runs < 1:
        raise FlywheelError("A figure needs at least one episode (--episodes) and one run (--runs).")
    for key, value in describe().items():
        print(f"{key}: {value}")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = make_store(config.folder or Path(folder), config.episodes).path
        for name, work in _figures(path):
            seconds = [_seconds(work) for _ in range(config.runs)]
            print(f"{name:<44} {statistics.median(seconds):8.3f} s  ({min(seconds):.3f} to {max(seconds):.3f})")


def make_store(folder: Path, episodes: int) -> EpisodeStore:
    """A store of so many episodes of three steps, by several policies and of several tasks; what is there already is kept."""
    store = EpisodeStore.create(folder, "index_bench", _SCHEMA)
    template = _episode()
    with store.writer(seal_episodes=1_000) as writer:
        for number in range(len(store.rows()), episodes):
            writer.append(replace(template, metadata=_metadata(number)))
    return store


def _figures(path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each figure's name and what it does once."""
    yield "rows, first", lambda: EpisodeStore.open(path).rows()
    store = EpisodeStore.open(path)
    snapshot = store.snapshot()
    ids = [entry.episode_id for entry in snapshot.entries[:100]]
    yield "rows, again", store.rows
    yield "query, first: task = ? and success", lambda: EpisodeStore.open(path).query("task = ? and success", "task 3")
    yield "query, again: task = ? and success", lambda: store.query("task = ? and success", "task 3")
    yield (
        "query, again: policy glob and started and length",
        lambda: store.query("policy glob '000*3' and started > '2025-06-16' and length > 1"),
    )
    yield "snapshot", store.snapshot
    yield "resolve a snapshot", lambda: store.resolve(snapshot)

    def label() -> None:
        store.label(ids, "invalid", True, by="bench")
        store.rows()

    yield "label 100 episodes durably, and rows", label


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _episode() -> Episode:
    rng = np.random.default_rng(0)
    observations = [{"state": rng.normal(size=4).astype(np.float32)} for _ in range(_STEPS + 1)]
    actions = list(rng.uniform(-1, 1, (_STEPS, 2)).astype(np.float32))
    return Episode.from_transitions(observations, actions, [0.0] * _STEPS, terminal=False, metadata=_metadata(0))


def _metadata(number: int) -> EpisodeMetadata:
    return EpisodeMetadata(
        episode_id=f"{number:032x}",
        agent_id=f"policy-{number % _POLICIES}",
        task=f"task {number % _TASKS}",
        robot="bench",
        seed=number,
        success=number % 3 == 0,
        policy_checkpoint=f"{number % _POLICIES:032x}",
        started_at_ns=(1_750_000_000 + number) * 10**9,
        software='{"mujoco": "3.3", "robosuite": "1.5.2", "numpy": "1.26"}',
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(IndexConfig, description=__doc__))
    except FlywheelError as error:
        sys.exit(f"error: {error}")

"""The stores that a run learns from: each with its snapshot, fixed at the start, and its columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.datasets import mixture
from flywheel.datasets.columns import Columns
from flywheel.datasets.mixture import Mixture
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.training.recipe import DataConfig
from flywheel.training.verdicts import with_verdicts


@dataclass(frozen=True, eq=False)
class Source:
    """One store of a run."""

    store: EpisodeStore
    snapshot: Snapshot
    """The episodes that are learned from: damaged ones are not in it."""
    columns: Columns


def open_sources(store: Path, data: DataConfig, run: Path, on_reading: Callable[[int, int], None]) -> list[Source]:
    """The run's store and the others that are mixed in, in this order.

    Raises `FlywheelError` for a store without episodes to learn from or named twice, and where one no longer holds what the run
    began with.
    """
    paths = [EpisodeStore.open(path).path.resolve() for path in (store, *data.also)]
    for path in paths:
        if paths.count(path) > 1:
            raise FlywheelError(f"{path} is named twice; name a store once, and say its share with --data.shares.")
    return [_open(path, data, run / snapshot_file(number), on_reading) for number, path in enumerate((store, *data.also))]


def join(sources: Sequence[Source]) -> Columns | Mixture:
    """The columns of one store, or of all of them as one."""
    if len(sources) == 1:
        return sources[0].columns
    return Mixture([mixture.Source(source.columns, source.store.schema.observation) for source in sources])


def snapshot_file(number: int) -> str:
    """The name under which a run keeps the snapshot of its store of this number."""
    return f"snapshot-{number}.json" if number else "snapshot.json"


def _open(path: Path, data: DataConfig, pinned: Path, on_reading: Callable[[int, int], None]) -> Source:
    store = EpisodeStore.open(path)
    snapshot = Snapshot.load(pinned) if pinned.exists() else _choose(store, data)
    columns = Columns.open(
        store,
        snapshot,
        on_reading,
        arrays=data.pictures,
        picture_budget=data.picture_budget,
        picture_pool=data.picture_pool,
    )
    # What was really read; a run that goes on must read what it began with, or it would not be the same run.
    read = snapshot.only(set(columns.table.episode_id))
    if pinned.exists() and read != snapshot:
        lost = min(set(snapshot.entries) - set(read.entries)).episode_id
        raise FlywheelError(
            f"{pinned} names episode '{lost}', which {store.path} can no longer read; restore the store from a copy, or give "
            "another --output to learn from the others."
        )
    if data.detector:
        columns = with_verdicts(columns, store, read, data.detector, data.tasks)
    return Source(store, read, _with_rewards(columns, data))


def _with_rewards(columns: Columns, data: DataConfig) -> Columns:
    if (data.reward_scale, data.reward_shift) == (1.0, 0.0):
        return columns
    return replace(columns, reward=data.reward_scale * columns.reward + np.float32(data.reward_shift))


def _choose(store: EpisodeStore, data: DataConfig) -> Snapshot:
    rows = store.query(data.where) if data.where else store.rows()
    # Only where episodes are offered to other tasks than their own does one of a task that is not learned count.
    tasks = data.tasks if data.impersonate == "orig" else ()
    tasks = (data.task,) if data.task else tasks
    snapshot = Snapshot.of_rows(row for row in rows if not row.invalid and (not tasks or row.task in tasks))
    if not snapshot.entries:
        wanted = f"episodes of task '{' or '.join(tasks)}'" if tasks else "episodes"
        wanted += f" for which {data.where} holds" if data.where else ""
        raise FlywheelError(f"The store {store.path} has no {wanted} to learn from; collect some first (flywheel collect).")
    return snapshot

"""Recorded episodes and their labels laid over each other: what a store shows of itself."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import FlywheelError
from flywheel.datasets.catalog import Catalog
from flywheel.datasets.index import IndexRow
from flywheel.datasets.label_log import LabelLog
from flywheel.datasets.labels import labelled


class Overlay:
    """The labelled rows of a store, made anew only where a row or its labels have changed."""

    def __init__(self, store: Path, catalog: Catalog, labels: LabelLog) -> None:
        self._store, self._catalog, self._labels = store, catalog, labels
        self._made: dict[str, tuple[IndexRow, IndexRow]] = {}
        """By episode: the recorded row and the labelled one that was made of it."""

    def find(self, episode_id: str) -> IndexRow | None:
        """The labelled row of one episode, deleted or not; None if there is none."""
        row = self._catalog.rows.get(episode_id)
        return None if row is None else self._labelled(row)

    def rows(self, *, deleted: bool) -> list[IndexRow]:
        """All rows in the order of the shards, unsealed ones last."""
        rows = map(self._labelled, self._catalog.rows.values())
        shown = rows if deleted else (row for row in rows if not row.deleted)
        return sorted(shown, key=lambda row: (row.shard.startswith("."), row.shard, row.offset))

    def as_of(self, episode_id: str, crc: int, chain: int) -> IndexRow:
        """The row that an episode had with a chain of labels; raises `FlywheelError` if either is no longer there."""
        row = self._catalog.rows.get(episode_id)
        if row is None or row.crc != crc:
            raise FlywheelError(
                f"{self._store} no longer holds episode '{episode_id}' as the snapshot has it; restore the store from a copy."
            )
        entries = self._labels.as_of(episode_id, chain)
        if entries is None:
            raise FlywheelError(
                f"{self._labels.path} no longer holds the labels of episode '{episode_id}' as the snapshot has them; restore "
                "that file from a copy."
            )
        return labelled(row, entries)

    def _labelled(self, row: IndexRow) -> IndexRow:
        entries = self._labels.entries.get(row.episode_id)
        if not entries:
            return row
        made = self._made.get(row.episode_id)
        if made is None or made[0] is not row or made[1].labels != entries[-1].chain:
            made = self._made[row.episode_id] = row, labelled(row, entries)
        return made[1]


def revise(episode: Episode, row: IndexRow) -> Episode:
    """A recorded episode, (T + 1) steps, as its labelled row has it: the transitions of its trim, the row's metadata.

    A trim that cuts the end off leaves a truncated episode, whose last observation is where a learner bootstraps.
    """
    metadata = EpisodeMetadata(**{item.name: getattr(row, item.name) for item in fields(EpisodeMetadata)})
    if row.trim is None:
        return replace(episode, metadata=metadata)
    steps = slice(row.trim.start, row.trim.stop + 1)
    action, reward, discount = (getattr(episode, name)[steps].copy() for name in ("action", "reward", "discount"))
    is_first, is_last = (np.zeros(len(reward), np.bool_) for _ in range(2))
    is_first[0] = is_last[-1] = True
    if row.trim.stop < episode.transitions:
        action[-1], reward[-1], discount[-1] = 0.0, 0.0, 1.0
    return Episode(
        observation={key: values[steps] for key, values in episode.observation.items()},
        action=action,
        reward=reward,
        discount=discount,
        is_first=is_first,
        is_last=is_last,
        is_terminal=episode.is_terminal[steps],
        metadata=metadata,
    )

"""A snapshot as memory-mapped columns, and batches gathered from them. The only file of datasets/ that imports torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from flywheel.core.batch import Batch
from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.datasets.column_cache import CachedEpisode, open_cache
from flywheel.datasets.relabel import Relabeled
from flywheel.datasets.sampler import Indices
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.table import EpisodeTable, Floats, Ints
from flywheel.datasets.tfrecord import DamagedError, DamageWarning

Progress = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""


@dataclass(frozen=True, eq=False)
class Columns:
    """R steps of a store, of which `table` names those of one snapshot.

    Row r + 1 follows row r within an episode; the last row of an episode is its final observation, whose action and reward
    are undefined. Other snapshots' episodes may lie in between.
    """

    table: EpisodeTable
    state: Floats
    """(R, D)"""
    action: Floats
    """(R, A)"""
    reward: Floats
    """(R,)"""

    @classmethod
    def open(cls, store: EpisodeStore, snapshot: Snapshot, on_progress: Progress = lambda done, total: None) -> Self:
        """Bring the store's cache up to the snapshot and map it; only episodes that are not in it yet are decoded.

        A damaged record is left out with the store's `DamageWarning`.
        Raises `FlywheelError` for an empty snapshot, for observations without a state, for an episode that the store no longer
        holds as the snapshot has it, and if the disk is full.
        """
        if not snapshot.entries:
            raise FlywheelError(f"The snapshot of {store.path} holds no episodes; collect some first (flywheel collect).")
        if not store.schema.observation.state_dim:
            raise FlywheelError(f"The observations of {store.path} hold no floating-point vector; log the robot's state too.")
        with open_cache(store.path, store.schema) as cache:
            missing = [entry for entry in snapshot.entries if entry[:2] not in cache.episodes]
            if missing:
                cache.append(_decode(store, Snapshot.of(missing), on_progress))
            found = [cache.episodes[entry[:2]] for entry in snapshot.entries if entry[:2] in cache.episodes]
            if not found:
                raise FlywheelError(f"No episode of the snapshot of {store.path} is readable; see 'flywheel store verify'.")
            return cls(table=_table(found), **cache.arrays())

    def gather(self, indices: Indices, relabeled: Relabeled, discount: float) -> Batch:
        """The batch of n sampled transitions with their meaning; `discount` is gamma."""
        rows = [indices.row, indices.row + 1]
        if relabeled.goal_row is not None:
            rows.append(relabeled.goal_row)
        # One gather for all observations: one allocation that the allocator re-uses, where several would be page-faulted anew.
        states = _gather(self.state, np.concatenate(rows)).view(len(rows), len(indices), -1)
        reward = self.reward.take(indices.row) if relabeled.reward is None else relabeled.reward
        return Batch(
            observation={"state": states[0]},
            action=_gather(self.action, indices.row),
            reward=torch.from_numpy(reward),
            discount=torch.from_numpy(relabeled.discount) * discount,
            next_observation={"state": states[1]},
            goal=_goal(states, relabeled),
            is_chained=None if relabeled.is_chained is None else torch.from_numpy(relabeled.is_chained),
            mc_return=None if relabeled.steps_to_goal is None else torch.from_numpy(_return(relabeled.steps_to_goal, discount)),
        )


def _gather(column: Floats, rows: Ints) -> Tensor:
    return torch.from_numpy(column).index_select(0, torch.from_numpy(rows))


def _goal(states: Tensor, relabeled: Relabeled) -> dict[str, Tensor] | None:
    if relabeled.goal_row is not None:
        return {"state": states[2]}
    if relabeled.goal_state is not None:
        return {"state": torch.from_numpy(relabeled.goal_state).expand_as(states[0])}
    return None


def _return(steps_to_goal: Ints, discount: float) -> Floats:
    """The discounted return of a reward of 1 at the goal: gamma^(steps - 1), and 0 where the goal was never reached."""
    return np.where(steps_to_goal > 0, discount ** (steps_to_goal - 1.0), 0.0).astype(np.float32)


def _decode(store: EpisodeStore, missing: Snapshot, on_progress: Progress) -> Iterator[tuple[int, Episode]]:
    for done, row in enumerate(store.resolve(missing)):
        on_progress(done, len(missing))
        try:
            yield row.crc, store.raw(row.episode_id)
        except DamagedError as error:
            warnings.warn(f"Episode {row.episode_id} is left out: {error}", DamageWarning, stacklevel=2)
    on_progress(len(missing), len(missing))


def _table(episodes: list[CachedEpisode]) -> EpisodeTable:
    return EpisodeTable(
        episode_id=tuple(episode.episode_id for episode in episodes),
        start=np.array([episode.start for episode in episodes], np.int64),
        transitions=np.array([episode.steps - 1 for episode in episodes], np.int64),
        success=np.array([episode.success for episode in episodes], np.bool_),
        terminal=np.array([episode.terminal for episode in episodes], np.bool_),
        episode_return=np.array([episode.episode_return for episode in episodes], np.float64),
        task=np.array([episode.task for episode in episodes], np.str_),
    )

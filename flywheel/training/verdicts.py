"""A success detector's verdicts in the place of what was recorded: the rewards that are learned from, and task impersonation.

An episode succeeded where the detector accepts its final picture, as in MT-Opt (Kalashnikov et al. 2021): it then ends in a
reward of 1, and is terminal. An episode that is offered to another task ends where that task is accepted with confidence, several
pictures in a row, as one picture alone may deceive; or at its end, by the final picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from flywheel.core.specs import Array
from flywheel.datasets.columns import Columns
from flywheel.datasets.index import IndexRow
from flywheel.datasets.moments import check_cameras, read_pictures
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.detector import SuccessDetector

_THRESHOLD = 0.5
_CONFIDENCE, _IN_A_ROW = 0.9, 2
"""How likely, in how many pictures one after the other, a task must be done on the way for an episode to end there."""
_KEPT = 2
"""Episodes whose pictures are kept while one task after the other looks at them."""


def with_verdicts(
    columns: Columns, store: EpisodeStore, snapshot: Snapshot, detector: Path, tasks: Sequence[str] = ()
) -> Columns:
    """The columns with rewards, successes and ends as a detector has them for each episode's own task.

    Of `tasks` alone, where some are named: other episodes are offered to these, and have no success of their own. Raises
    `FlywheelError` for cameras that the store lacks and for a task that the detector has not learned.
    """
    judge, table = SuccessDetector.load(detector), columns.table
    check_cameras(store, judge.header.cameras)
    learned = set(tasks) or set(table.task.tolist())
    for task in sorted(learned):
        judge.check_task(task)
    rows = {row.episode_id: row for row in store.resolve(snapshot)}
    own = zip(table.episode_id, table.task.tolist(), strict=True)
    success = np.array([task in learned and judge.judge(store, rows[name]) >= _THRESHOLD for name, task in own], np.bool_)
    reward = np.array(columns.reward)
    for start, length, succeeded in zip(table.start, table.transitions, success, strict=True):
        reward[start : start + length] = 0.0
        reward[start + length - 1] = succeeded
    table = replace(table, success=success, terminal=success, episode_return=success.astype(np.float64))
    return replace(columns, table=table, reward=reward)


@dataclass(frozen=True, eq=False)
class Acceptance:
    """When a detector first accepts an episode for some task."""

    detector: SuccessDetector
    store: EpisodeStore
    rows: dict[str, IndexRow]

    @classmethod
    def of(cls, detector: Path, store: EpisodeStore, snapshot: Snapshot, tasks: Sequence[str]) -> Acceptance:
        """For the episodes of a snapshot; raises `FlywheelError` as `with_verdicts` does."""
        judge = SuccessDetector.load(detector)
        check_cameras(store, judge.header.cameras)
        for task in tasks:
            judge.check_task(task)
        return cls(judge, store, {row.episode_id: row for row in store.resolve(snapshot)})

    def __call__(self, episode_id: str, task: str) -> int | None:
        """The step at which the task is done, counted from 0; None if it never is."""
        return first_accepted(self.detector.probabilities(self._pictures(episode_id), task))

    def _pictures(self, episode_id: str) -> dict[str, Array]:
        return _all_pictures(self.store, self.rows[episode_id], self.detector.cameras)


def first_accepted(probability: Array) -> int | None:
    """The step at which enough of (T + 1,) probabilities in a row were confident, or the last one where that is accepted."""
    in_a_row = 0
    for step, value in enumerate(probability):
        in_a_row = in_a_row + 1 if value >= _CONFIDENCE else 0
        if in_a_row == _IN_A_ROW:
            return step if step >= _IN_A_ROW else 0  # it was done before anything happened
    return len(probability) - 1 if probability[-1] >= _THRESHOLD else None


@lru_cache(_KEPT)
def _all_pictures(store: EpisodeStore, row: IndexRow, cameras: tuple[str, ...]) -> dict[str, Array]:
    return read_pictures(store, row, cameras, range(row.length + 1))

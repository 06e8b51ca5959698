"""From sampled transitions and their meaning to a batch, whatever the columns are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from flywheel.core.batch import Batch
from flywheel.core.specs import Array
from flywheel.datasets.relabel import Relabeled
from flywheel.datasets.returns import Discount, per_sample
from flywheel.datasets.sampler import Indices
from flywheel.datasets.table import EpisodeTable, Floats, Ints
from flywheel.datasets.window import Window

_GOALS = ("goal", "actor_goal", "low_actor_goal", "high_actor_target")
"""The batch's observations to reach; their rows are the meaning's fields of these names with ``_row``."""


class Readable(Protocol):
    """Columns by row: those of a store, or of several (`mixture`)."""

    @property
    def table(self) -> EpisodeTable:
        """The episodes."""

    @property
    def reward(self) -> Floats:
        """The rewards, (R,)."""

    def observations(self, rows: Ints) -> dict[str, Tensor]:
        """The observations of some rows (n,), each (n, ...)."""

    def actions(self, rows: Ints) -> Tensor:
        """The actions of some rows (n,): (n, A)."""


def make_batch(columns: Readable, indices: Indices, relabeled: Relabeled, discount: Discount, window: Window) -> Batch:
    """The batch of n sampled transitions with their meaning.

    Args:
        columns: What to read.
        indices: The transitions.
        relabeled: Their meaning.
        discount: Gamma, for all or per episode (E,).
        window: How many observations and actions each sample shows.
    """
    here, is_pad_history = window.observations(indices)
    following, _ = window.observations(indices, 1 if relabeled.steps is None else relabeled.steps)
    actions, is_pad = window.actions(columns.table, indices)
    rows = {name: row for name in _GOALS if (row := getattr(relabeled, f"{name}_row")) is not None}
    observation, next_observation, *reached = _observations(columns, [here, following, *rows.values()])
    goals = dict(zip(rows, reached, strict=True))
    if relabeled.task is not None:
        task = {"task": torch.from_numpy(relabeled.task)}
        observation, next_observation = observation | task, next_observation | task
    reward = columns.reward.take(indices.row) if relabeled.reward is None else relabeled.reward
    gamma = per_sample(discount, indices)
    return Batch(
        observation=observation,
        action=columns.actions(actions.reshape(-1)).view(*actions.shape, -1),
        reward=torch.from_numpy(reward),
        discount=torch.from_numpy(relabeled.discount) * (torch.from_numpy(gamma) if isinstance(gamma, np.ndarray) else gamma),
        next_observation=next_observation,
        goal=goals.pop("goal", None) or _single_goal(relabeled.goal, len(indices)),
        **goals,
        is_chained=_optional(relabeled.is_chained),
        mc_return=_optional(_mc_return(relabeled, gamma)),
        is_pad=_optional(is_pad),
        is_pad_history=_optional(is_pad_history),
    )


def _observations(columns: Readable, rows: Sequence[Ints]) -> list[dict[str, Tensor]]:
    """The observations of several sets of rows, each (n,) or (n, h)."""
    # One gather for all of them: one allocation that the allocator re-uses, where several would be page-faulted anew.
    every = columns.observations(np.concatenate([part.reshape(-1) for part in rows]))
    stops = np.cumsum([part.size for part in rows]).tolist()
    return [
        {key: column[stop - part.size : stop].view(*part.shape, *column.shape[1:]) for key, column in every.items()}
        for part, stop in zip(rows, stops, strict=True)
    ]


def _optional(array: Array | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


def _single_goal(goal: Mapping[str, Array] | None, n: int) -> dict[str, Tensor] | None:
    if goal is None:
        return None
    values = {key: torch.from_numpy(value) for key, value in goal.items()}
    seen = {
        key: value.permute(2, 0, 1) if value.dtype == torch.uint8 and value.dim() == 3 else value for key, value in values.items()
    }
    return {key: value.expand(n, *value.shape) for key, value in seen.items()}


def _mc_return(relabeled: Relabeled, gamma: Discount) -> Floats | None:
    """What the data collected; in hindsight gamma^(steps - 1), for a reward of 1 at the goal, or 0 where it was not reached."""
    steps = relabeled.steps_to_goal
    if steps is None:
        return relabeled.mc_return
    return np.where(steps > 0, gamma ** (steps - 1.0), 0.0).astype(np.float32)

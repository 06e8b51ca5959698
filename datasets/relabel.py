"""What a sampled transition is to mean: which goal, which reward, and whether it ends there.

The index convention, everywhere: the goal of a sub-trajectory that ends with transition i is s_{i+1}, the observation
that this transition arrives at. Transition t *reaches* its goal exactly when the goal's row is the row after its own. A
relabelled transition that reaches its goal is terminal; no other is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.sampler import Indices
from flywheel.datasets.stats import state_statistics
from flywheel.datasets.table import Bools, EpisodeTable, Floats, Ints

if TYPE_CHECKING:  # columns.py imports torch
    from flywheel.datasets.columns import Columns

_MOST_CANDIDATES = 2_000
"""Enough final observations to find a typical one; all pairs of more would not fit in memory."""

Horizon = Literal["uniform", "geometric"]


@dataclass(frozen=True, slots=True, eq=False)
class Relabeled:
    """The meaning of n transitions."""

    discount: Floats
    """(n,) as RLDS has it: 0 where the transition ends in a terminal state, else 1; gamma is multiplied in by `gather`."""
    reward: Floats | None = None
    """(n,), or None for the store's own."""
    goal_row: Ints | None = None
    """(n,) the row of each goal observation."""
    goal: Mapping[str, Array] | None = None
    """One goal observation for all of them, instead of `goal_row`: ``state`` (D,), and pictures (H, W, C)."""
    is_chained: Bools | None = None
    """(n,) the last steps of chained sub-trajectories, whose target is the value itself."""
    steps_to_goal: Ints | None = None
    """(n,) how many transitions the data took until it reached the goal or did its task, this one included; else 0."""
    actor_goal_row: Ints | None = None
    """(n,) the row of each goal that the actor is trained for, where it is not the critic's."""
    low_actor_goal_row: Ints | None = None
    """(n,) the row of the subgoal, some steps ahead, that a lower actor is trained for (HIQL)."""
    high_actor_target_row: Ints | None = None
    """(n,) the row, some steps ahead on the way to the actor's goal, that a higher actor is to propose (HIQL)."""
    steps: Ints | None = None
    """(n,) how many transitions each sample spans until its next observation; 1 each if None (`returns.NStep`)."""
    mc_return: Floats | None = None
    """(n,) the discounted return that the data went on to collect (`returns.MonteCarlo`)."""
    task: Ints | None = None
    """(n,) the number of the task that each sample is of, where a network is to be told."""

    def __getitem__(self, which: slice | Ints) -> Relabeled:
        """The meaning of some of them."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        per_sample = {name: value[which] for name, value in values.items() if value is not None and name != "goal"}
        return replace(self, **per_sample)


class Relabeler(Protocol):
    """Pure index arithmetic on a table, vectorised."""

    def __call__(self, table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Relabeled:
        """The meaning of the sampled transitions."""


@dataclass(frozen=True)
class TaskReward:
    """The store's own rewards and ends, no goals."""

    def __call__(self, table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Relabeled:
        """Terminal where the episode ended of itself; a truncation bootstraps."""
        return Relabeled(discount=_task_discount(table, indices))


@dataclass(frozen=True, eq=False)
class TaskGoal:
    """The store's own rewards and ends, and one goal for every transition: for a goal-conditioned network on one task."""

    goal: Mapping[str, Array]
    """The goal observation, as `Relabeled.goal`; `choose_task_goal` finds one."""

    def __call__(self, table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Relabeled:
        """As `TaskReward`, with the goal."""
        return Relabeled(discount=_task_discount(table, indices), goal=self.goal)


@dataclass(frozen=True)
class Hindsight:
    """Goals in hindsight, mixed as OGBench does (impls/utils/datasets.py, `GCDataset.sample_goals`), under our index convention.

    The four shares must sum to 1. For goal-conditioned behaviour cloning and goal-conditioned IQL.
    """

    p_current: float = 0.2
    """The share whose goal is what the transition itself arrives at."""
    p_future: float = 0.5
    """The share whose goal comes later in the same episode, or at once."""
    p_random: float = 0.3
    """The share whose goal is any observation that a transition of the snapshot arrives at."""
    horizon: Horizon = "geometric"
    """How far ahead a future goal lies: ``uniform`` over the rest of the episode, or ``geometric`` and cut at its end."""
    goal_discount: float = 0.99
    """The geometric horizon continues with this probability; its mean is 1 / (1 - goal_discount) transitions."""
    negative_reward: bool = True
    """Rewards -1 until the goal and 0 there, as OGBench has them, instead of 0 and 1; which is better depends on the task (Zhang
    and Stadie, "Understanding Hindsight Goal Relabeling")."""
    p_final: float = 0.0
    """The share whose goal is the last observation of the episode."""

    def __post_init__(self) -> None:
        shares = (self.p_current, self.p_future, self.p_random, self.p_final)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise FlywheelError(
                f"The shares of current, future, random and final goals must be at least 0 and sum to 1, not {shares}."
            )
        _check_horizon(self.horizon, self.goal_discount)

    def __call__(self, table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Relabeled:
        """Goals of the three kinds; the reward follows from whether the transition reaches its goal."""
        goal = self.goals(table, indices, rng)
        reached = goal == indices.row + 1
        reward = reached.astype(np.float32) - np.float32(self.negative_reward)
        return Relabeled(discount=(~reached).astype(np.float32), reward=reward, goal_row=goal)

    def goals(self, table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Ints:
        """(n,) the row of a goal for each transition."""
        kind = rng.random(len(indices))
        within = self.p_current + self.p_future
        is_current, is_random = kind < self.p_current, kind >= within + self.p_final
        ahead = _steps_ahead(table, indices, rng, self.horizon, self.goal_discount)
        goal: Ints = indices.row + 1 + np.where(is_current, 0, ahead)
        if self.p_final:
            is_final = (kind >= within) & ~is_random
            goal[is_final] = table.final_row[indices.episode[is_final]]
        goal[is_random] = _random_rows(table, indices[is_random], rng) + 1
        return goal


@dataclass(frozen=True)
class ActorGoals:
    """Goals of one mixture for the critic and of another for the actor, drawn apart, as OGBench's GCDataset has them.

    A critic learns most from goals that are near, far and out of reach; an actor from those that its data reaches.
    `Batch.actor_goal` holds the latter. With `subgoal_steps` k there are HIQL's two more (OGBench's HGCDataset): the
    observation k steps ahead, for the lower actor, and the one k steps ahead or the actor's goal if that comes sooner, which
    the higher actor is to propose. Both stop at the episode's end.
    """

    critic: Relabeler
    actor: Hindsight
    subgoal_steps: int = 0
    """How many transitions ahead a subgoal lies; 0 for none."""

    def __post_init__(self) -> None:
        if self.subgoal_steps < 0:
            raise FlywheelError(f"Subgoals lie at least 1 step ahead, or 0 for none, not {self.subgoal_steps}.")

    def __call__(self, table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Relabeled:
        """The critic's goals, rewards and ends, as without the actor's, which are drawn after them."""
        meaning = self.critic(table, indices, rng)
        goal = self.actor.goals(table, _next_elsewhere(indices), rng)
        meaning = replace(meaning, actor_goal_row=goal)
        if not self.subgoal_steps:
            return meaning
        final = table.final_row.take(indices.episode)
        ahead = np.minimum(indices.row + self.subgoal_steps, final)
        is_on_the_way = (goal > indices.row) & (goal <= final)
        return replace(
            meaning,
            low_actor_goal_row=ahead,
            high_actor_target_row=np.where(is_on_the_way, np.minimum(ahead, goal), ahead),
        )


@dataclass(frozen=True)
class ActionableGoals:
    """Actionable Models' two streams (Chebotar et al. 2021). Each transition t gets a sub-trajectory end i >= t.

    Hindsight: the goal is s_{i+1} of the same episode; reward 1 and terminal exactly when t == i.
    Chaining: the goal is from another episode; `is_chained` exactly when t == i, where the target is the value Q(s_i, a_i, g)
    itself, and no reward and no end anywhere. A snapshot of one episode has nothing to chain to and gets hindsight alone.
    """

    p_chained: float = 0.5
    """The share of transitions with a goal from another episode."""
    horizon: Horizon = "uniform"
    """The distribution of i: ``uniform`` over the rest of the episode, or ``geometric`` and cut at its end."""
    goal_discount: float = 0.99
    """The geometric horizon continues with this probability."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.p_chained <= 1.0:
            raise FlywheelError(f"The share of chained goals must lie in [0, 1], not {self.p_chained}.")
        _check_horizon(self.horizon, self.goal_discount)

    def __call__(self, table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Relabeled:
        """Both streams, mixed at random."""
        ahead = _steps_ahead(table, indices, rng, self.horizon, self.goal_discount)
        chained = rng.random(len(indices)) < (self.p_chained if len(table) > 1 else 0.0)
        goal = indices.row + 1 + ahead
        goal[chained] = _rows_of_other_episodes(table, indices[chained], rng)
        is_end = ahead == 0
        reached = is_end & ~chained
        return Relabeled(
            discount=(~reached).astype(np.float32),
            reward=reached.astype(np.float32),
            goal_row=goal,
            is_chained=is_end & chained,
            steps_to_goal=np.where(chained, 0, ahead + 1),
        )


@dataclass(frozen=True, eq=False)
class Goal:
    """An observation to reach, and where it was seen."""

    state: Floats
    """(D,)"""
    row: int
    """Where it lies in the columns."""
    episode_id: str
    step: int
    """The observation's number within the episode."""


def choose_task_goal(columns: Columns, task: str) -> Goal:
    """The most typical end of a task: the medoid, in normalised states, of the successful episodes' final observations.

    A medoid is a state that really occurred, where a mean of states need not be possible; without a state it is the first one.
    Raises `FlywheelError` if the snapshot holds no success of the task.
    """
    table = columns.table
    candidates = np.flatnonzero(table.success & (table.task == task))
    if not len(candidates):
        tasks = ", ".join(sorted(set(table.task[table.success]))) or "none"
        raise FlywheelError(
            f"No episode of task '{task}' succeeded, so there is no goal to choose; collect successes first, or name a task "
            f"that has some ({tasks})."
        )
    spread = np.linspace(0, len(candidates) - 1, min(len(candidates), _MOST_CANDIDATES))
    candidates = candidates[spread.astype(np.int64)]
    mean, std = state_statistics(columns)
    final = columns.state[table.final_row[candidates]]
    scaled = ((final - mean) / std).astype(np.float64)
    squares = (scaled**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * scaled @ scaled.T, 0))
    best = int(distances.sum(axis=1).argmin())
    episode = int(candidates[best])
    row = int(table.final_row[episode])
    return Goal(state=np.array(final[best]), row=row, episode_id=table.episode_id[episode], step=int(table.transitions[episode]))


def _task_discount(table: EpisodeTable, indices: Indices) -> Floats:
    ends: Bools = table.terminal.take(indices.episode) & (indices.step == table.transitions.take(indices.episode) - 1)
    return (~ends).astype(np.float32)


def _steps_ahead(table: EpisodeTable, indices: Indices, rng: np.random.Generator, horizon: Horizon, discount: float) -> Ints:
    """(n,) i - t for a sub-trajectory end i with t <= i < T."""
    remaining = table.transitions.take(indices.episode) - indices.step
    if horizon == "uniform":
        return _below(remaining, rng)
    return np.minimum(rng.geometric(1.0 - discount, size=len(indices)), remaining) - 1


def _random_rows(table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Ints:
    """(n,) rows of random transitions: any of the table, or those that came with the samples."""
    return table.row(rng.integers(table.total, size=len(indices))) if indices.elsewhere is None else indices.elsewhere


def _next_elsewhere(indices: Indices) -> Indices:
    """The same samples with their neighbours' `elsewhere`: a second draw of random goals that is not the first again."""
    return indices if indices.elsewhere is None else replace(indices, elsewhere=np.roll(indices.elsewhere, 1))


def _rows_of_other_episodes(table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Ints:
    """(n,) for each sample a row that a random transition of any *other* episode arrives at."""
    if indices.elsewhere is None:
        return _row_of_another_episode(table, indices.episode, rng)
    start = table.start.take(indices.episode)
    own = (indices.elsewhere >= start) & (indices.elsewhere < start + table.transitions.take(indices.episode))
    rows: Ints = indices.elsewhere + 1
    rows[own] = _row_of_another_episode(table, indices.episode[own], rng)
    return rows


def _row_of_another_episode(table: EpisodeTable, episode: Ints, rng: np.random.Generator) -> Ints:
    """(n,) for each episode a row that a uniformly drawn transition of any *other* episode arrives at."""
    own = table.transitions.take(episode)
    drawn = _below(table.total - own, rng)
    # The others' transitions are numbered as if the own ones were cut out; step over the cut.
    return table.row(drawn + np.where(drawn >= table.first.take(episode), own, 0)) + 1


def _below(count: Ints, rng: np.random.Generator) -> Ints:
    """(n,) uniform integers in [0, count), several times faster than numpy's own for an array of bounds.

    The largest double below 1 times a count rounds to less than the count, and the bias is below count * 2^-53.
    """
    return (rng.random(len(count)) * count).astype(np.int64)


def _check_horizon(horizon: str, discount: float) -> None:
    if horizon not in ("uniform", "geometric") or not 0.0 <= discount < 1.0:
        raise FlywheelError(f"A goal horizon is uniform or geometric with a discount in [0, 1), not {horizon} with {discount}.")

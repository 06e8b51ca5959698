"""Returns over more than one transition, in front of any relabeler: n-step targets, and what the data itself collected."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.datasets.relabel import ActionableGoals, ActorGoals, Relabeled, Relabeler
from flywheel.datasets.sampler import Indices
from flywheel.datasets.table import EpisodeTable, Floats, Ints

Discount = float | Floats
"""Gamma: one for all, or (E,) one per episode, for tasks that need different ones."""


def per_sample(discount: Discount, indices: Indices) -> Discount:
    """Gamma of each sample: (n,), or the one for all."""
    return discount if isinstance(discount, float | int) else discount.take(indices.episode)


@dataclass(frozen=True, eq=False)
class NStep:
    """Samples that span up to n transitions: reward r_0 + gamma r_1 + ..., next observation s_m, discount gamma^m.

    m is n, or fewer where the episode ends or the goal is reached before. A truncated episode bootstraps from its final
    observation with gamma^m, and never from beyond it; a terminal one does not bootstrap.
    """

    relabeler: Relabeler
    n: int
    discount: Discount
    reward: Floats
    """(R,) the columns' rewards, for relabelers that keep the store's."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise FlywheelError(f"A return needs at least one step, not {self.n}.")
        critic = self.relabeler.critic if isinstance(self.relabeler, ActorGoals) else self.relabeler
        if isinstance(critic, ActionableGoals):
            raise FlywheelError("Actionable Models' chained targets have no n-step form; set n-step to 1.")

    def __call__(self, table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Relabeled:
        """The relabeler's goals, with rewards, ends and next observations over the span."""
        meaning = self.relabeler(table, indices, rng)
        gamma = per_sample(self.discount, indices)
        remaining = table.transitions.take(indices.episode) - indices.step
        steps = np.minimum(self.n, remaining)
        if meaning.goal_row is not None:
            to_goal = meaning.goal_row - indices.row
            terminal = (to_goal >= 1) & (to_goal <= steps)
            steps = np.where(terminal, to_goal, steps)
            assert meaning.reward is not None
            before = meaning.reward - (to_goal == 1)  # 0 or -1; reaching the goal gives one more
            reward = before * (1 - gamma ** (steps - terminal)) / (1 - gamma) + terminal * gamma ** (steps - 1.0) * (before + 1)
        else:
            terminal = table.terminal.take(indices.episode) & (steps == remaining)
            reward = self._collected(indices, steps, gamma)
            if meaning.steps_to_goal is not None:  # a task's own reward: 1 where it is done, which is the end
                done = (meaning.steps_to_goal >= 1) & (meaning.steps_to_goal <= steps)
                terminal, reward = terminal | done, done * gamma ** (steps - 1.0)
        discount = np.where(terminal, 0.0, gamma ** (steps - 1.0)).astype(np.float32)
        return replace(meaning, reward=reward.astype(np.float32), discount=discount, steps=steps)

    def _collected(self, indices: Indices, steps: Ints, gamma: Discount) -> Floats:
        total = np.zeros(len(indices))
        for ahead in range(int(steps.max(initial=0))):
            inside = ahead < steps
            total += np.where(inside, gamma**ahead * self.reward.take(np.where(inside, indices.row + ahead, indices.row)), 0.0)
        return total.astype(np.float32)


@dataclass(frozen=True, eq=False)
class MonteCarlo:
    """Adds the discounted return that the data went on to collect, for Cal-QL and for value targets without bootstrapping."""

    relabeler: Relabeler
    returns: Floats
    """(N,) from `monte_carlo_returns`."""

    def __call__(self, table: EpisodeTable, indices: Indices, rng: np.random.Generator) -> Relabeled:
        """The relabeler's meaning with `mc_return`."""
        meaning = self.relabeler(table, indices, rng)
        if meaning.reward is not None:
            raise FlywheelError("Returns are the store's own, and do not go with rewards that are relabelled in hindsight.")
        return replace(meaning, mc_return=self.returns.take(table.first.take(indices.episode) + indices.step))


def monte_carlo_returns(table: EpisodeTable, reward: Floats, discount: Discount, after: float = 0.0) -> Floats:
    """(N,) sum over i of gamma^i r_{t+i} to the end of the episode, for every transition in snapshot order.

    A truncated episode is taken to have a reward of `after` at every step that it did not live to see: a lower bound where that
    is the smallest there is.
    """
    gamma = np.broadcast_to(np.asarray(discount, np.float64), (len(table),))
    total = np.where(table.terminal, 0.0, after / (1.0 - gamma))
    returns = np.zeros(table.total, np.float32)
    # Backwards in time over all episodes at once; those that are shorter join in when their last transition comes.
    for back in range(1, int(table.transitions.max()) + 1):
        live = np.flatnonzero(table.transitions >= back)
        step = table.transitions[live] - back
        total[live] = reward[table.start[live] + step] + gamma[live] * total[live]
        returns[table.first[live] + step] = total[live]
    return returns

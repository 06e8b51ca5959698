from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.errors import FlywheelError
from flywheel.datasets.relabel import ActionableGoals, Hindsight, TaskReward
from flywheel.datasets.returns import MonteCarlo, NStep, monte_carlo_returns
from flywheel.datasets.sampler import UniformSampler, locate
from flywheel.datasets.table import EpisodeTable, Floats
from tests.tables import lengths, make_table

steps = st.integers(1, 6)


def _reward(table: EpisodeTable, seed: int) -> Floats:
    rows = int(table.final_row.max()) + 1
    return np.random.default_rng(seed).normal(size=rows).astype(np.float32)


def _two_episodes(last_is_terminal: bool) -> tuple[EpisodeTable, Floats]:
    table = dataclasses.replace(make_table([3, 2]), start=np.array([0, 4]), terminal=np.array([last_is_terminal, False]))
    return table, np.array([1, 2, 4, 99, 8, 16, 99], np.float32)


def test_n_step_by_hand() -> None:
    # gamma 0.5 and two steps: r0 + r1 / 2, then s2 with 1/4; at the end r2 alone, then the final observation with 1/2 or nothing.
    for terminal in (False, True):
        table, reward = _two_episodes(terminal)
        every = locate(table, np.arange(5))
        meaning = NStep(TaskReward(), 2, 0.5, reward)(table, every, np.random.default_rng(0))
        np.testing.assert_allclose(meaning.reward, [2, 4, 4, 16, 16])
        np.testing.assert_array_equal(meaning.steps, [2, 2, 1, 2, 1])
        # `gather` multiplies by gamma once more.
        np.testing.assert_allclose(meaning.discount, [0.5, 0 if terminal else 0.5, 0 if terminal else 1, 0.5, 1])


def test_monte_carlo_by_hand() -> None:
    table, reward = _two_episodes(True)
    np.testing.assert_allclose(monte_carlo_returns(table, reward, 0.5), [1 + 1 + 1, 2 + 2, 4, 8 + 8, 16])
    cut, _ = _two_episodes(False)
    # What goes on at -1 for ever is worth -1 / (1 - 0.5) after the end of the first episode, and of the second.
    np.testing.assert_allclose(
        monte_carlo_returns(cut, reward, 0.5, after=-1.0), [3 - 1 / 4, 4 - 1 / 2, 4 - 1, 16 - 1 / 2, 16 - 1]
    )
    per_task = np.array([0.5, 0.25])
    np.testing.assert_allclose(monte_carlo_returns(table, reward, per_task), [3, 4, 4, 8 + 4, 16])


@given(lengths, st.integers(0, 99), steps)
def test_n_step_follows_its_definition(transitions: list[int], seed: int, n: int) -> None:
    table = make_table(transitions, seed)
    reward, gamma = _reward(table, seed), 0.9
    indices = UniformSampler(table).sample(np.random.default_rng(seed), 50)
    meaning = NStep(TaskReward(), n, gamma, reward)(table, indices, np.random.default_rng(0))
    assert meaning.reward is not None
    assert meaning.steps is not None
    for i in range(50):
        length = int(table.transitions[indices.episode[i]] - indices.step[i])
        m = min(n, length)
        assert meaning.steps[i] == m
        assert meaning.reward[i] == pytest.approx(
            sum(gamma**k * reward[indices.row[i] + k] for k in range(m)), rel=1e-5, abs=1e-6
        )
        ends = table.terminal[indices.episode[i]] and m == length
        assert meaning.discount[i] * gamma == pytest.approx(0 if ends else gamma**m)


@given(lengths, st.integers(0, 99), steps, st.booleans())
def test_n_step_stops_at_the_goal(transitions: list[int], seed: int, n: int, negative: bool) -> None:
    table = make_table(transitions, seed)
    gamma = 0.8
    hindsight = Hindsight(0.2, 0.5, 0.2, horizon="uniform", negative_reward=negative, p_final=0.1)
    indices = UniformSampler(table).sample(np.random.default_rng(seed), 80)
    meaning = NStep(hindsight, n, gamma, _reward(table, seed))(table, indices, np.random.default_rng(seed))
    single = hindsight(table, indices, np.random.default_rng(seed))
    assert meaning.reward is not None
    assert meaning.steps is not None
    assert meaning.goal_row is not None
    np.testing.assert_array_equal(meaning.goal_row, single.goal_row)
    for i in range(80):
        m = min(n, int(table.transitions[indices.episode[i]] - indices.step[i]))
        rewards = []
        reached = False
        for k in range(m):
            reached = bool(meaning.goal_row[i] == indices.row[i] + k + 1)
            rewards.append(float(reached) - negative)
            if reached:
                break
        assert meaning.steps[i] == len(rewards)
        assert meaning.reward[i] == pytest.approx(sum(gamma**k * r for k, r in enumerate(rewards)), rel=1e-5, abs=1e-6)
        assert meaning.discount[i] * gamma == pytest.approx(0 if reached else gamma ** len(rewards))


@given(lengths, st.integers(0, 99))
def test_one_step_is_the_relabeler_itself(transitions: list[int], seed: int) -> None:
    table = make_table(transitions, seed)
    reward = _reward(table, seed)
    every = locate(table, np.arange(table.total))
    for relabeler in (TaskReward(), Hindsight(), Hindsight(negative_reward=True)):
        one = NStep(relabeler, 1, 0.9, reward)(table, every, np.random.default_rng(seed))
        other = relabeler(table, every, np.random.default_rng(seed))
        np.testing.assert_array_equal(one.discount, other.discount)
        np.testing.assert_array_equal(one.reward, reward[every.row] if other.reward is None else other.reward)


@given(lengths, st.integers(0, 99))
def test_monte_carlo_returns_satisfy_their_recursion(transitions: list[int], seed: int) -> None:
    table = make_table(transitions, seed)
    reward = _reward(table, seed)
    gamma = np.linspace(0.5, 0.99, len(table))
    returns = monte_carlo_returns(table, reward, gamma)
    every = locate(table, np.arange(table.total))
    last = every.step == table.transitions[every.episode] - 1
    following = np.append(returns[1:], 0) * ~last
    np.testing.assert_allclose(returns, reward[every.row] + gamma[every.episode] * following, rtol=1e-4, atol=1e-5)

    meaning = MonteCarlo(TaskReward(), returns)(table, every, np.random.default_rng(0))
    np.testing.assert_array_equal(meaning.mc_return, returns)


def test_what_has_no_such_return_is_refused() -> None:
    table, reward = _two_episodes(True)
    every, rng = locate(table, np.arange(5)), np.random.default_rng(0)
    with pytest.raises(FlywheelError, match="no n-step form"):
        NStep(ActionableGoals(), 2, 0.9, reward)
    with pytest.raises(FlywheelError, match="at least one step"):
        NStep(TaskReward(), 0, 0.9, reward)
    with pytest.raises(FlywheelError, match="hindsight"):
        MonteCarlo(Hindsight(), np.zeros(5, np.float32))(table, every, rng)

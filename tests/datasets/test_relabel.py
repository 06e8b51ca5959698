from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.errors import FlywheelError
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import (
    ActionableGoals,
    ActorGoals,
    Hindsight,
    Relabeled,
    Relabeler,
    TaskGoal,
    TaskReward,
    choose_task_goal,
)
from flywheel.datasets.sampler import Indices, UniformSampler, locate
from flywheel.datasets.table import EpisodeTable, Ints
from tests.tables import chi_square, lengths, make_table

horizons = st.sampled_from(["uniform", "geometric"])


def _draw(table: EpisodeTable, relabeler: Relabeler, seed: int, count: int = 400) -> tuple[Indices, Relabeled]:
    rng = np.random.default_rng(seed)
    indices = UniformSampler(table).sample(rng, count)
    return indices, relabeler(table, indices, rng)


def _whose(table: EpisodeTable, row: Ints) -> tuple[Ints, Ints]:
    """The (episode, step) of each row, by search and not by arithmetic; fails for a row of no episode."""
    inside = (row[:, None] >= table.start) & (row[:, None] <= table.final_row)
    assert (inside.sum(axis=1) == 1).all()
    episode = inside.argmax(axis=1)
    return episode, row - table.start[episode]


@given(lengths, st.integers(0, 99))
def test_task_reward_ends_only_at_terminal_states(transitions: list[int], seed: int) -> None:
    table = make_table(transitions, seed)
    every = locate(table, np.arange(table.total))
    meaning = TaskReward()(table, every, np.random.default_rng(0))

    assert meaning.reward is None
    assert meaning.goal_row is None
    ends = {int(table.final_row[e] - 1) for e in range(len(table)) if table.terminal[e]}
    assert set(every.row[meaning.discount == 0].tolist()) == ends
    assert set(np.unique(meaning.discount)) <= {0.0, 1.0}


def test_task_goal_is_task_reward_with_a_goal() -> None:
    table = make_table([3, 4])
    every = locate(table, np.arange(table.total))
    goal = np.arange(5, dtype=np.float32)
    meaning = TaskGoal(goal)(table, every, np.random.default_rng(0))
    np.testing.assert_array_equal(meaning.discount, TaskReward()(table, every, np.random.default_rng(0)).discount)
    assert meaning.goal is goal
    assert meaning.reward is None


@given(lengths, st.integers(0, 99), horizons, st.booleans())
def test_hindsight_is_terminal_exactly_where_the_goal_is_reached(
    transitions: list[int], seed: int, horizon: str, negative: bool
) -> None:
    table = make_table(transitions, seed)
    indices, meaning = _draw(table, Hindsight(horizon=horizon, negative_reward=negative), seed)  # type: ignore[arg-type]

    assert meaning.goal_row is not None
    assert meaning.reward is not None
    _, step = _whose(table, meaning.goal_row)
    assert (step >= 1).all()  # a goal is what some transition arrives at
    reached = meaning.goal_row == indices.row + 1
    np.testing.assert_array_equal(meaning.discount == 0, reached)
    np.testing.assert_array_equal(meaning.reward, reached - 1.0 if negative else reached * 1.0)
    assert meaning.is_chained is None


@given(lengths, st.integers(0, 99), horizons)
def test_hindsight_future_goals_stay_in_the_episode_and_after_the_step(transitions: list[int], seed: int, horizon: str) -> None:
    table = make_table(transitions, seed)
    indices, meaning = _draw(table, Hindsight(0.0, 1.0, 0.0, horizon=horizon), seed)  # type: ignore[arg-type]
    assert meaning.goal_row is not None
    episode, step = _whose(table, meaning.goal_row)
    np.testing.assert_array_equal(episode, indices.episode)
    assert (step > indices.step).all()


@given(lengths, st.integers(0, 99))
def test_hindsight_current_goals_are_always_reached(transitions: list[int], seed: int) -> None:
    table = make_table(transitions, seed)
    _, meaning = _draw(table, Hindsight(1.0, 0.0, 0.0), seed)
    assert (meaning.discount == 0).all()


def test_hindsight_random_goals_are_uniform_over_all_arrivals() -> None:
    table = make_table([1, 2, 300, 37, 4])
    _, meaning = _draw(table, Hindsight(0.0, 0.0, 1.0), 5, 200_000)
    assert meaning.goal_row is not None
    episode, step = _whose(table, meaning.goal_row)
    counts = np.bincount(table.first[episode] + step - 1, minlength=table.total)
    assert abs(chi_square(counts, np.full(table.total, 200_000 / table.total))) < 5


def test_hindsight_shares_are_the_declared_ones() -> None:
    # Long episodes, so that a future or random goal is hardly ever the current one.
    table = make_table([5_000] * 20)
    indices, meaning = _draw(table, Hindsight(0.25, 0.45, 0.3, horizon="uniform"), 6, 100_000)
    assert meaning.goal_row is not None
    episode, _ = _whose(table, meaning.goal_row)
    current = meaning.goal_row == indices.row + 1
    random = episode != indices.episode
    assert current.mean() == pytest.approx(0.25, abs=0.01)
    assert random.mean() == pytest.approx(0.3 * 19 / 20, abs=0.01)


@given(lengths, st.integers(0, 99))
def test_hindsight_final_goals_are_the_last_observations(transitions: list[int], seed: int) -> None:
    table = make_table(transitions, seed)
    indices, meaning = _draw(table, Hindsight(0.0, 0.0, 0.0, p_final=1.0), seed)
    np.testing.assert_array_equal(meaning.goal_row, table.final_row[indices.episode])


@given(lengths, st.integers(0, 99), horizons)
def test_the_actors_goals_leave_the_critics_as_they_are(transitions: list[int], seed: int, horizon: str) -> None:
    table = make_table(transitions, seed)
    critic, actor = Hindsight(horizon=horizon), Hindsight(0.0, 1.0, 0.0, horizon="uniform")  # type: ignore[arg-type]
    indices, both = _draw(table, ActorGoals(critic, actor), seed)
    _, alone = _draw(table, critic, seed)
    for name in ("goal_row", "reward", "discount"):
        np.testing.assert_array_equal(getattr(both, name), getattr(alone, name))
    assert both.actor_goal_row is not None
    episode, step = _whose(table, both.actor_goal_row)
    np.testing.assert_array_equal(episode, indices.episode)
    assert (step > indices.step).all()
    part = both[10:20]
    np.testing.assert_array_equal(part.actor_goal_row, both.actor_goal_row[10:20])
    np.testing.assert_array_equal(part.discount, both.discount[10:20])


@given(lengths, st.integers(0, 99), st.integers(1, 30))
def test_subgoals_lie_so_many_steps_ahead_and_never_behind_the_goal_or_the_end(
    transitions: list[int], seed: int, steps: int
) -> None:
    table = make_table(transitions, seed)
    actor = Hindsight(0.0, 0.5, 0.5, horizon="uniform")
    indices, meaning = _draw(table, ActorGoals(Hindsight(), actor, steps), seed)
    assert meaning.low_actor_goal_row is not None
    assert meaning.high_actor_target_row is not None
    assert meaning.actor_goal_row is not None
    last = table.transitions[indices.episode]
    episode, step = _whose(table, meaning.low_actor_goal_row)
    np.testing.assert_array_equal(episode, indices.episode)
    np.testing.assert_array_equal(step, np.minimum(indices.step + steps, last))
    target_episode, target = _whose(table, meaning.high_actor_target_row)
    goal_episode, goal = _whose(table, meaning.actor_goal_row)
    ahead = (goal_episode == indices.episode) & (goal > indices.step)
    np.testing.assert_array_equal(target_episode, indices.episode)
    np.testing.assert_array_equal(target, np.where(ahead, np.minimum(step, goal), step))


def test_subgoals_behind_are_refused() -> None:
    with pytest.raises(FlywheelError, match="at least 1 step ahead"):
        ActorGoals(Hindsight(), Hindsight(), -1)


@pytest.mark.parametrize("relabeler", [Hindsight(0.0, 1.0, 0.0, horizon="uniform"), ActionableGoals(p_chained=0.0)])
def test_uniform_horizon_is_uniform_over_the_rest_of_the_episode(relabeler: Relabeler) -> None:
    table = make_table([12, 1])
    every = locate(table, np.repeat(np.arange(table.total), 20_000))
    meaning = relabeler(table, every, np.random.default_rng(7))
    assert meaning.goal_row is not None
    ahead = meaning.goal_row - every.row - 1
    for step in range(12):
        counts = np.bincount(ahead[(every.episode == 0) & (every.step == step)], minlength=12)
        expected = np.where(np.arange(12) < 12 - step, 20_000 / (12 - step), 0)
        assert abs(chi_square(counts, expected)) < 5
    assert (ahead[every.episode == 1] == 0).all()


def test_geometric_horizon_is_geometric_and_cut_at_the_end() -> None:
    table = make_table([10])
    first = locate(table, np.zeros(200_000, np.int64))
    meaning = ActionableGoals(p_chained=0.0, horizon="geometric", goal_discount=0.8)(table, first, np.random.default_rng(8))
    assert meaning.goal_row is not None
    counts = np.bincount(meaning.goal_row - first.row - 1, minlength=10)
    expected = 0.2 * 0.8 ** np.arange(10)
    expected[-1] = 0.8**9
    assert abs(chi_square(counts, 200_000 * expected)) < 5


@given(lengths, st.integers(0, 99), horizons, st.floats(0, 1))
def test_actionable_goals_keep_the_two_streams_apart(transitions: list[int], seed: int, horizon: str, p_chained: float) -> None:
    table = make_table(transitions, seed)
    indices, meaning = _draw(table, ActionableGoals(p_chained, horizon=horizon), seed)  # type: ignore[arg-type]
    assert meaning.goal_row is not None
    assert meaning.reward is not None
    assert meaning.is_chained is not None

    episode, step = _whose(table, meaning.goal_row)
    own = episode == indices.episode
    assert (step[own] > indices.step[own]).all()
    assert (step >= 1).all()
    reached = meaning.goal_row == indices.row + 1
    np.testing.assert_array_equal(meaning.reward == 1, reached)
    np.testing.assert_array_equal(meaning.discount == 0, reached)
    assert not (meaning.is_chained & own).any()
    # A chained goal of a last transition has nowhere to go on to: its sub-trajectory ends there.
    last = indices.step == table.transitions[indices.episode] - 1
    np.testing.assert_array_equal(meaning.is_chained[last], ~own[last])
    np.testing.assert_array_equal(reached[last], own[last])


def test_chained_goals_are_uniform_over_the_other_episodes() -> None:
    table = make_table([1, 2, 300, 37, 4])
    for episode in range(5):
        indices = locate(table, np.full(100_000, table.first[episode]))
        meaning = ActionableGoals(p_chained=1.0)(table, indices, np.random.default_rng(episode))
        assert meaning.goal_row is not None
        goal_episode, step = _whose(table, meaning.goal_row)
        counts = np.bincount(table.first[goal_episode] + step - 1, minlength=table.total)
        others = table.episode_of != episode
        assert abs(chi_square(counts, np.where(others, 100_000 / others.sum(), 0))) < 5


def test_chained_ends_are_as_likely_as_hindsight_ends() -> None:
    table = make_table([10, 10])
    first = locate(table, np.zeros(200_000, np.int64))
    meaning = ActionableGoals(p_chained=0.5)(table, first, np.random.default_rng(9))
    assert meaning.is_chained is not None
    assert meaning.reward is not None
    # t is the end of its sub-trajectory with probability 1/10 in either stream, and the streams share evenly.
    assert meaning.is_chained.mean() == pytest.approx(0.05, abs=0.003)
    assert meaning.reward.mean() == pytest.approx(0.05, abs=0.003)


def test_a_single_episode_has_nothing_to_chain_to() -> None:
    table = make_table([30])
    indices, meaning = _draw(table, ActionableGoals(p_chained=1.0), 0)
    assert meaning.goal_row is not None
    assert meaning.is_chained is not None
    assert not meaning.is_chained.any()
    assert (meaning.goal_row > indices.row).all()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(FlywheelError, match="sum to 1"):
        Hindsight(0.5, 0.5, 0.5)
    with pytest.raises(FlywheelError, match="sum to 1"):
        Hindsight(-0.5, 1.0, 0.5)
    with pytest.raises(FlywheelError, match="chained goals"):
        ActionableGoals(p_chained=1.1)
    with pytest.raises(FlywheelError, match="uniform or geometric"):
        ActionableGoals(horizon="linear")  # type: ignore[arg-type]
    with pytest.raises(FlywheelError, match=r"\[0, 1\)"):
        Hindsight(goal_discount=1.0)


def _columns(final: np.ndarray, success: list[bool], task: list[str]) -> Columns:
    """Episodes of one transition each that end in the rows of `final`."""
    count = len(final)
    state = np.zeros((2 * count, final.shape[1]), np.float32)
    state[1::2] = final
    table = EpisodeTable(
        episode_id=tuple(f"e{number}" for number in range(count)),
        start=np.arange(count) * 2,
        transitions=np.ones(count, np.int64),
        success=np.array(success),
        terminal=np.array(success),
        episode_return=np.array(success, np.float64),
        task=np.array(task),
    )
    return Columns(table=table, state=state, action=np.zeros((2 * count, 1), np.float32), reward=np.zeros(2 * count, np.float32))


def test_task_goal_is_the_medoid_of_the_successes() -> None:
    final = np.array([[0.0, 9], [1, 9], [2, 9], [3, 9], [50, 9], [2.1, 9], [2.2, 9]], np.float32)
    success = [True, True, True, True, True, False, True]
    task = ["lift"] * 6 + ["stack"]
    goal = choose_task_goal(_columns(final, success, task), "lift")
    assert (goal.episode_id, goal.step) == ("e2", 1)
    np.testing.assert_array_equal(goal.state, final[2])


def test_task_goal_weighs_the_dimensions_by_their_spread() -> None:
    # In metres the second column decides, and in standard deviations the first.
    rng = np.random.default_rng(0)
    final = np.stack([rng.normal(0, 0.01, 201), rng.normal(0, 100, 201)], axis=1).astype(np.float32)
    goal = choose_task_goal(_columns(final, [True] * 201, ["lift"] * 201), "lift")
    scaled = np.abs(goal.state / np.array([0.01, 100]))
    assert (scaled < 0.7).all()


def test_task_goal_needs_a_success() -> None:
    with pytest.raises(FlywheelError, match=r"No episode of task 'lift' succeeded.*collect"):
        choose_task_goal(_columns(np.zeros((1, 2), np.float32), [False], ["lift"]), "lift")
    with pytest.raises(FlywheelError, match=r"task 'lfit' succeeded.*\(lift, stack\)"):
        choose_task_goal(_columns(np.zeros((2, 2), np.float32), [True, True], ["stack", "lift"]), "lfit")

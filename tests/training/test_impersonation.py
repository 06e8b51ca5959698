"""Episodes that are offered to other tasks: what becomes of them, and how batches are balanced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ObservationSpec
from flywheel.datasets.returns import NStep
from flywheel.datasets.sampler import locate
from flywheel.datasets.table import EpisodeTable, Floats
from flywheel.robots.base import make_robot
from flywheel.tasks.base import make_task
from flywheel.training.impersonation import Impersonate, TaskOutcome, impersonate, rebalanced, task_numbers
from tests.tables import make_table

TASKS = ("lift_red", "lift_green", "stack")
SPEC = make_robot("fake", make_task("stack").scene(0)).observation_spec

worlds = st.tuples(st.lists(st.tuples(st.integers(1, 12), st.sampled_from(TASKS)), min_size=1, max_size=8), st.integers(0, 999))
"""Per episode its transitions and its task; and a seed."""


def world(episodes: list[tuple[int, str]], seed: int, spec: ObservationSpec = SPEC) -> tuple[EpisodeTable, Floats]:
    """A table, and states in which cubes are somewhere on or above the table, sometimes on each other."""
    rng = np.random.default_rng(seed)
    table = replace(make_table([length for length, _ in episodes], seed), task=np.array([task for _, task in episodes]))
    state = np.zeros((int((table.final_row).max()) + 5, spec.state_dim), np.float32)
    heights = rng.choice([0.82, 0.82, 0.82, 0.9], (len(state), 2))
    stacked = rng.random(len(state)) < 0.1
    for row, (red, green) in enumerate(heights):
        state[row, spec.state_slice("cubeB_pos")] = (0.0, 0.0, green)
        state[row, spec.state_slice("cubeA_pos")] = (0.0, 0.0, green + 0.045) if stacked[row] else (0.1, 0.0, red)
        state[row, spec.state_slice("gripper_qpos")] = (0.04, -0.04)
    return table, state


def accepts(task: str, row: Floats) -> bool:
    return make_task(task).success({key: row[SPEC.state_slice(key)] for key in SPEC.state_keys})


def group(name: str) -> str:
    return make_task(name).skill


@given(worlds, st.sampled_from(["orig", "skill", "all"]))
def test_what_is_offered_ends_where_it_is_first_done_or_at_full_length(
    drawn: tuple[list[tuple[int, str]], int], mode: Impersonate
) -> None:
    table, state = world(*drawn)
    tasks = [task for task in TASKS if task in table.task]
    found = impersonate(table, state, SPEC, tasks, mode)
    offered = [(found.episode_id[i], str(found.task[i])) for i in range(len(found))]
    assert len(set(offered)) == len(offered)
    expected = 0
    for episode, own in enumerate(table.task.tolist()):
        for task in tasks:
            wanted = task == own or mode == "all" or (mode == "skill" and group(task) == group(own))
            rows = state[table.start[episode] : table.final_row[episode] + 1]
            first = next((step for step, row in enumerate(rows) if accepts(task, row)), None)
            if not wanted or (task != own and first == 0):
                assert (table.episode_id[episode], task) not in offered
                continue
            expected += 1
            at = offered.index((table.episode_id[episode], task))
            assert found.start[at] == table.start[episode]
            if task == own:
                assert (found.transitions[at], found.success[at], found.terminal[at]) == (
                    table.transitions[episode],
                    table.success[episode],
                    table.terminal[episode],
                )
            else:
                assert found.transitions[at] == (table.transitions[episode] if first is None else first)
                assert found.success[at] == found.terminal[at] == (first is not None)
    assert len(found) == expected


@given(worlds)
def test_rewards_ends_and_returns_are_the_tasks_own(drawn: tuple[list[tuple[int, str]], int]) -> None:
    table, state = world(*drawn)
    tasks = [task for task in TASKS if task in table.task]
    found = impersonate(table, state, SPEC, tasks, "all")
    every = locate(found, np.arange(found.total))
    meaning = TaskOutcome(task_numbers(found, tasks))(found, every, np.random.default_rng(0))
    assert meaning.reward is not None
    assert meaning.task is not None
    assert meaning.steps_to_goal is not None
    is_last = every.step == found.transitions[every.episode] - 1
    np.testing.assert_array_equal(meaning.reward, is_last & found.success[every.episode])
    np.testing.assert_array_equal(meaning.discount == 0, is_last & (found.success | found.terminal)[every.episode])
    assert [tasks[number] for number in meaning.task] == found.task[every.episode].tolist()
    for episode in range(len(found)):  # the return from each step is gamma^(steps_to_goal - 1), or 0
        own = meaning.steps_to_goal[every.episode == episode]
        length = int(found.transitions[episode])
        np.testing.assert_array_equal(own, np.arange(length, 0, -1) if found.success[episode] else np.zeros(length))


@given(worlds, st.floats(0, 1), st.integers(1, 64))
def test_every_batch_has_equal_shares_of_tasks_and_constant_ones_of_successes(
    drawn: tuple[list[tuple[int, str]], int], share: float, batch: int
) -> None:
    table, state = world(*drawn)
    tasks = [task for task in TASKS if task in table.task]
    found = impersonate(table, state, SPEC, tasks, "all")
    samples = rebalanced(found, tasks, share, batch).sample(np.random.default_rng(0), 20 * batch)
    number = task_numbers(found, tasks)
    for episodes in samples.episode.reshape(20, batch):
        for task in range(len(tasks)):
            of_task = number[episodes] == task
            assert abs(of_task.sum() - batch / len(tasks)) < 1 + 1e-9
            kinds = set(found.success[number == task].tolist())
            wanted = share if len(kinds) == 2 else float(kinds == {True})
            successes = (of_task & found.success[episodes]).sum()
            assert abs(successes - wanted * batch / len(tasks)) < 1 + 1e-9


def test_without_impersonation_no_detector_is_asked() -> None:
    table, state = world([(5, "lift_red"), (3, "lift_red")], 0)
    foreign = replace(table, task=np.array(["pour the tea", "open the drawer"]))
    found = impersonate(foreign, state, SPEC, ["open the drawer"], "orig")
    assert found.episode_id == (table.episode_id[1],)
    with pytest.raises(FlywheelError, match="no task 'open the drawer'"):
        impersonate(foreign, state, SPEC, ["open the drawer"], "all")


def test_a_task_whose_objects_are_not_seen_is_offered_nothing() -> None:
    table, state = world([(5, "lift_red"), (3, "stack")], 0)
    with pytest.raises(FlywheelError, match="no episode of lift; collect some"):
        impersonate(table, state, SPEC, ["lift_red", "lift"], "all")


def test_a_task_is_named_once() -> None:
    table, state = world([(5, "lift_red")], 0)
    with pytest.raises(FlywheelError, match="named twice in lift_red, lift_red"):
        impersonate(table, state, SPEC, ["lift_red", "lift_red"], "orig")


@given(worlds, st.integers(1, 5))
def test_over_several_steps_a_task_pays_once_where_it_is_done(drawn: tuple[list[tuple[int, str]], int], n: int) -> None:
    table, state = world(*drawn)
    tasks = [task for task in TASKS if task in table.task]
    offered = impersonate(table, state, SPEC, tasks, "all")
    outcome, gamma = TaskOutcome(task_numbers(offered, tasks)), 0.9
    every, rng = locate(offered, np.arange(offered.total)), np.random.default_rng(0)
    stored = np.full(int(table.final_row.max()) + 1, 7.0, np.float32)
    single, several = outcome(offered, every, rng), NStep(outcome, n, gamma, stored)(offered, every, rng)
    assert single.reward is not None
    assert several.reward is not None
    for i, (episode, step) in enumerate(zip(every.episode, every.step, strict=True)):
        m = min(n, int(offered.transitions[episode]) - step)
        assert several.reward[i] == pytest.approx(sum(gamma**k * single.reward[i + k] for k in range(m)))
        assert several.discount[i] == pytest.approx(gamma ** (m - 1) * single.discount[i + m - 1])

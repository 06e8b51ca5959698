"""The scripts work when careful, and fail honestly when not."""

from __future__ import annotations

import numpy as np
import pytest

from flywheel.rollout.rollout import rollout
from flywheel.tasks._expert import upright
from flywheel.tasks.base import make_task
from flywheel.tasks.env import make_env


def successes(task: str, imperfection: float, seeds: range) -> list[bool]:
    with make_env(task, "sim") as env:
        expert = env.task.expert(imperfection)
        return [rollout(env, expert, seed).metadata.success for seed in seeds]


def test_the_careful_lift_succeeds() -> None:
    assert all(successes("lift", 0.0, range(6)))


def test_the_careful_stack_succeeds() -> None:
    assert sum(successes("stack", 0.0, range(5))) >= 4


def test_the_imperfect_lift_does_both() -> None:
    assert 2 <= sum(successes("lift", 1.0, range(16))) <= 14


@pytest.mark.slow
@pytest.mark.parametrize(("task", "low", "high"), [("lift", 0.40, 0.75), ("stack", 0.30, 0.75)])
def test_the_imperfect_success_rate_is_what_the_readme_says(task: str, low: float, high: float) -> None:
    assert low <= np.mean(successes(task, 1.0, range(100))) <= high


@pytest.mark.parametrize("task", ["lift", "stack"])
def test_imperfection_depends_on_the_seed_alone(task: str) -> None:
    with make_env(task, "fake") as env:
        first, second = env.task.expert(), env.task.expert()
        second.reset(9)
        a, b = rollout(env, first, 4), rollout(env, second, 4)
    np.testing.assert_array_equal(a.action, b.action)


@pytest.mark.parametrize("task", ["lift", "stack"])
def test_the_careful_script_works_on_the_fake_robot_too(task: str) -> None:
    with make_env(task, "fake") as env:
        expert = env.task.expert(0.0)
        assert all(rollout(env, expert, seed).metadata.success for seed in range(5))


def test_upright_turns_a_tilted_hand_back() -> None:
    half = 0.1  # half the angle in radians: a tilt of 0.2 about x beyond straight down, which is pi about x
    tilted = np.array([np.cos(half), 0.0, 0.0, -np.sin(half)])
    np.testing.assert_allclose(upright(np.array([1.0, 0.0, 0.0, 0.0])), 0.0, atol=1e-12)
    np.testing.assert_allclose(upright(tilted), [-np.sin(0.2), 0.0, 0.0], atol=1e-12)


def lift_observation(height: float) -> dict[str, np.ndarray]:
    return {"cube_pos": np.array([0.0, 0.0, height], np.float32)}


def test_lift_asks_for_four_centimetres() -> None:
    task = make_task("lift")
    assert not task.success(lift_observation(0.839))
    assert task.success(lift_observation(0.841))
    assert task.reward(lift_observation(0.841)) == 1.0


@pytest.mark.parametrize(
    ("apart", "opening", "expected"),
    [
        ((0.0, 0.0, 0.045), 0.08, True),
        ((0.02, 0.01, 0.044), 0.07, True),
        ((0.0, 0.0, 0.045), 0.042, False),  # still held
        ((0.04, 0.0, 0.045), 0.08, False),  # beside
        ((0.0, 0.0, 0.06), 0.08, False),  # falling
    ],
)
def test_stack_asks_for_a_released_centred_cube(apart: tuple[float, ...], opening: float, expected: bool) -> None:
    base = np.array([0.05, -0.02, 0.825])
    observation = {"cubeB_pos": base, "cubeA_pos": base + apart, "gripper_qpos": np.array([opening / 2, -opening / 2])}
    assert make_task("stack").success(observation) is expected

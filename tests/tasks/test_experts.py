"""The scripts work when careful, and fail honestly when not."""

from __future__ import annotations

import numpy as np
import pytest

from flywheel.rollout.rollout import rollout
from flywheel.tasks._expert import DOWN, heading, nearest_turn, tilt
from flywheel.tasks.base import make_task
from flywheel.tasks.env import make_env

OURS = ["can", "door", "lift", "lift_can", "lift_green", "lift_red", "square", "stack", "turn_handle"]
ARMS = ["Panda", "Sawyer", "UR5e"]


def successes(task: str, imperfection: float, seeds: range, robot: str = "sim") -> list[bool]:
    with make_env(task, robot) as env:
        expert = env.task.expert(imperfection)
        return [rollout(env, expert, seed).metadata.success for seed in seeds]


@pytest.mark.parametrize("task", OURS)
def test_the_careful_script_succeeds(task: str) -> None:
    assert sum(successes(task, 0.0, range(4))) >= 3


def test_the_imperfect_lift_does_both() -> None:
    assert 2 <= sum(successes("lift", 1.0, range(16))) <= 14


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("task", OURS)
def test_careful_and_imperfect_success_rates_are_what_the_documents_say(task: str, arm: str) -> None:
    assert np.mean(successes(task, 0.0, range(20), f"sim:{arm}")) >= 0.85
    assert 0.2 <= np.mean(successes(task, 1.0, range(40), f"sim:{arm}")) <= 0.9


@pytest.mark.parametrize("task", ["lift", "can", "square", "door"])
def test_the_detector_agrees_with_the_simulator(task: str) -> None:
    """robosuite looks into its own state; the task sees the observation alone."""
    with make_env(task, "sim") as env:
        expert = env.task.expert(0.0)
        observation, info = env.reset(seed=0)
        expert.reset(0)
        ends = False
        while not ends:
            assert info["success"] == env.robot._env._check_success()
            observation, _, terminated, truncated, info = env.step(expert.act(observation))
            ends = terminated or truncated
        assert info["success"]
        assert env.robot._env._check_success()


@pytest.mark.parametrize("task", ["lift", "stack"])
def test_imperfection_depends_on_the_seed_alone(task: str) -> None:
    with make_env(task, "fake") as env:
        first, second = env.task.expert(), env.task.expert()
        second.reset(9)
        a, b = rollout(env, first, 4), rollout(env, second, 4)
    np.testing.assert_array_equal(a.action, b.action)


@pytest.mark.parametrize("task", ["lift", "stack", "lift_red", "lift_green"])
def test_the_careful_script_works_on_the_fake_robot_too(task: str) -> None:
    with make_env(task, "fake") as env:
        expert = env.task.expert(0.0)
        assert all(rollout(env, expert, seed).metadata.success for seed in range(5))


def test_tilt_turns_a_tilted_hand_back() -> None:
    half = 0.1  # half the angle in radians: a tilt of 0.2 about x beyond straight down, which is pi about x
    tilted = np.array([np.cos(half), 0.0, 0.0, -np.sin(half)])
    np.testing.assert_allclose(tilt(np.array([1.0, 0.0, 0.0, 0.0]), DOWN), 0.0, atol=1e-12)
    np.testing.assert_allclose(tilt(tilted, DOWN), [-np.sin(0.2), 0.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("angle", [-2.0, 0.0, 0.3, 3.0])
def test_a_heading_is_the_angle_seen_from_above(angle: float) -> None:
    assert heading(np.array([0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2)])) == pytest.approx(angle)
    # A hand that points down, by half a turn about x, and is then turned: the same heading.
    assert heading(np.array([np.cos(angle / 2), np.sin(angle / 2), 0.0, 0.0])) == pytest.approx(angle)


def test_the_nearest_turn_is_at_most_half_a_period() -> None:
    assert nearest_turn(3.0, np.pi) == pytest.approx(3.0 - np.pi)
    assert nearest_turn(-0.4, np.pi / 2) == pytest.approx(-0.4)
    assert nearest_turn(1.0, np.pi / 2) == pytest.approx(1.0 - np.pi / 2)


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


@pytest.mark.parametrize(
    ("place", "hand", "expected"),
    [
        ((0.15, 0.33, 0.86), (0.15, 0.33, 0.92), True),
        ((0.15, 0.33, 0.86), (0.15, 0.33, 0.87), False),  # still held
        ((0.15, 0.33, 0.95), (0.15, 0.33, 1.05), False),  # above the walls
        ((0.05, 0.33, 0.86), (0.15, 0.33, 0.95), False),  # in the neighbouring compartment
        ((0.15, -0.2, 0.86), (0.15, 0.33, 0.95), False),  # in the other bin
    ],
)
def test_can_asks_for_a_can_let_go_in_its_compartment(place: tuple[float, ...], hand: tuple[float, ...], expected: bool) -> None:
    assert make_task("can").success({"Can_pos": np.array(place), "eef_pos": np.array(hand)}) is expected


@pytest.mark.parametrize(
    ("place", "hand", "expected"),
    [
        ((0.23, 0.11, 0.83), (0.23, 0.05, 0.9), True),
        ((0.23, 0.11, 0.83), (0.23, 0.08, 0.84), False),  # still held
        ((0.23, 0.11, 0.93), (0.23, 0.05, 1.0), False),  # on top of the peg
        ((0.23, -0.1, 0.83), (0.23, 0.05, 0.9), False),  # on the round peg
    ],
)
def test_square_asks_for_a_nut_let_go_around_its_peg(place: tuple[float, ...], hand: tuple[float, ...], expected: bool) -> None:
    assert make_task("square").success({"SquareNut_pos": np.array(place), "eef_pos": np.array(hand)}) is expected


def test_a_turned_handle_is_not_an_open_door() -> None:
    turned = {"hinge_qpos": np.array(0.05), "handle_qpos": np.array(1.2)}
    opened = {"hinge_qpos": np.array(0.31), "handle_qpos": np.array(0.0)}
    door, handle = make_task("door"), make_task("turn_handle")
    assert (door.success(turned), handle.success(turned)) == (False, True)
    assert (door.success(opened), handle.success(opened)) == (True, False)

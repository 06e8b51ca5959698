import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.robots.fake import FakeRobot, Faults
from flywheel.robots.safety import SafeRobot
from flywheel.tasks.base import Task, make_task
from flywheel.tasks.env import Env, make_env

NOTHING = np.zeros(7, np.float32)
OURS = [name for name in registry.names("tasks") if not registry.load("tasks", name, Task).variants]
"""The others are other people's benchmarks, which bring their own robot."""


@pytest.mark.parametrize("task", OURS)
def test_every_task_on_the_fake_robot_is_a_gymnasium_environment(task: str) -> None:
    with make_env(task, "fake") as env, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unbounded observations, no registered spec
        check_env(env, skip_render_check=True)
        assert isinstance(env, gymnasium.Env)


@pytest.mark.parametrize("name", OURS)
def test_every_task_says_what_it_is(name: str) -> None:
    task = make_task(name)
    assert task.name == name
    assert task.instruction
    assert task.horizon > 0
    assert task.success_detector
    assert task.skill in {"acquire", "place", "articulate"}
    assert task.scene(5).seed == 5
    assert task.scene(5).objects == task.objects


def test_the_horizon_truncates() -> None:
    with make_env("lift", "fake") as env:
        env.reset(seed=0)
        ends = [env.step(NOTHING)[2:4] for _ in range(env.task.horizon)]
    assert ends == [(False, False)] * (env.task.horizon - 1) + [(False, True)]


def test_success_terminates_with_reward_one() -> None:
    with make_env("lift", "fake") as env:
        observation, _ = env.reset(seed=1)
        expert = env.task.expert(0.0)
        rewards, end = [], (False, False)
        while not any(end):
            observation, reward, *end, info = env.step(expert.act(observation))
            rewards.append(reward)
    assert end == [True, False]
    assert info["success"]
    assert sum(rewards) == rewards[-1] == 1.0


def test_a_stopped_robot_truncates() -> None:
    with make_env("lift", "fake", safe=True) as env:
        env.reset(seed=0)
        bad = np.full(7, np.nan, np.float32)
        assert env.step(bad)[3] is False
        assert env.step(bad)[3] is True
        assert [event.kind for event in env.safety_events] == ["hold", "stop"]


def test_info_holds_the_executed_action() -> None:
    with make_env("lift", "fake", safe=True) as env:
        env.reset(seed=0)
        info = env.step(np.full(7, 3.0, np.float32))[4]
    np.testing.assert_array_equal(info["executed"], np.ones(7, np.float32))


def test_success_detectors_have_names_of_their_own() -> None:
    detectors = [make_task(name).success_detector for name in OURS]
    assert len(set(detectors)) == len(detectors)


@pytest.mark.parametrize("robot", ["sim", "fake"])
@pytest.mark.parametrize(
    ("task", "thing", "relation"),
    [("lift", "cube", "gripper_to_cube_pos"), ("stack", "cubeB", "gripper_to_cubeB"), ("door", "handle", "handle_to_eef_pos")],
)
def test_relations_are_those_of_the_same_moment(task: str, robot: str, thing: str, relation: str) -> None:
    with make_env(task, robot) as env:
        env.reset(seed=3)
        for _ in range(3):
            seen = env.step(np.full(7, 0.5, np.float32))[0]
            np.testing.assert_allclose(seen[relation], seen[f"{thing}_pos"] - seen["eef_pos"], atol=1e-6)


@pytest.mark.parametrize("robot", ["sim", "fake"])
@pytest.mark.parametrize(("task", "thing"), [("can", "Can"), ("square", "SquareNut")])
def test_places_in_the_frame_of_the_hand_are_those_of_the_same_moment(task: str, thing: str, robot: str) -> None:
    with make_env(task, robot) as env:
        seen, _ = env.reset(seed=3)
        for _ in range(4):
            apart = seen[f"{thing}_pos"] - seen["eef_pos"]
            # robosuite turns into the frame of the grip's site, a quarter turn from that of `eef_quat`: the length is the same.
            found = seen[f"{thing}_to_robot0_eef_pos"]
            np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(apart), atol=1e-5)
            assert found[2] > 0.0, "the hand points down, and the thing is below"
            assert np.linalg.norm(seen[f"{thing}_to_robot0_eef_quat"]) == pytest.approx(1.0, abs=1e-5)
            seen = env.step(np.full(7, 0.5, np.float32))[0]


def test_tasks_of_one_world_can_judge_each_other() -> None:
    names = OURS
    together = {name: {other for other in names if make_task(other).judges(make_task(name).objects)} for name in names}
    assert together["stack"] == together["lift_red"] == together["lift_green"] == {"stack", "lift_red", "lift_green"}
    assert together["can"] == together["lift_can"] == {"can", "lift_can"}
    assert together["door"] == together["turn_handle"] == {"door", "turn_handle"}
    assert together["lift"] == {"lift"}


def test_its_config_builds_it_again() -> None:
    env = make_env("stack", "fake", safe=True)
    again = make_env(**env.config)
    assert isinstance(again.robot, SafeRobot)
    assert again.config == env.config


def test_leaving_disconnects_whatever_happened() -> None:
    task = make_task("lift")
    robot = FakeRobot(task.scene(0), Faults(disconnect_after=1))
    env = Env(task, robot)

    def work() -> None:
        with env:
            env.reset(seed=0)
            env.step(NOTHING)

    with pytest.raises(FlywheelError, match="not connected"):
        work()
    with pytest.raises(FlywheelError, match="not connected"):
        robot.observe()


def test_an_unknown_task_gets_the_nearest_name() -> None:
    with pytest.raises(FlywheelError, match="did you mean 'lift'"):
        make_env("lifd")

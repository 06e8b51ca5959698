"""The control step against robosuite's own, from the same states: equal to the last bit."""

from collections.abc import Callable

import numpy as np
import pytest

from flywheel.core.specs import Array
from flywheel.robots.base import Scene
from flywheel.robots.sim import SimRobot
from flywheel.rollout.rollout import rollout
from flywheel.tasks.env import make_env

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("arm", "world"),
    [
        ("Panda", "Lift"),
        ("UR5e", "Lift"),
        ("IIWA", "Lift"),
        pytest.param("Sawyer", "Stack", marks=slow),
        pytest.param("Kinova3", "Door", marks=slow),
        pytest.param("Panda", "PickPlaceCan", marks=slow),
        pytest.param("UR5e", "NutAssemblySquare", marks=slow),
    ],
)
def test_random_motion_is_robosuites(arm: str, world: str) -> None:
    """Six joints and seven, and IIWA, where robosuite's frame of the base lies on a link that moves."""
    actions = np.random.default_rng(1).uniform(-1.2, 1.2, (30, 7)).astype(np.float32)
    actions[::5, 3:6] = 0.0  # no rotation is a case of its own
    actions[::7, 6] = 0.0  # and so is a hand that keeps still
    scene = Scene(world, seed=3)
    with SimRobot(scene, arm) as robot:
        np.testing.assert_array_equal(states(robot, scene, actions, robot.act), states(robot, scene, actions, own_step(robot)))


def test_a_grasp_is_robosuites() -> None:
    with make_env("lift", "sim") as env:
        episode = rollout(env, env.task.expert(1.0), seed=5)
        assert episode.metadata.success
        scene, robot = env.task.scene(5), env.robot
        ours = states(robot, scene, episode.action[:-1], robot.act)
        np.testing.assert_array_equal(ours, states(robot, scene, episode.action[:-1], own_step(robot)))
        np.testing.assert_array_equal(ours[:, :7].astype(np.float32), episode.observation["joint_pos"][1:])


def test_a_period_has_robosuites_substeps() -> None:
    """At 30 Hz it simulates 16 substeps, 32 ms, and says 33."""
    scene = Scene("Lift", seed=3)
    actions = np.full((3, 7), 0.5, np.float32)
    with SimRobot(scene, control_rate=30.0) as robot:
        theirs, said = states(robot, scene, actions, own_step(robot)), robot.clock()
        np.testing.assert_array_equal(states(robot, scene, actions, robot.act), theirs)
        assert robot.clock() == said
        assert robot._env.sim.data.time == pytest.approx(3 * 0.032)


def own_step(robot: SimRobot) -> Callable[[Array], object]:
    """robosuite's `env.step`, and the same reading of the newest positions after it."""

    def step(action: Array) -> None:
        robot._env.step(np.clip(action, -1.0, 1.0))
        robot._env.sim.forward()

    return step


def states(robot: SimRobot, scene: Scene, actions: Array, step: Callable[[Array], object]) -> Array:
    """(T, ...): positions, velocities, controls and the solver's memory after each action."""
    robot.reset(scene)
    found = []
    for action in actions:
        step(action)
        data = robot._env.sim.data
        found.append(np.concatenate([data.qpos, data.qvel, data.ctrl, data.qacc_warmstart]))
    return np.stack(found)

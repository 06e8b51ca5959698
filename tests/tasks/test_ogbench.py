"""OGBench's environments are tasks like any other, and repeat bit for bit."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.robots.conformance import check
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.policies import RandomPolicy
from flywheel.rollout.rollout import EVALUATION_SEED, rollout
from flywheel.tasks.base import make_task
from flywheel.tasks.env import make_env
from flywheel.tasks.ogbench import GOALS, WORLDS

pytestmark = pytest.mark.skipif(find_spec("ogbench") is None, reason="needs ogbench")
KINDS = ["ogbench:pointmaze-medium", "ogbench:cube-single", "ogbench:scene", "ogbench:puzzle-3x3"]


@pytest.mark.parametrize("environment", [name for name in WORLDS if not name.startswith("visual-")])
def test_what_is_declared_is_what_is_built(environment: str) -> None:
    from gymnasium.envs.registration import spec

    with make_env(f"ogbench:{environment}") as env:
        observation, info = env.reset(seed=1)
        env.robot.observation_spec.validate(observation)
        env.robot.observation_spec.validate(info["goal"])
        np.testing.assert_array_equal(env.step(np.ones(env.robot.action_spec.dim, np.float32))[4]["executed"], 1.0)
    assert spec(f"{environment}-v0").max_episode_steps == env.task.horizon


@pytest.mark.parametrize("name", KINDS)
def test_its_robot_keeps_every_promise(name: str) -> None:
    broken = [result for result in check(make_env(name).robot) if not result.passed]
    assert not broken


@pytest.mark.parametrize("name", KINDS)
def test_a_seed_repeats_whatever_came_before(name: str) -> None:
    def begin(*seeds: int) -> tuple[np.ndarray, np.ndarray]:
        with make_env(name) as env:
            for seed in seeds:
                observation, info = env.reset(seed=seed)
                env.step(env.action_space.sample())
        return observation["state"], info["goal"]["state"]

    for first, second in zip(begin(7), begin(8, 3, 7), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_a_visual_world_shows_pictures_and_a_goals_picture() -> None:
    """In a process of its own: another test of this one may have imported TensorFlow."""
    script = """
import numpy as np
from flywheel.tasks.env import make_env
def begin(env, seed):
    observation, info = env.reset(seed=seed)
    env.robot.observation_spec.validate(observation)
    env.robot.observation_spec.validate(info["goal"])
    return observation["pixels"], info["goal"]["pixels"]
with make_env("ogbench:visual-cube-single") as env:
    shown, goal = begin(env, 3)
    moved = env.step(np.ones(5, np.float32))[0]["pixels"]
    _, other = begin(env, 4)
    again = begin(env, 3)
assert shown.shape == (64, 64, 3) and shown.dtype == np.uint8 and shown.std() > 5
for left, right in ((shown, goal), (shown, moved), (goal, other)):
    assert not np.array_equal(left, right)
assert np.array_equal(shown, again[0]) and np.array_equal(goal, again[1])
"""
    drawn = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert drawn.returncode == 0, drawn.stderr


def test_visual_worlds_are_those_of_the_arm() -> None:
    task = make_task("ogbench:visual-scene")
    assert (list(task.observation.arrays), task.horizon) == (["pixels"], WORLDS["scene"].horizon)
    with pytest.raises(FlywheelError, match="visual-pointmaze-medium"):
        make_task("ogbench:visual-pointmaze-medium")


def test_consecutive_seeds_reach_for_each_goal_in_turn() -> None:
    with make_env("ogbench:pointmaze-medium") as env:
        goals = [np.round(env.reset(seed=EVALUATION_SEED + n)[1]["goal"]["state"] / 4) for n in range(2 * GOALS)]
    np.testing.assert_array_equal(goals[:GOALS], goals[GOALS:])
    assert len(np.unique(goals, axis=0)) == GOALS


def test_success_is_the_simulations_and_ends_the_episode() -> None:
    with make_env("ogbench:pointmaze-medium") as env:
        _, info = env.reset(seed=2)  # the third goal: five cells away
        simulation = env.task.simulation._sim
        ended, steps = False, 0
        while not ended:
            place = simulation.get_xy()
            way = simulation.get_oracle_subgoal(place, simulation.cur_goal_xy)[0] - place
            observation, reward, ended, truncated, step_info = env.step((way / np.linalg.norm(way)).astype(np.float32))
            steps += 1
    assert not truncated
    assert step_info["success"]
    assert reward == 1.0
    assert np.linalg.norm(observation["state"] - info["goal"]["state"]) <= 1.0
    assert steps < env.task.horizon


def test_what_was_stored_cannot_be_judged_again() -> None:
    with make_env("ogbench:pointmaze-medium") as env:
        observation, _ = env.reset(seed=0)
        env.step(np.ones(2, np.float32))
        with pytest.raises(FlywheelError, match="Only the simulation"):
            env.task.success(observation)


def test_it_is_collected_stored_and_evaluated(tmp_path: Path) -> None:
    result = collect(CollectConfig("ogbench:cube-single", policy="random", store=tmp_path, episodes=2, processes=1))
    rows = EpisodeStore.open(result.dataset).rows()
    assert [row.task for row in rows] == ["ogbench:cube-single"] * 2
    assert result.steps == 2 * WORLDS["cube-single"].horizon
    evaluation = evaluate(EvaluateConfig("ogbench:cube-single", tmp_path / "eval", policy="random", episodes=2, processes=1))
    assert len(evaluation.results) == 2


def test_the_safety_layer_holds_here_too() -> None:
    with make_env("ogbench:cube-single", safe=True) as env:
        episode = rollout(env, RandomPolicy(env.robot.action_spec), seed=0)
    assert episode.metadata.robot == "sim:ogbench"
    assert '"safe": true' in episode.metadata.environment_config


def test_mistakes_are_told() -> None:
    with pytest.raises(FlywheelError, match="did you mean 'scene'"):
        make_task("ogbench:sceen")
    with pytest.raises(FlywheelError, match="known: pointmaze-medium"):
        make_task("ogbench")
    with pytest.raises(FlywheelError, match="brings its own robot"):
        make_env("ogbench:scene", "fake")
    with pytest.raises(FlywheelError, match="no scripted expert"):
        make_task("ogbench:scene").expert()


def test_its_config_builds_it_again() -> None:
    env = make_env("ogbench:scene", safe=True)
    assert make_env(**env.config).config == env.config

"""Meta-World's and Gymnasium-Robotics' environments are tasks like any other, and repeat bit for bit."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.core.registry import load
from flywheel.datasets.store import EpisodeStore
from flywheel.robots.conformance import check
from flywheel.rollout.collect import CollectConfig, collect
from flywheel.rollout.policies import RandomPolicy
from flywheel.rollout.rollout import rollout
from flywheel.tasks.base import Task, make_task
from flywheel.tasks.env import make_env

PACKAGES = ("ogbench", "metaworld", "gymnasium_robotics")
# Not importorskip: that would import MuJoCo before anybody has decided how it draws.
pytestmark = pytest.mark.skipif(not all(map(find_spec, PACKAGES)), reason=f"needs {', '.join(PACKAGES)}")
FETCH = [f"gymnasium_robotics:{name}" for name in ("reach", "push", "slide", "pick-and-place")]
SOME = ["metaworld:reach", "metaworld:door-open", "metaworld:pick-place"]


@pytest.mark.parametrize("name", [*FETCH, *SOME])
def test_its_robot_keeps_every_promise(name: str) -> None:
    broken = [result for result in check(make_env(name).robot) if not result.passed]
    assert not broken


@pytest.mark.parametrize("name", [*FETCH, *SOME])
def test_a_seed_repeats_whatever_came_before(name: str) -> None:
    def play(*seeds: int) -> dict[str, np.ndarray]:
        with make_env(name) as env:
            env.task.horizon = 5
            return [rollout(env, RandomPolicy(env.robot.action_spec), seed).observation for seed in seeds][-1]

    first, second, other = play(7), play(8, 3, 7), play(8)
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])
    assert any(not np.array_equal(value, other[key]) for key, value in first.items())


@pytest.mark.parametrize("name", ["metaworld:reach", "metaworld:drawer-close", "metaworld:window-open"])
def test_metaworlds_scripts_do_the_tasks(name: str) -> None:
    with make_env(name) as env:
        assert all(rollout(env, env.task.expert(0.0), seed).metadata.success for seed in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", load("tasks", "metaworld", Task).variants)  # type: ignore[type-abstract]
def test_every_metaworld_task_is_built_and_steps(name: str) -> None:
    with make_env(f"metaworld:{name}") as env:
        env.task.horizon = 20
        episode = rollout(env, env.task.expert(), seed=0)
    episode.validate(env.robot.observation_spec, env.robot.action_spec)


def test_experts_episodes_are_collected(tmp_path: Path) -> None:
    result = collect(CollectConfig("metaworld:drawer-close", store=tmp_path, episodes=2, processes=1))
    rows = EpisodeStore.open(result.dataset).rows()
    assert {row.agent_id for row in rows} == {"metaworld-drawer-close-expert"}
    assert result.successes == sum(row.success for row in rows)


def test_fetchs_verdict_is_about_the_place() -> None:
    with make_env("gymnasium_robotics:reach") as env:
        observation, _ = env.reset(seed=1)
        end = (False, False)
        while not any(end):
            way = observation["desired_goal"] - observation["achieved_goal"]
            observation, _, *end, info = env.step(np.append(np.clip(10 * way, -1, 1), 0).astype(np.float32))
    assert info["success"]
    assert np.linalg.norm(observation["desired_goal"] - observation["achieved_goal"]) < 0.05


@pytest.mark.parametrize("name", ["ogbench:pointmaze-medium", "ogbench:scene", "metaworld:reach", "gymnasium_robotics:push"])
def test_it_is_drawn(name: str) -> None:
    """In a process of its own: another test of this one may have imported TensorFlow."""
    script = f"""
from flywheel.tasks.env import make_env
with make_env({name!r}) as env:
    env.reset(seed=0)
    picture = env.render(64, 96)
assert picture.shape == (64, 96, 3)
assert picture.std() > 5
"""
    drawn = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert drawn.returncode == 0, drawn.stderr


def test_mistakes_are_told() -> None:
    with pytest.raises(FlywheelError, match="did you mean 'reach'"):
        make_task("metaworld:reech")
    with pytest.raises(FlywheelError, match="no scripted expert"):
        make_task("gymnasium_robotics:push").expert()

import json

import numpy as np

from flywheel.core.specs import Array, Observation
from flywheel.rollout.policies import RandomPolicy
from flywheel.rollout.rollout import deterministic_id, rollout
from flywheel.tasks.env import make_env


class Shouting:
    """Asks for more than is allowed, and remembers the goals that it was given."""

    agent_id = "shouting"
    checkpoint = "abc"
    snapshot = "def"

    def __init__(self) -> None:
        self.goals: list[Observation | None] = []

    def reset(self, seed: int) -> None:
        self.seed = seed

    def act(self, observation: Observation, goal: Observation | None = None) -> Array:
        self.goals.append(goal)
        return np.full(7, 2.0, np.float32)


def test_an_episode_says_everything_about_itself() -> None:
    with make_env("lift", "fake", safe=True) as env:
        policy = Shouting()
        goal = {"cube_pos": np.zeros(3)}
        episode = rollout(env, policy, 11, goal=goal, experiment="trial", episode_id="an-id")
        episode.validate(env.robot.observation_spec, env.robot.action_spec)
    about = episode.metadata
    assert (about.agent_id, about.policy_checkpoint, about.policy_snapshot) == ("shouting", "abc", "def")
    assert (about.episode_id, about.experiment_id, about.task, about.robot, about.seed) == ("an-id", "trial", "lift", "fake", 11)
    assert (about.success, about.success_detector) == (False, "lift-height-v1")
    assert json.loads(about.environment_config) == {"task_name": "lift", "robot_name": "fake", "safe": True}
    assert json.loads(about.controller)["mode"] == "delta"
    assert json.loads(about.safety_events)[0]["kind"] == "clip"
    assert about.code_version
    assert about.started_at_ns > 0
    assert policy.seed == 11
    assert all(given is goal for given in policy.goals)


def test_the_executed_action_is_logged_and_truncation_is_not_terminal() -> None:
    with make_env("lift", "fake", safe=True) as env:
        episode = rollout(env, Shouting(), 0)
    assert episode.transitions == 80
    np.testing.assert_array_equal(episode.action[:-1], 1.0)
    assert episode.is_last[-1]
    assert not episode.is_terminal.any()
    np.testing.assert_array_equal(episode.discount, 1.0)


def test_success_is_terminal() -> None:
    with make_env("lift", "fake") as env:
        episode = rollout(env, env.task.expert(0.0), 0)
    assert episode.metadata.success
    assert episode.metadata.safety_events == ""
    assert episode.is_terminal[-1]
    assert episode.episode_return == 1.0
    assert episode.discount[-2] == 0


def test_one_frame_per_observation() -> None:
    frames: list[Array] = []
    with make_env("lift", "fake") as env:
        episode = rollout(env, env.task.expert(0.0), 0, frames=frames, frame_size=(32, 48))
    assert len(frames) == len(episode)
    assert frames[0].shape == (32, 48, 3)


def test_a_simulated_rollout_repeats_itself_bit_for_bit() -> None:
    with make_env("lift", "sim") as env:
        policy = RandomPolicy(env.robot.action_spec)
        first, _, again = (rollout(env, policy, seed) for seed in (3, 4, 3))
    for key, value in first.observation.items():
        np.testing.assert_array_equal(value, again.observation[key])
    np.testing.assert_array_equal(first.action, again.action)


def test_the_id_is_made_of_what_decides_an_episode() -> None:
    first = deterministic_id("trial", "lift", "sim", "expert", 1)
    assert first == deterministic_id("trial", "lift", "sim", "expert", 1)
    others = {deterministic_id("trial", "lift", "sim", "expert", 2), deterministic_id("trial", "lift", "sim", "abc", 1)}
    assert first not in others
    assert len(others) == 2

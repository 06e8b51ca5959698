from pathlib import Path

import numpy as np
import pytest
import torch

from flywheel.algorithms.base import Algorithm
from flywheel.core import config as configs
from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.policy import PolicyHeader, build_algorithm, save_policy
from flywheel.rollout.evaluate import EvaluateConfig, evaluate
from flywheel.rollout.policies import RandomPolicy, open_policy, policy_name
from flywheel.tasks.env import Env, make_env


@pytest.fixture
def env() -> Env:
    return make_env("lift", "fake")


def untrained(env: Env, path: Path) -> str:
    torch.manual_seed(0)
    cls = registry.load("algorithms", "bc", Algorithm)  # type: ignore[type-abstract]
    header = PolicyHeader(
        algorithm="bc",
        config=configs.to_dict(cls.Config()),
        observation=env.robot.observation_spec.to_json(),
        action=env.robot.action_spec.to_json(),
        goal_conditioned=False,
        snapshot="a-snapshot",
    )
    return save_policy(path, header, build_algorithm(header), None)


def test_a_trained_policy_is_evaluated_under_its_hash(env: Env, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    digest = untrained(env, path)
    assert policy_name(str(path)) == digest
    settings = {"robot": "fake", "policy": str(path), "episodes": 4}
    one = evaluate(EvaluateConfig("lift", tmp_path / "one", processes=1, **settings))  # type: ignore[arg-type]
    two = evaluate(EvaluateConfig("lift", tmp_path / "two", processes=2, **settings))  # type: ignore[arg-type]
    assert one == two
    assert one.policy == digest
    assert one.results[0].agent_id == f"bc-{digest[:8]}"


def test_a_policy_acts_with_one_thread_and_gives_the_others_back(env: Env, tmp_path: Path) -> None:
    untrained(env, tmp_path / "policy.safetensors")
    before = torch.get_num_threads()
    with open_policy(str(tmp_path), env, explore=True) as policy:
        assert torch.get_num_threads() == 1
        assert policy.snapshot == "a-snapshot"
    assert torch.get_num_threads() == before


def test_a_policy_for_another_task_is_refused(env: Env, tmp_path: Path) -> None:
    untrained(env, tmp_path / "policy.safetensors")
    refused = pytest.raises(FlywheelError, match=r"other observations .*'cube_pos'")
    with refused, open_policy(str(tmp_path), make_env("stack", "fake")):
        pass


def test_random_actions_stay_within_the_limits_and_repeat_with_the_seed(env: Env) -> None:
    policy = RandomPolicy(env.robot.action_spec)
    policy.reset(5)
    actions = [policy.act({}) for _ in range(50)]
    assert np.abs(actions).max() <= 1
    assert np.std(actions) > 0.4
    policy.reset(5)
    np.testing.assert_array_equal(policy.act({}), actions[0])

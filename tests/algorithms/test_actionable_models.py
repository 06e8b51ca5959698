from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from flywheel.algorithms.actionable_models import ActionableModels, ActionableModelsConfig
from flywheel.algorithms.base import Sizes
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from tests.algorithms import corridor
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, fit, random_batch


def _batch(seed: int, size: int = 16) -> Batch:
    """Without the data's returns, below which no target may lie."""
    return dataclasses.replace(random_batch(seed, size), mc_return=None)


def _make(**settings: object) -> ActionableModels:
    torch.manual_seed(0)
    config = ActionableModelsConfig(**{"hidden": (16, 16), **settings})
    return ActionableModels(config, Sizes(STATE_DIM, ACTION_DIM, True))


def test_a_row_that_reaches_its_goal_is_terminal() -> None:
    """Its target is 1, whatever lies behind the goal."""
    batch = _batch(0)
    reached = (batch.reward > 0)[:, None]
    assert reached.any()
    moved = torch.where(reached, batch.next_observation["state"] + 100, batch.next_observation["state"])
    targets = []
    for following in (batch.next_observation["state"], moved):
        algorithm = _make()
        algorithm.losses(dataclasses.replace(batch, next_observation={"state": following}))
        targets.append(algorithm.metrics()["target"])
    assert torch.equal(*targets)


def test_negatives_never_change_the_targets_of_the_datas_actions() -> None:
    targets = []
    for settings in ({"n_negatives": 1}, {"n_negatives": 32}, {"negative_weight": 0.0}):
        algorithm = _make(**settings)
        algorithm.losses(_batch(0))
        targets.append(algorithm.metrics()["target"])
    assert torch.equal(targets[0], targets[1])
    assert torch.equal(targets[0], targets[2])


def test_negatives_pull_unseen_actions_to_zero_and_no_further() -> None:
    batch = _batch(0, size=64)
    algorithm = fit(_make(learning_rate=3e-3, negative_weight=3.0), lambda _: batch, range(300))
    features = algorithm.encoder(batch.observation, batch.goal)
    with torch.no_grad():
        unseen = algorithm._value(algorithm.critic.many(features, torch.rand(64, 50, ACTION_DIM) * 2 - 1))
    assert unseen.min() >= 0
    assert unseen.mean() < 0.1


def test_a_chained_end_keeps_its_value_without_reward_or_bootstrap() -> None:
    """If every row is such an end, the targets are the target critic's own values."""
    algorithm, batch = _make(), _batch(0)
    batch = dataclasses.replace(batch, is_chained=torch.ones_like(batch.is_chained))
    algorithm.losses(batch)
    features = algorithm.encoder(batch.observation, batch.goal)
    own = algorithm._value(algorithm.target_critic(features, batch.action)).mean()
    torch.testing.assert_close(algorithm.metrics()["target"], own.detach())


def test_found_connections_are_counted_among_the_chained_rows() -> None:
    algorithm, batch = _make(), _batch(0)
    for bias, expected in ((-9.0, 0.0), (9.0, 1.0)):
        torch.nn.init.constant_(algorithm.target_critic.output.bias, bias)
        algorithm.losses(batch)
        assert algorithm.metrics()["chained_targets_found"].item() == expected


def test_the_share_and_the_targets_of_each_stream_are_told() -> None:
    algorithm, batch = _make(), _batch(0)
    chained = torch.arange(16) % 4 == 0
    returns = torch.where(chained, 0.0, 0.5)
    algorithm.losses(dataclasses.replace(batch, mc_return=returns))
    metrics = algorithm.metrics()
    assert metrics["chained"] == 0.25
    assert metrics["chained_ends"] == batch.is_chained.float().mean()
    assert metrics["target_hindsight"] >= 0.5
    mean = 0.25 * metrics["target_chained"] + 0.75 * metrics["target_hindsight"]
    torch.testing.assert_close(metrics["target"], mean)


def test_no_target_is_less_than_what_the_data_collected_unless_so_asked() -> None:
    batch = dataclasses.replace(_batch(0), mc_return=torch.full((16,), 0.9))
    for is_bound, expected in ((True, 0.9), (False, 0.0)):
        algorithm = _make(lower_bound=is_bound)
        torch.nn.init.constant_(algorithm.target_critic.output.bias, -9.0)
        algorithm.losses(dataclasses.replace(batch, reward=torch.zeros(16)))
        assert algorithm.metrics()["target"].item() == pytest.approx(expected, abs=0.01)


def test_cem_needs_no_actor_and_finds_the_best_action() -> None:
    """Q is larger the nearer an action is to (0.5, 0.5). The data covers all actions, or CEM finds what extrapolates best."""
    algorithm, batch = (
        _make(maximise="cem", negative_weight=0.0, learning_rate=3e-3, hidden=(64, 64), cem_samples=16),
        _batch(0, 256),
    )
    assert set(algorithm.losses(batch)) == {"critic"}
    assert not any(name.startswith("actor") for name, _ in algorithm.named_parameters())
    batch.observation["state"].zero_()
    batch = dataclasses.replace(batch, goal=batch.observation, action=2 * torch.rand(256, ACTION_DIM) - 1)
    closeness = torch.exp(-4 * (batch.action - 0.5).square().sum(dim=1))
    batch = dataclasses.replace(batch, reward=closeness, discount=torch.zeros(256), is_chained=torch.zeros(256, dtype=torch.bool))
    fit(algorithm, lambda _: batch, range(300))
    action = algorithm.act(batch.observation, batch.goal, deterministic=True)
    assert (action - 0.5).abs().mean() < 0.2
    sampled = algorithm.act(batch.observation, batch.goal, deterministic=False)
    assert (sampled - 0.5).abs().mean() < 0.4


@pytest.mark.parametrize("reward_scale", ["probability", "steps"])
def test_cem_tells_actions_apart_also_beyond_the_range_of_values(reward_scale: str) -> None:
    """Where outputs say more than 1 or less than 0, all values are equal, and the outputs' order is what is known."""
    algorithm, batch = _make(maximise="cem", reward_scale=reward_scale), _batch(0)
    expected = algorithm.act(batch.observation, batch.goal, deterministic=True)
    for shift in (40.0, -80.0):
        with torch.no_grad():
            algorithm.critic.output.bias.add_(shift)
        torch.testing.assert_close(algorithm.act(batch.observation, batch.goal, deterministic=True), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("reward_scale", ["probability", "steps"])
@pytest.mark.parametrize("maximise", ["actor", "cem"])
def test_values_propagate_across_two_stitched_episodes(reward_scale: str, maximise: str) -> None:
    """Episode A walks 0-1-2, B walks 1-2-3-4; from 0 to 4 there is a way that neither went, to 5 there is none."""
    batch = two_episodes()
    config = ActionableModelsConfig(
        hidden=(64, 64),
        learning_rate=2e-3,
        target_rate=0.05,
        negative_weight=0.05,
        reward_scale=reward_scale,
        maximise=maximise,
    )
    torch.manual_seed(0)
    algorithm = fit(ActionableModels(config, Sizes(6, 1, True)), lambda _: batch, range(700))
    eye = torch.eye(6)
    features = algorithm.encoder({"state": eye[[3, 1, 0, 0, 2]]}, {"state": eye[[4, 4, 4, 5, 0]]})
    with torch.no_grad():
        value = algorithm._value(algorithm.critic(features, torch.full((5, 1), 0.5)))
    assert value[:3].tolist() == pytest.approx([1.0, 0.9**2, 0.9**3], abs=0.12)
    assert value[3:].max() < (0.15 if maximise == "actor" else 0.25)  # CEM also finds what the critic extrapolates


def two_episodes() -> Batch:
    """Every row of both streams: (state, next, goal, reached, chained end), with one-hot states."""
    rows = []
    for episode, others in (((0, 1, 2), (3, 4, 5)), ((1, 2, 3, 4), (0, 5))):
        last = len(episode) - 2
        for t in range(last + 1):
            step = episode[t], episode[t + 1]
            rows += [(*step, episode[i + 1], t == i, False) for i in range(t, last + 1)]
            rows += [(*step, goal, False, t == i) for i in range(t, last + 1) for goal in others]
    state, following, goal, reached, chained = (np.array(column) for column in zip(*rows, strict=True))
    eye, reward = torch.eye(6), torch.tensor(reached).float()
    return Batch(
        observation={"state": eye[state]},
        action=torch.full((len(rows), 1), 0.5),
        reward=reward,
        discount=0.9 * (1 - reward),
        next_observation={"state": eye[following]},
        goal={"state": eye[goal]},
        is_chained=torch.tensor(chained),
    )


def test_goals_are_reached_also_where_no_episode_led_from_start_to_goal() -> None:
    data, rng = corridor.episodes(0), np.random.default_rng(0)
    batches = [corridor.actionable_batch(data, rng, 128) for _ in range(100)]
    config = ActionableModelsConfig(hidden=(64, 64), learning_rate=1e-3, target_rate=0.02)
    torch.manual_seed(0)
    algorithm = fit(ActionableModels(config, Sizes(2, 2, True)), lambda number: batches[number % 100], range(1200))
    own_episode = [((0.0, 0.0), (0.6, 0.0)), ((1.0, 0.0), (1.0, 0.8)), ((1.0, 0.0), (1.0, -0.8))]
    stitched = [((0.0, 0.0), (1.0, 0.9)), ((0.0, 0.0), (1.0, -0.9))]
    for start, goal in own_episode + stitched:
        assert corridor.distance_to_goal(algorithm, start, goal) < 0.15, (start, goal)


def test_a_batch_without_marked_chaining_and_a_network_without_goal_are_refused() -> None:
    with pytest.raises(FlywheelError, match="actionable"):
        _make().losses(dataclasses.replace(_batch(0), is_chained=None))
    with pytest.raises(FlywheelError, match="goal"):
        ActionableModels(ActionableModelsConfig(), Sizes(STATE_DIM, ACTION_DIM, False))

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from flywheel.algorithms.base import Sizes
from flywheel.algorithms.implicit_actionable_models import ImplicitActionableModels, ImplicitActionableModelsConfig
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, fit, random_batch
from tests.algorithms.test_actionable_models import two_episodes

_SIZES = Sizes(STATE_DIM, ACTION_DIM, True)


def _make(sizes: Sizes = _SIZES, **settings: object) -> ImplicitActionableModels:
    torch.manual_seed(0)
    return ImplicitActionableModels(ImplicitActionableModelsConfig(**{"hidden": (8,), **settings}), sizes)


def _values(algorithm: ImplicitActionableModels, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Qbar of the data's actions, V and V of the next states, each (B,), in steps."""
    features, following = algorithm.features(batch)
    return algorithm.target_critic(features, batch.action).amin(0), algorithm.value(features), algorithm.value(following)


def test_critic_and_value_losses_by_hand() -> None:
    algorithm, batch = _make(expectile=0.8, steps=10.0), random_batch(0)
    own, value, following = (tensor.detach() for tensor in _values(algorithm, batch))
    q = algorithm.critic(algorithm.features(batch)[0], batch.action).detach()
    targets = []
    for i in range(len(batch)):
        share = min(max(1 + following[i].item() / 10, 0), 1)
        target = batch.reward[i].item() + batch.discount[i].item() * share
        if batch.is_chained[i]:
            target = min(max(1 + own[i].item() / 10, 0), 1)
        targets.append(10 * (max(target, batch.mc_return[i].item()) - 1))
    losses = algorithm.losses(batch)
    expected = sum(sum((t - x) ** 2 for t, x in zip(targets, member, strict=True)) / 16 for member in q.tolist())
    assert losses["critic"].item() == pytest.approx(expected, rel=1e-4)
    differences = (own - value).tolist()
    expected = sum((0.8 if u > 0 else 0.2) * u * u for u in differences) / 16
    assert losses["value"].item() == pytest.approx(expected, rel=1e-4)


def test_the_actor_weighs_by_what_came_nearer_ahead() -> None:
    algorithm, batch = _make(alpha=0.5), random_batch(0)
    goal = batch.actor_goal
    here, ahead = (algorithm.value(algorithm.encoder(o, goal)) for o in (batch.observation, batch.high_actor_target))
    mean, _ = algorithm.actor(algorithm.encoder(batch.observation, goal))
    log_prob = -0.5 * (mean - batch.action).square().sum(1) - 0.5 * ACTION_DIM * math.log(2 * math.pi)
    expected = -((0.5 * (ahead - here)).exp().clamp(max=100) * log_prob).mean()
    torch.testing.assert_close(algorithm.losses(batch)["actor"], expected)


def test_the_actor_follows_the_critic_while_it_imitates() -> None:
    algorithm, batch = _make(actor_loss="ddpgbc", alpha=0.5), random_batch(0)
    features = algorithm.encoder(batch.observation, batch.actor_goal)
    mean, _ = algorithm.actor(features)
    q = algorithm.critic(features, mean.clamp(-1, 1)).amin(0)
    log_prob = -0.5 * (mean - batch.action).square().sum(1) - 0.5 * ACTION_DIM * math.log(2 * math.pi)
    loss = algorithm.losses(batch)["actor"]
    torch.testing.assert_close(loss, -q.mean() / q.abs().mean() - 0.5 * log_prob.mean())
    loss.backward()
    assert all(parameter.grad is None for parameter in algorithm.critic.parameters())
    assert all(parameter.grad is not None for parameter in algorithm.actor.parameters())


def test_no_target_is_less_than_what_the_data_collected_unless_so_asked() -> None:
    batch = dataclasses.replace(random_batch(0), mc_return=torch.ones(16))
    for is_bound in (True, False):
        algorithm = _make(lower_bound=is_bound)
        algorithm.losses(batch)
        assert (algorithm.metrics()["target"] == 1.0) == is_bound


def test_the_share_of_chained_goals_is_told() -> None:
    algorithm, batch = _make(), random_batch(0)
    algorithm.losses(dataclasses.replace(batch, mc_return=(torch.arange(16) % 4 > 0).float()))
    assert algorithm.metrics()["chained"] == 0.25
    assert algorithm.metrics()["chained_ends"] == batch.is_chained.float().mean()


def test_values_propagate_across_two_stitched_episodes() -> None:
    """Episode A walks 0-1-2, B walks 1-2-3-4; from 0 to 4 there is a way that neither went, to 5 there is none."""
    algorithm = _make(Sizes(6, 1, True), hidden=(64, 64), learning_rate=2e-3, target_rate=0.05, steps=10.0)
    batch = two_episodes()
    batch = dataclasses.replace(batch, high_actor_target=batch.next_observation)
    fit(algorithm, lambda _: batch, range(700))
    eye = torch.eye(6)
    features = algorithm.encoder({"state": eye[[3, 1, 0, 0, 2]]}, {"state": eye[[4, 4, 4, 5, 0]]})
    with torch.no_grad():
        value = algorithm._share(algorithm.critic(features, torch.full((5, 1), 0.5)).amin(0))
    assert value[:3].tolist() == pytest.approx([1.0, 0.9**2, 0.9**3], abs=0.12)
    assert value[3:].max() < 0.35


def test_batches_without_chaining_or_what_lies_ahead_and_bad_settings_are_refused() -> None:
    for missing in ("is_chained", "high_actor_target"):
        with pytest.raises(FlywheelError, match="actionable_ahead"):
            _make().losses(dataclasses.replace(random_batch(0), **{missing: None}))
    for settings in ({"expectile": 1.0}, {"steps": 0.0}):
        with pytest.raises(FlywheelError):
            _make(**settings)

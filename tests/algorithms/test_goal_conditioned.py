"""OGBench's agents reach goals, and take a batch apart as their equations say."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from flywheel.algorithms.base import Algorithm, Sizes
from flywheel.algorithms.crl import CRL, CRLConfig
from flywheel.algorithms.gcbc import GCBC, GCBCConfig
from flywheel.algorithms.gciql import GCIQL, GCIQLConfig
from flywheel.algorithms.gcivl import GCIVL, GCIVLConfig, implicit_value_loss
from flywheel.algorithms.hiql import HIQL, HIQLConfig
from flywheel.core import registry
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from tests.algorithms import corridor
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, fit, random_batch

SETTINGS = {
    "gcbc": {},
    "gcivl": {"target_rate": 0.02},
    "gciql": {"alpha": 0.1, "target_rate": 0.02},
    "crl": {"latent_dim": 16, "alpha": 0.3},
    "hiql": {"target_rate": 0.02},
    "implicit_actionable_models": {"target_rate": 0.02},
}


def _make(name: str, sizes: Sizes, **settings: object) -> Algorithm:
    cls = registry.load("algorithms", name, Algorithm)
    return cls(cls.Config(**{"hidden": (64, 64), "learning_rate": 1e-3, **SETTINGS[name], **settings}), sizes)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_goals_of_the_corridor_are_reached(name: str) -> None:
    torch.manual_seed(0)
    data, rng = corridor.episodes(0), np.random.default_rng(0)
    if name == "implicit_actionable_models":
        batches = [corridor.actionable_batch(data, rng, 256, ahead=3) for _ in range(40)]
    else:
        batches = [corridor.hindsight_batch(data, rng, 256, contrastive=name == "crl") for _ in range(40)]
    algorithm = _make(name, Sizes(2, 2, goal_conditioned=True))
    algorithm.set_statistics(torch.tensor([0.5, 0.0]), torch.tensor([0.4, 0.4]))
    fit(algorithm, lambda number: batches[number % 40], range(600)).eval()
    for start, goal in [((0.0, 0.0), (1.0, 0.0)), ((1.0, 0.0), (1.0, 0.8)), ((1.0, 0.0), (1.0, -0.8))]:
        assert corridor.distance_to_goal(algorithm, start, goal) < 0.2, (start, goal)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_without_goals_they_are_refused(name: str) -> None:
    with pytest.raises(FlywheelError, match=f"{name} learns to reach goals"):
        _make(name, Sizes(STATE_DIM, ACTION_DIM))


def test_hiql_without_subgoals_is_refused() -> None:
    batch = dataclasses.replace(random_batch(0), low_actor_goal=None)
    with pytest.raises(FlywheelError, match="hierarchical"):
        _make("hiql", Sizes(STATE_DIM, ACTION_DIM, True)).losses(batch)


def test_gcbc_with_unit_deviation_is_least_squares() -> None:
    algorithm, batch = GCBC(GCBCConfig(hidden=(8,)), Sizes(STATE_DIM, ACTION_DIM, True)), random_batch(0)
    mean, _ = algorithm.actor(algorithm.encoder(batch.observation, batch.actor_goal))
    squares = 0.5 * (mean - batch.action).square().sum(dim=1).mean() + 0.5 * ACTION_DIM * math.log(2 * math.pi)
    torch.testing.assert_close(algorithm.losses(batch)["actor"], squares)


def test_implicit_value_loss_by_hand() -> None:
    """Two members, one row: u = -1 + 0.5 min(-2, -4) - mean(-1, -3) = -1, so its weight is 1 - 0.9."""
    batch = Batch({}, torch.zeros(1, 1), torch.tensor([-1.0]), torch.tensor([0.5]), {})
    value, target = torch.tensor([[-1.5], [-2.5]]), torch.tensor([[-1.0], [-3.0]])
    loss, advantage = implicit_value_loss(batch, value, target, torch.tensor([[-2.0], [-4.0]]), 0.9)
    assert advantage.tolist() == [-1.0]
    assert loss.item() == pytest.approx(0.1 * (-2.0 + 1.5) ** 2 + 0.1 * (-3.0 + 2.5) ** 2)


def test_gciql_actor_losses_by_hand() -> None:
    """ddpgbc: -E[Q]/E|Q| - alpha E[log pi]; awr: -E[min(exp(alpha A), 100) log pi]."""
    batch = random_batch(0)
    for kind in ("ddpgbc", "awr"):
        algorithm = GCIQL(GCIQLConfig(hidden=(8,), actor_loss=kind, alpha=0.7), Sizes(STATE_DIM, ACTION_DIM, True))
        features = algorithm.encoder(batch.observation, batch.actor_goal)
        mean, _ = algorithm.actor(features)
        log_prob = -0.5 * (mean - batch.action).square().sum(1) - 0.5 * ACTION_DIM * math.log(2 * math.pi)
        if kind == "ddpgbc":
            q = algorithm.critic(features, mean.clamp(-1.0, 1.0)).amin(0)
            expected = -q.mean() / q.abs().mean() - 0.7 * log_prob.mean()
        else:
            advantage = algorithm.critic(features, batch.action).amin(0) - algorithm.value(features)
            expected = -((0.7 * advantage).exp() * log_prob).mean()
        torch.testing.assert_close(algorithm.losses(batch)["actor"], expected)


def test_gcivl_weighs_by_the_values_progress() -> None:
    algorithm = GCIVL(GCIVLConfig(hidden=(8,), alpha=2.0), Sizes(STATE_DIM, ACTION_DIM, True))
    batch = random_batch(0)
    here, there = (
        algorithm.value(algorithm.encoder(observation, batch.actor_goal)).squeeze(-1).mean(0)
        for observation in (batch.observation, batch.next_observation)
    )
    mean, _ = algorithm.actor(algorithm.encoder(batch.observation, batch.actor_goal))
    log_prob = -0.5 * (mean - batch.action).square().sum(1) - 0.5 * ACTION_DIM * math.log(2 * math.pi)
    expected = -((2.0 * (there - here)).exp().clamp(max=100) * log_prob).mean()
    torch.testing.assert_close(algorithm.losses(batch)["actor"], expected)


def test_crl_contrasts_every_row_with_every_goal() -> None:
    """With all logits 0 each pair costs log 2."""
    algorithm = CRL(CRLConfig(hidden=(8,), latent_dim=4), Sizes(STATE_DIM, ACTION_DIM, True))
    algorithm.critic.phi.zero_output()
    assert algorithm.losses(random_batch(0))["critic"].item() == pytest.approx(math.log(2))


def test_hiqls_representation_lies_on_a_sphere_and_learns_with_the_value_alone() -> None:
    algorithm = HIQL(HIQLConfig(hidden=(8,), representation_dim=6), Sizes(STATE_DIM, ACTION_DIM, True))
    batch = random_batch(0)
    point = algorithm.value.represent(algorithm.encoder(batch.observation, batch.goal))
    torch.testing.assert_close(point.norm(dim=1), torch.full((16,), math.sqrt(6)))
    losses = algorithm.losses(batch)
    (losses["actor"] + losses["high_actor"]).backward()
    assert all(parameter.grad is None for parameter in algorithm.value.parameters())


def test_hiqls_lower_actor_is_no_start_for_others_whose_goals_have_its_representations_size() -> None:
    hiql = _make("hiql", Sizes(STATE_DIM, ACTION_DIM, True))
    assert not _make("gcbc", Sizes(STATE_DIM, ACTION_DIM, True)).load_pretrained(hiql.acting_state())
    assert not any(name.startswith("actor.") for name in hiql.acting_state())


def test_both_of_hiqls_actors_are_averaged() -> None:
    algorithm = _make("hiql", Sizes(STATE_DIM, ACTION_DIM, True), average_rate=0.5)
    batch = random_batch(1)
    before = algorithm.act(batch.observation, batch.goal, True)
    fit(algorithm, random_batch, range(1))
    for average, actor in ((algorithm.average_actor, algorithm.actor), (algorithm.average_high_actor, algorithm.high_actor)):
        assert not torch.equal(average.mean.weight, actor.mean.weight)
    assert not torch.equal(algorithm.act(batch.observation, batch.goal, True), before)
    held = algorithm.act(batch.observation, batch.goal, True)
    with torch.no_grad():
        algorithm.high_actor.mean.bias.add_(1.0)
        algorithm.actor.mean.bias.add_(1.0)
    assert torch.equal(algorithm.act(batch.observation, batch.goal, True), held)

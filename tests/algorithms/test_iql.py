from __future__ import annotations

import dataclasses

import torch

from flywheel.algorithms.base import Sizes
from flywheel.algorithms.iql import IQL, IQLConfig
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, random_batch


def _iql() -> IQL:
    return IQL(IQLConfig(hidden=(16, 16)), Sizes(STATE_DIM, ACTION_DIM, False))


def test_defaults_are_the_official_ones() -> None:
    config = IQLConfig()
    assert (config.expectile, config.inverse_temperature, config.learning_rate) == (0.7, 3.0, 3e-4)
    assert (config.target_rate, config.hidden) == (0.005, (256, 256))


def test_losses_are_the_papers() -> None:
    """Equations 5 to 7 written out again, row by row."""
    algorithm, batch = _iql(), random_batch(0)
    torch.nn.init.normal_(algorithm.target_critic.output.weight)  # so that target and critic differ
    losses = algorithm.losses(batch)
    state, following = batch.observation["state"], batch.next_observation["state"]
    with torch.no_grad():
        least = torch.minimum(*algorithm.target_critic(state, batch.action))
        advantage = least - algorithm.value(state)
        value = sum((0.7 if u > 0 else 0.3) * u**2 for u in advantage) / len(batch)
        target = batch.reward + batch.discount * algorithm.value(following)
        critic = sum(((target - q) ** 2).mean() for q in algorithm.critic(state, batch.action))
        mean, log_std = algorithm.actor(state)
        log_prob = torch.distributions.Normal(mean, log_std.exp()).log_prob(batch.action).sum(1)
        actor = -(torch.minimum((3.0 * advantage).exp(), torch.tensor(100.0)) * log_prob).mean()
    for name, expected in (("value", value), ("critic", critic), ("actor", actor)):
        torch.testing.assert_close(losses[name].detach(), expected)


def test_a_terminal_row_does_not_look_at_what_follows() -> None:
    algorithm, batch = _iql(), random_batch(0)
    terminal = dataclasses.replace(batch, discount=torch.zeros_like(batch.discount))
    moved = dataclasses.replace(terminal, next_observation={"state": batch.next_observation["state"] + 100})
    assert torch.equal(algorithm.losses(terminal)["critic"], algorithm.losses(moved)["critic"])

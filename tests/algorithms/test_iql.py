from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from flywheel.algorithms.base import Sizes
from flywheel.algorithms.iql import IQL, IQLConfig
from flywheel.core.errors import FlywheelError
from tests.algorithms import hand
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, random_batch
from tests.algorithms.hand import DISCOUNT, FOLLOWING, HIDDEN, SIZES, A, R, S, q


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


def test_losses_by_hand() -> None:
    """The first row's advantage is positive, the others' are negative."""
    algorithm = IQL(IQLConfig(hidden=HIDDEN), SIZES)
    online, target = ((0.3, -0.1), (0.5, 2.0)), ((0.2, 0.4), (1.0, 1.5))
    hand.set_critic(algorithm.critic, *online)
    hand.set_critic(algorithm.target_critic, *target)
    hand.set_value(algorithm.value, 0.5)
    hand.set_actor(algorithm.actor, 0.3, -0.7)
    advantage = q(*target, S, A).min(axis=0) - (0.5 + S)
    assert (advantage > 0).tolist() == [True, False, False]
    log_prob = -0.5 * ((A - np.tanh(0.3)) / np.exp(-0.7)) ** 2 + 0.7 - 0.5 * np.log(2 * np.pi)
    expected = {
        "value": np.mean(np.where(advantage > 0, 0.7, 0.3) * advantage**2),
        "critic": sum(np.mean((R + DISCOUNT * (0.5 + FOLLOWING) - values) ** 2) for values in q(*online, S, A)),
        "actor": -np.mean(np.exp(3 * advantage) * log_prob),
    }
    losses = algorithm.losses(hand.three_rows())
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-5)


def test_the_actor_that_follows_the_critic_by_hand() -> None:
    algorithm = IQL(IQLConfig(hidden=HIDDEN, actor_loss="ddpgbc", imitation_weight=0.2), SIZES)
    online = (0.3, -0.1), (0.5, 2.0)
    hand.set_critic(algorithm.critic, *online)
    hand.set_actor(algorithm.actor, 0.3, -0.7)
    values = q(*online, S, np.full_like(A, np.tanh(0.3))).min(axis=0)
    log_prob = -0.5 * ((A - np.tanh(0.3)) / np.exp(-0.7)) ** 2 + 0.7 - 0.5 * np.log(2 * np.pi)
    loss = algorithm.losses(hand.three_rows())["actor"]
    assert loss.item() == pytest.approx(-np.mean(values) / np.mean(np.abs(values)) - 0.2 * np.mean(log_prob), rel=1e-5)
    loss.backward()
    assert all(parameter.grad is None for parameter in algorithm.critic.parameters())


def test_failures_are_not_imitated_by_hand() -> None:
    algorithm = IQL(IQLConfig(hidden=HIDDEN, imitate="successes"), SIZES)
    hand.set_actor(algorithm.actor, 0.3, -0.7)
    batch = dataclasses.replace(hand.three_rows(), mc_return=torch.tensor([0.0, 0.9, 0.5]))
    log_prob = -0.5 * ((A - np.tanh(0.3)) / np.exp(-0.7)) ** 2 + 0.7 - 0.5 * np.log(2 * np.pi)
    with torch.no_grad():
        advantage = (
            algorithm.target_critic(batch.observation["state"], batch.action).amin(0)
            - algorithm.value(batch.observation["state"])
        ).numpy()
    expected = -np.mean((np.exp(3 * advantage) * log_prob)[1:])
    assert algorithm.losses(batch)["actor"].item() == pytest.approx(expected, rel=1e-5)
    assert algorithm.metrics()["imitated"].item() == pytest.approx(2 / 3)
    nothing = dataclasses.replace(batch, mc_return=torch.zeros(3))
    assert algorithm.losses(nothing)["actor"].item() == 0
    with pytest.raises(FlywheelError, match="use the relabelling 'task'"):
        algorithm.losses(dataclasses.replace(batch, mc_return=None))

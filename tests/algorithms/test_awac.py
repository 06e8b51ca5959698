from __future__ import annotations

import numpy as np
import pytest
import torch

from flywheel.algorithms.awac import AWAC, AWACConfig
from tests.algorithms import hand
from tests.algorithms.hand import DISCOUNT, FOLLOWING, HIDDEN, SIZES, A, R, S, q

ONLINE, TARGET = ((0.3, -0.1), (0.5, 2.0)), ((0.2, 0.4), (1.0, -1.5))
MEAN, LOG_STD = 0.3, -0.7
SHIFT = 8.0
"""What `hand` adds to the hidden unit."""


def _awac(**settings: object) -> AWAC:
    algorithm = AWAC(AWACConfig(hidden=HIDDEN, **settings), SIZES)
    hand.set_critic(algorithm.critic, *ONLINE)
    hand.set_critic(algorithm.target_critic, *TARGET)
    hand.set_actor(algorithm.actor, MEAN, LOG_STD)
    _add_the_state(algorithm.actor)
    return algorithm


@torch.no_grad()
def _add_the_state(actor: torch.nn.Module) -> None:
    """Make the mean tanh(MEAN + s), so that actions at s and at s' differ; the hidden unit stays where relu is linear."""
    actor.hidden.layers[0].weight.fill_(1.0)
    actor.hidden.layers[0].bias.fill_(SHIFT)
    actor.mean.weight.fill_(1.0)
    actor.mean.bias.sub_(SHIFT)


def test_defaults_are_corls() -> None:
    config = AWACConfig()
    assert (config.inverse_temperature, config.learning_rate, config.target_rate) == (1.0, 3e-4, 0.005)


@pytest.mark.parametrize("inverse_temperature", [1.0, 3.0])
def test_losses_by_hand(inverse_temperature: float) -> None:
    """The actor that learns draws the actions, not its average, which acts and is another here."""
    algorithm = _awac(inverse_temperature=inverse_temperature, average_rate=0.25)
    torch.manual_seed(4)
    losses = algorithm.losses(hand.three_rows())
    torch.manual_seed(4)
    following, own = (
        np.clip(np.tanh(MEAN + state) + np.exp(LOG_STD) * hand.normal(3, 1, 1)[:, 0, 0], -1, 1) for state in (FOLLOWING, S)
    )

    target = R + DISCOUNT * q(*TARGET, FOLLOWING, following).min(axis=0)
    critic = sum(np.mean((values - target) ** 2) for values in q(*ONLINE, S, A))
    advantage = q(*ONLINE, S, A).min(axis=0) - q(*ONLINE, S, own).min(axis=0)
    weight = np.exp(inverse_temperature * advantage)
    log_prob = -0.5 * ((A - np.tanh(MEAN + S)) / np.exp(LOG_STD)) ** 2 - LOG_STD - 0.5 * np.log(2 * np.pi)
    assert losses["critic"].item() == pytest.approx(critic, rel=1e-5)
    assert losses["actor"].item() == pytest.approx(-np.mean(weight * log_prob), rel=1e-5)


def test_no_row_weighs_more_than_a_hundred() -> None:
    """The data's actions are better than the actor's own by far more than exp can hold."""
    algorithm, batch = _awac(inverse_temperature=1000.0), hand.three_rows()
    hand.set_critic(algorithm.critic, (0.0, 0.0), (-1.0, -1.0))
    hand.set_actor(algorithm.actor, 5.0, -5.0)
    algorithm.losses(batch)
    assert algorithm.metrics()["weight"].item() == 100.0


def test_the_average_actor_and_the_targets_follow_slowly() -> None:
    algorithm = _awac(average_rate=0.25, target_rate=0.5)
    with torch.no_grad():
        algorithm.average_actor.log_std.fill_(LOG_STD + 1.0)
    algorithm.after_step()
    assert algorithm.average_actor.log_std.item() == pytest.approx(LOG_STD + 0.75)
    expected = (np.mean([ONLINE[0][k], TARGET[0][k]]) - SHIFT for k in range(2))
    assert algorithm.target_critic.output.bias.flatten().tolist() == pytest.approx(list(expected))


def test_targets_follow_a_pretrained_critic() -> None:
    algorithm = _awac()
    algorithm.synchronise_targets()
    for online, target in zip(algorithm.critic.parameters(), algorithm.target_critic.parameters(), strict=True):
        assert torch.equal(online, target)

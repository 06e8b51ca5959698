"""CQL's and Cal-QL's losses from numbers: they differ in the returns below which nothing is pushed down."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from flywheel.algorithms.cal_ql import CalQL, CalQLConfig
from flywheel.algorithms.cql import CQL, CQLConfig
from flywheel.core.errors import FlywheelError
from tests.algorithms import hand
from tests.algorithms.hand import DISCOUNT, FOLLOWING, HIDDEN, RETURN, SIZES, A, R, S, q

ONLINE, TARGET = ((0.3, -0.1), (0.5, 2.0)), ((0.2, 0.4), (1.0, -1.5))
MEAN, LOG_STD, LOG_TEMPERATURE, LOG_MULTIPLIER = 0.3, -0.7, 0.2, 0.4
N = 2
FORMS = [
    (CQL, {}),
    (CQL, {"max_target_backup": True}),
    (CQL, {"importance_sampling": False}),
    (CQL, {"lagrange_threshold": 1.5}),
    (CalQL, {}),
    (CalQL, {"max_target_backup": False, "lagrange_threshold": 1.5}),
]


def _make(cls: type[CQL], **settings: object) -> CQL:
    algorithm = cls(cls.Config(hidden=HIDDEN, n_actions=N, **settings), SIZES)
    hand.set_critic(algorithm.critic, *ONLINE)
    hand.set_critic(algorithm.target_critic, *TARGET)
    hand.set_actor(algorithm.actor, MEAN, LOG_STD)
    algorithm.log_temperature.data.fill_(LOG_TEMPERATURE)
    if algorithm.config.lagrange_threshold is not None:
        algorithm.log_multiplier.data.fill_(LOG_MULTIPLIER)
    return algorithm


def _policys(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The next draws of tanh(N(mean, std)) and their log densities, (3, count)."""
    noise = hand.normal(3, count, 1)[:, :, 0]
    action = np.tanh(MEAN + np.exp(LOG_STD) * noise)
    return action, -0.5 * noise**2 - LOG_STD - 0.5 * np.log(2 * np.pi) - np.log(1 - action**2)


@pytest.mark.parametrize(("cls", "settings"), FORMS)
def test_losses_by_hand(cls: type[CQL], settings: dict[str, object]) -> None:
    algorithm = _make(cls, **settings)
    config = algorithm.config
    torch.manual_seed(5)
    losses = algorithm.losses(hand.three_rows())
    torch.manual_seed(5)
    following, _ = _policys(N if config.max_target_backup else 1)
    uniform = torch.empty(3, N, 1).uniform_(-1, 1).numpy()[:, :, 0].astype(float)
    (current, log_current), (at_next, log_at_next), (own, log_own) = _policys(N), _policys(N), _policys(1)

    target = R + DISCOUNT * q(*TARGET, FOLLOWING, following).min(axis=0).max(axis=1)
    floor = RETURN[:, None] if cls is CalQL else -np.inf
    densities = [np.full((3, N), np.log(0.5)), log_current, log_at_next]
    values = [q(*ONLINE, S, uniform), np.maximum(q(*ONLINE, S, current), floor), np.maximum(q(*ONLINE, S, at_next), floor)]
    weighted = np.concatenate(
        [value - config.importance_sampling * density for value, density in zip(values, densities, strict=True)], axis=2
    )
    gaps = np.mean(np.log(np.exp(weighted).sum(axis=2)) - q(*ONLINE, S, A), axis=1)
    td = sum(np.mean((values - target) ** 2) for values in q(*ONLINE, S, A))
    conservative = config.conservative_weight * gaps.sum()
    expected = {
        "actor": np.mean(np.exp(LOG_TEMPERATURE) * log_own[:, 0] - q(*ONLINE, S, own[:, 0]).min(axis=0)),
        "temperature": -np.exp(LOG_TEMPERATURE) * np.mean(log_own - 1.0),  # the target entropy of one dimension is -1
    }
    if config.lagrange_threshold is None:
        expected["critic"] = td + conservative
    else:
        excess = np.exp(LOG_MULTIPLIER) * (conservative - 2 * config.lagrange_threshold)
        expected |= {"critic": td + excess, "multiplier": -excess}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4)


def test_only_uniform_actions_are_pushed_down_below_the_returns() -> None:
    """Returns far above every value: the log-sum-exp stands still, and what is left of the term lifts the data's values."""
    algorithm = _make(CalQL, conservative_weight=1.0)
    batch = dataclasses.replace(hand.three_rows(), mc_return=torch.full((3,), 50.0))
    torch.manual_seed(5)
    algorithm.losses(batch)["critic"].backward()
    with_term = algorithm.critic.output.bias.grad.flatten()
    algorithm.zero_grad()
    algorithm.config = dataclasses.replace(algorithm.config, conservative_weight=0.0)
    torch.manual_seed(5)
    algorithm.losses(batch)["critic"].backward()
    torch.testing.assert_close(with_term - algorithm.critic.output.bias.grad.flatten(), torch.full((2,), -1.0))


def test_defaults_are_the_official_ones() -> None:
    shared = {"actor_learning_rate": 1e-4, "critic_learning_rate": 3e-4, "conservative_weight": 5.0, "n_actions": 10}
    for config in (CQLConfig(), CalQLConfig()):
        assert {name: getattr(config, name) for name in shared} == shared
    assert CalQLConfig().max_target_backup
    assert not CQLConfig().max_target_backup


def test_a_batch_without_returns_is_refused() -> None:
    with pytest.raises(FlywheelError, match="returns"):
        _make(CalQL).losses(dataclasses.replace(hand.three_rows(), mc_return=None))

from __future__ import annotations

import numpy as np
import pytest
import torch

from flywheel.algorithms.bear import BEAR, BEARConfig
from tests.algorithms import hand
from tests.algorithms.batches import fit
from tests.algorithms.hand import DISCOUNT, FOLLOWING, HIDDEN, SIZES, A, R, S, q

ONLINE, TARGET = ((0.3, -0.1), (0.5, 2.0)), ((0.2, 0.4), (1.0, -1.5))
POLICY, TARGET_POLICY = (0.3, -0.7), (-0.4, -0.2)
DECODED, LATENT_MEAN, LATENT_LOG_STD = 0.8, 0.3, -0.5
SIGMA, MMDS, ACTIONS, LOG_MULTIPLIER = 3.0, 4, 5, 0.4


def _bear(**settings: object) -> BEAR:
    settings = {"hidden": HIDDEN, "mmd_sigma": SIGMA, "n_mmd_samples": MMDS, "n_actions": ACTIONS, "warm_up": 0, **settings}
    algorithm = BEAR(BEARConfig(**settings), SIZES)
    hand.set_critic(algorithm.critic, *ONLINE)
    hand.set_critic(algorithm.target_critic, *TARGET)
    hand.set_actor(algorithm.actor, *POLICY)
    hand.set_actor(algorithm.target_actor, *TARGET_POLICY)
    for parameter in algorithm.behaviour.parameters():
        parameter.data.zero_()
    for layer, value in (("action", DECODED), ("mean", LATENT_MEAN), ("log_std", LATENT_LOG_STD)):
        getattr(algorithm.behaviour, layer).bias.data.fill_(value)
    algorithm.log_multiplier.data.fill_(LOG_MULTIPLIER)
    return algorithm


def _before_tanh(policy: tuple[float, float], count: int) -> np.ndarray:
    """The next draws, (3, count)."""
    return policy[0] + np.exp(policy[1]) * hand.normal(3, count, 1)[:, :, 0]


def _mean_mmd(own: np.ndarray) -> float:
    """From the behaviour, which always decodes the same action."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.exp(-np.abs(x[:, :, None] - y[:, None]) / (2 * SIGMA)).mean((1, 2))

    other = np.full((3, MMDS), DECODED)
    return float(np.sqrt(kernel(own, own) + kernel(other, other) - 2 * kernel(own, other) + 1e-6).mean())


@pytest.mark.parametrize("warm_up", [0, 1])
def test_losses_by_hand(warm_up: int) -> None:
    algorithm = _bear(warm_up=warm_up)
    torch.manual_seed(7)
    losses = algorithm.losses(hand.three_rows())
    torch.manual_seed(7)
    following = q(*TARGET, FOLLOWING, np.tanh(_before_tanh(TARGET_POLICY, ACTIONS)))
    target = R + DISCOUNT * (0.75 * following.min(axis=0) + 0.25 * following.max(axis=0)).max(axis=1)
    hand.normal(3, MMDS, 2)  # the behaviour's latents
    own = _before_tanh(POLICY, MMDS)
    excess = np.exp(LOG_MULTIPLIER) * (_mean_mmd(own) - 0.05)
    ascent = q(*ONLINE, S, np.tanh(own)).min(axis=0).mean() if warm_up == 0 else 0.0
    divergence = -0.5 * (1 + 2 * LATENT_LOG_STD - LATENT_MEAN**2 - np.exp(2 * LATENT_LOG_STD))
    expected = {
        "critic": sum(np.mean((values - target) ** 2) for values in q(*ONLINE, S, A)),
        "behaviour": np.mean((np.tanh(DECODED) - A) ** 2) + 0.5 * divergence,
        "actor": excess - ascent,
        "multiplier": -excess,
    }
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4)


def test_the_multiplier_rises_while_the_policy_is_too_far_away() -> None:
    for threshold, rises in ((0.0, True), (10.0, False)):
        algorithm = _bear(threshold=threshold)
        fit(algorithm, lambda _: hand.three_rows(), range(1))
        assert (algorithm.log_multiplier.item() > LOG_MULTIPLIER) == rises


def test_the_multiplier_stays_in_its_range() -> None:
    algorithm = _bear()
    for log_multiplier, kept in ((-7.0, -5.0), (12.0, 10.0)):
        algorithm.log_multiplier.data.fill_(log_multiplier)
        algorithm.after_step()
        assert algorithm.log_multiplier.item() == kept


def test_the_warm_up_ends_after_so_many_updates() -> None:
    algorithm = _bear(warm_up=2)
    turns = []
    for _ in range(4):
        turns.append(algorithm.ascent.is_on)
        algorithm.after_step()
    assert turns == [False, False, True, True]


def test_the_target_policy_follows_slowly() -> None:
    algorithm = _bear(target_rate=0.25)
    algorithm.after_step()
    assert algorithm.target_actor.mean.bias.item() == pytest.approx(0.75 * TARGET_POLICY[0] + 0.25 * POLICY[0])


def test_it_acts_with_the_best_of_its_samples() -> None:
    algorithm = _bear()
    hand.set_critic(algorithm.critic, (0.0, 0.0), (-1.0, -2.0))  # the smallest action is the best
    action = algorithm.act({"state": torch.zeros(1, 1)}, None, deterministic=True)
    assert action.item() == pytest.approx(np.tanh(POLICY[0] + np.exp(POLICY[1]) * algorithm._noise.min().item()))


def test_defaults_are_the_papers_and_d3rlpys() -> None:
    config = BEARConfig()
    assert (config.threshold, config.mmd_sigma, config.n_mmd_samples, config.soft_minimum) == (0.05, 20.0, 4, 0.75)
    assert (config.n_actions, config.warm_up, config.multiplier_learning_rate) == (10, 40_000, 1e-3)

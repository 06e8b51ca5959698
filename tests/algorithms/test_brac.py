from __future__ import annotations

import numpy as np
import pytest
import torch

from flywheel.algorithms.brac import BRAC, BRACConfig
from tests.algorithms import hand
from tests.algorithms.hand import DISCOUNT, FOLLOWING, HIDDEN, SIZES, A, R, S, q

ONLINE, TARGET = ((0.3, -0.1), (0.5, 2.0)), ((0.2, 0.4), (1.0, -1.5))
POLICY, BEHAVIOUR = (0.3, -0.7), (-0.4, -0.2)
ALPHA, SIGMA, N = 0.5, 3.0, 4


def _brac(**settings: object) -> BRAC:
    settings = {"hidden": HIDDEN, "alpha": ALPHA, "mmd_sigma": SIGMA, "n_divergence_samples": N, "warm_up": 0, **settings}
    algorithm = BRAC(BRACConfig(**settings), SIZES)
    hand.set_critic(algorithm.critic, *ONLINE)
    hand.set_critic(algorithm.target_critic, *TARGET)
    hand.set_actor(algorithm.actor, *POLICY)
    hand.set_actor(algorithm.behaviour, *BEHAVIOUR)
    return algorithm


def _log_density(mean: float, log_std: float, action: np.ndarray) -> np.ndarray:
    standardised = (np.arctanh(action) - mean) / np.exp(log_std)
    return -0.5 * standardised**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - action**2)


def _actions(policy: tuple[float, float], count: int) -> np.ndarray:
    """The next draws, (3, count)."""
    return np.tanh(policy[0] + np.exp(policy[1]) * hand.normal(3, count, 1)[:, :, 0])


def _divergence(name: str) -> np.ndarray:
    """Of the next draws, (3,)."""
    own = _actions(POLICY, N)
    if name == "kl":
        near_bounds = np.clip(own, -0.999, 0.999)
        return (_log_density(*POLICY, own) - _log_density(*BEHAVIOUR, near_bounds)).mean(axis=1)
    other = _actions(BEHAVIOUR, N)
    kernel = [
        np.exp(-np.abs(x[:, :, None] - y[:, None]) / SIGMA).mean((1, 2)) for x, y in ((own, own), (other, other), (own, other))
    ]
    return kernel[0] + kernel[1] - 2 * kernel[2]


@pytest.mark.parametrize("divergence", ["kl", "mmd"])
@pytest.mark.parametrize("penalty", ["value", "policy"])
def test_losses_by_hand(penalty: str, divergence: str) -> None:
    algorithm = _brac(penalty=penalty, divergence=divergence)
    torch.manual_seed(6)
    losses = algorithm.losses(hand.three_rows())
    torch.manual_seed(6)
    next_value = q(*TARGET, FOLLOWING, _actions(POLICY, 1)[:, 0]).min(axis=0)
    if penalty == "value":
        next_value -= ALPHA * _divergence(divergence)
    target = R + DISCOUNT * next_value
    here = _divergence(divergence).mean()
    ascent = q(*ONLINE, S, _actions(POLICY, 1)[:, 0]).min(axis=0).mean()
    expected = {
        "critic": sum(np.mean((values - target) ** 2) for values in q(*ONLINE, S, A)),
        "behaviour": -_log_density(*BEHAVIOUR, A).mean(),
        "actor": ALPHA * here - ascent,
    }
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("divergence", ["kl", "mmd"])
def test_the_actors_gradient_passes_through_samples_and_densities(divergence: str) -> None:
    """With equal draws the loss is a function of the mean, and nothing in it is held still but the critics and the behaviour."""
    losses = []
    for shift in (-0.01, 0.01, 0.0):
        algorithm = _brac(divergence=divergence)
        hand.set_actor(algorithm.actor, POLICY[0] + shift, POLICY[1])
        torch.manual_seed(6)
        losses.append(algorithm.losses(hand.three_rows())["actor"])
    losses[-1].backward()
    slope = (losses[1].item() - losses[0].item()) / 0.02
    assert algorithm.actor.mean.bias.grad.item() == pytest.approx(slope, rel=2e-3)


def test_while_it_warms_up_the_policy_only_imitates() -> None:
    algorithm = _brac(warm_up=2)
    for climbs in (False, False, True):
        algorithm.zero_grad()
        torch.manual_seed(6)
        losses = algorithm.losses(hand.three_rows())
        imitation = ALPHA * algorithm.metrics()["divergence"].item()
        assert (losses["actor"].item() != pytest.approx(imitation)) == climbs
        algorithm.after_step()


def test_the_end_of_the_warm_up_is_saved() -> None:
    algorithm, resumed = _brac(warm_up=2), _brac(warm_up=2)
    for _ in range(2):
        algorithm.after_step()
    assert not resumed.ascent.is_on
    resumed.load_state_dict(algorithm.state_dict())
    assert resumed.ascent.is_on


def test_defaults_are_the_official_ones() -> None:
    config = BRACConfig()
    assert (config.alpha, config.n_divergence_samples, config.mmd_sigma, config.warm_up) == (0.1, 4, 20.0, 20_000)
    assert (config.actor_learning_rate, config.critic_learning_rate, config.target_rate) == (3e-4, 1e-3, 0.005)

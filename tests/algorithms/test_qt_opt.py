from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from flywheel.algorithms.qt_opt import QTOpt, QTOptConfig
from flywheel.core.errors import FlywheelError
from tests.algorithms import hand
from tests.algorithms.hand import DISCOUNT, FOLLOWING, HIDDEN, SIZES, A, S

ONLINE, TARGET = (0.3, 2.0), (0.2, -1.5)
SAMPLES, ELITES, ROUNDS = 8, 3, 2


def _qt_opt(**settings: object) -> QTOpt:
    settings = {"hidden": HIDDEN, "cem_samples": SAMPLES, "cem_elites": ELITES, "cem_iterations": ROUNDS, **settings}
    algorithm = QTOpt(QTOptConfig(**settings), SIZES)
    for critic, (at_zero, slope) in ((algorithm.critic, ONLINE), (algorithm.target_critic, TARGET)):
        hand.set_critic(critic, (at_zero,), (slope,))
    return algorithm


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def _logit(line: tuple[float, float], state: np.ndarray, action: np.ndarray) -> np.ndarray:
    return line[0] + state + line[1] * action


def _smallest_action() -> np.ndarray:
    """What the search finds with the next draws where the value falls with the action, (3,)."""
    mean, std = np.zeros((3, 1)), np.ones((3, 1))
    for _ in range(ROUNDS):
        candidates = np.clip(mean + std * hand.normal(3, SAMPLES, 1)[:, :, 0], -1, 1)
        elites = np.sort(candidates, axis=1)[:, :ELITES]
        mean, std = elites.mean(axis=1, keepdims=True), elites.std(axis=1, keepdims=True, ddof=1)
    return elites[:, 0]


@pytest.mark.parametrize("lagged", [(0.1, 0.5), (3.0, 0.5)])
def test_losses_by_hand(lagged: tuple[float, float]) -> None:
    """The average critic chooses the action, and the smaller of it and its older copy values it: the latter, then the former."""
    algorithm, rewards = _qt_opt(), np.array([0.9, 1.0, 0.05])
    hand.set_critic(algorithm.lagged_critic, lagged[:1], lagged[1:])
    torch.manual_seed(8)
    batch = dataclasses.replace(hand.three_rows(), reward=torch.tensor(rewards, dtype=torch.float32))
    losses = algorithm.losses(batch)
    torch.manual_seed(8)
    action = _smallest_action()
    both = _logit(TARGET, FOLLOWING, action), _logit(lagged, FOLLOWING, action)
    assert (both[0] > both[1]).all() == (lagged == (0.1, 0.5))
    target = rewards + DISCOUNT * _sigmoid(np.minimum(*both))
    assert (target > 1).tolist() == [True, False, False]
    q = _sigmoid(_logit(ONLINE, S, A))
    entropy = -(np.minimum(target, 1) * np.log(q) + (1 - np.minimum(target, 1)) * np.log(1 - q))
    assert losses["critic"].item() == pytest.approx(entropy.mean(), rel=1e-5)


def test_the_older_copy_is_renewed_now_and_then() -> None:
    algorithm = _qt_opt(lag=3, target_rate=0.1)
    equal = []
    for _ in range(5):
        algorithm.after_step()
        equal.append(torch.equal(algorithm.lagged_critic.output.bias, algorithm.target_critic.output.bias))
    assert equal == [True, False, False, True, False]


def test_rewards_that_are_no_probabilities_are_refused() -> None:
    batch = hand.three_rows()
    for reward in (-1.0, 2.0):
        with pytest.raises(FlywheelError, match=r"\[0, 1\]"):
            _qt_opt().losses(dataclasses.replace(batch, reward=torch.full_like(batch.reward, reward)))


def test_it_acts_with_the_best_action_of_the_online_critic() -> None:
    action = _qt_opt(cem_samples=64, cem_elites=6).act({"state": torch.zeros(2, 1)}, None, deterministic=True)
    assert action.tolist() == pytest.approx(np.ones((2, 1)), abs=0.05)

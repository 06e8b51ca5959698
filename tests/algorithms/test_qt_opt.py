from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from flywheel.algorithms.qt_opt import QTOpt, QTOptConfig
from flywheel.core.errors import FlywheelError
from tests.algorithms import hand
from tests.algorithms.hand import DISCOUNT, FOLLOWING, HIDDEN, SIZES, A, R, S

ONLINE, TARGET, LAGGED = (0.3, 2.0), (0.2, -1.5), (0.1, 0.5)
SAMPLES, ELITES, ROUNDS = 8, 3, 2


def _qt_opt(**settings: object) -> QTOpt:
    settings = {"hidden": HIDDEN, "cem_samples": SAMPLES, "cem_elites": ELITES, "cem_iterations": ROUNDS, **settings}
    algorithm = QTOpt(QTOptConfig(**settings), SIZES)
    for critic, (at_zero, slope) in (
        (algorithm.critic, ONLINE),
        (algorithm.target_critic, TARGET),
        (algorithm.lagged_critic, LAGGED),
    ):
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


def test_losses_by_hand() -> None:
    """The average critic chooses the action, and the smaller of it and its older copy values it."""
    algorithm = _qt_opt()
    torch.manual_seed(8)
    losses = algorithm.losses(hand.three_rows())
    torch.manual_seed(8)
    action = _smallest_action()
    both = _logit(TARGET, FOLLOWING, action), _logit(LAGGED, FOLLOWING, action)
    target = np.minimum(R + DISCOUNT * _sigmoid(np.minimum(*both)), 1.0)
    q = _sigmoid(_logit(ONLINE, S, A))
    entropy = -(target * np.log(q) + (1 - target) * np.log(1 - q))
    assert losses["critic"].item() == pytest.approx(entropy.mean(), rel=1e-5)
    assert target[1] == 1.0  # it ends with a success


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

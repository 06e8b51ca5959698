from __future__ import annotations

import numpy as np
import pytest
import torch

from flywheel.algorithms.base import Sizes
from flywheel.algorithms.discrete_cql import DiscreteCQL, DiscreteCQLConfig
from flywheel.core.batch import Batch
from flywheel.networks.critics import Ensemble
from tests.algorithms.hand import DISCOUNT, FOLLOWING, R, S, three_rows

ONLINE = np.array([[0.3, 2.5, 0.7], [0.4, -1.0, 0.7]])
TARGET = np.array([[1.0, -0.5, 0.2], [0.6, 0.7, -0.3]])
SLOPES = np.array([1.0, -1.0, 0.5])
CHOSEN = np.array([2, 0, 1])
_SHIFT = 8.0


@torch.no_grad()
def _set(ensemble: Ensemble, table: np.ndarray) -> None:
    """Q_k(s, a) = table[k, a] + SLOPES[a] s, by one hidden unit of s + 8."""
    ensemble.hidden[0].weight.fill_(1.0)
    ensemble.hidden[0].bias.fill_(_SHIFT)
    ensemble.output.weight.copy_(torch.tensor(SLOPES).expand(2, 1, 3))
    ensemble.output.bias.copy_(torch.tensor(table - _SHIFT * SLOPES)[:, None])


def _values(table: np.ndarray, state: np.ndarray) -> np.ndarray:
    """(K, B, A)."""
    return table[:, None] + SLOPES * state[None, :, None]


def _make(weight: float) -> DiscreteCQL:
    algorithm = DiscreteCQL(DiscreteCQLConfig(hidden=(1,), conservative_weight=weight), Sizes(1, 3))
    _set(algorithm.critic, ONLINE)
    _set(algorithm.target_critic, TARGET)
    return algorithm


def _batch() -> Batch:
    rows = three_rows()
    action = torch.nn.functional.one_hot(torch.tensor(CHOSEN), 3).float()
    return Batch(rows.observation, action, rows.reward, rows.discount, rows.next_observation)


@pytest.mark.parametrize("weight", [0.0, 1.0, 4.0])
def test_losses_by_hand(weight: float) -> None:
    """The critics choose the next action, the targets value it."""
    best = _values(ONLINE, FOLLOWING).min(axis=0).argmax(axis=1)
    others = _values(ONLINE, FOLLOWING).max(axis=0), _values(TARGET, FOLLOWING).min(axis=0)
    assert all((best != other.argmax(axis=1))[DISCOUNT > 0].all() for other in others)
    rows = np.arange(3)
    target = R + DISCOUNT * _values(TARGET, FOLLOWING)[:, rows, best].min(axis=0)
    values = _values(ONLINE, S)
    q = values[:, rows, CHOSEN]
    gap = np.log(np.exp(values).sum(axis=2)) - q
    expected = ((q - target) ** 2 + weight * gap).mean(axis=1).sum()
    assert _make(weight).losses(_batch())["critic"].item() == pytest.approx(expected, rel=1e-5)


def test_it_acts_with_the_smaller_critics_best_action() -> None:
    action = _make(1.0).act({"state": torch.zeros(1, 1)}, None, deterministic=True)
    assert action.tolist() == [np.eye(3)[ONLINE.min(axis=0).argmax()].tolist()]

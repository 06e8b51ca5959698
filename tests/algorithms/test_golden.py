"""Losses of the fifth update and the sum of all weights' sizes after it, from fixed seeds: what changes them is meant to."""

from __future__ import annotations

import pytest
import torch

from flywheel.algorithms.base import Algorithm, Sizes
from flywheel.core import registry
from tests.algorithms.batches import ACTION_DIM, STATE_DIM, optimizer_of, random_batch, update

GOLDEN: dict[str, dict[str, float]] = {
    "bc": {"weights": 98.888, "actor": 2.3595},
    "iql": {"weights": 364.96, "value": 0.0021175, "critic": 0.6643, "actor": 2.4268},
    "cql": {"weights": 267.67, "critic": 48.615, "actor": -1.0101, "temperature": 3.1964},
    "td3_bc": {"weights": 313.98, "critic": 0.65606, "actor": 3.0239},
    "awac": {"weights": 313.96, "critic": 0.65664, "actor": 2.3645},
    "cal_ql": {"weights": 267.66, "critic": 52.9, "actor": -1.1334, "temperature": 3.3236},
    "awr": {"weights": 152.55, "value": 0.74581, "actor": 5.4908},
    "brac": {"weights": 323.01, "critic": 0.36783, "behaviour": 1.4311, "actor": 0.025447},
    "bear": {"weights": 443.25, "critic": 0.49173, "behaviour": 0.39651, "actor": 0.14539, "multiplier": -0.14539},
    "qt_opt": {"weights": 158.36, "critic": 0.90202},
    "discrete_cql": {"weights": 207.27, "critic": 2.129},
    "gcbc": {"weights": 174.02, "actor": 2.2369},
    "gcivl": {"weights": 618.23, "value": 1.8796, "actor": 79.361},
    "gciql": {"weights": 758.36, "value": 0.74799, "critic": 3.3576, "actor": 1.586},
    "crl": {"weights": 1869.9, "critic": 0.69319, "actor": 0.79522},
    "hiql": {"weights": 1010.5, "value": 1.7167, "actor": 18.694, "high_actor": 119.47},
    "actionable_models": {"weights": 359.0, "critic": 3.8531, "actor": 2.2825},
    "implicit_actionable_models": {"weights": 1108.4, "value": 0.74796, "critic": 6650.8, "actor": 55.03},
}


def test_every_algorithm_is_here() -> None:
    assert set(GOLDEN) == set(registry.names("algorithms"))


@pytest.mark.parametrize("name", list(GOLDEN))
def test_five_updates_end_where_they_did(name: str) -> None:
    assert _five_updates(name) == pytest.approx(GOLDEN[name], rel=1e-3)  # machines differ in the last digits of a sum


def _five_updates(name: str) -> dict[str, float]:
    cls = registry.load("algorithms", name, Algorithm)
    torch.manual_seed(0)
    algorithm = cls(cls.Config(hidden=(16, 12)), Sizes(STATE_DIM, ACTION_DIM, goal_conditioned=cls.relabel != "task"))
    optimizer = optimizer_of(algorithm)
    for number in range(5):
        torch.manual_seed(number)
        losses = update(algorithm, optimizer, random_batch(number))
    weights = sum(parameter.abs().sum().item() for parameter in algorithm.parameters())
    return {"weights": weights} | {key: loss.item() for key, loss in losses.items()}

"""Each algorithm finds what it should in a problem of two-dimensional steps that takes seconds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flywheel.algorithms.awr import AWR, AWRConfig
from flywheel.algorithms.base import Algorithm, Sizes
from flywheel.algorithms.bc import BC, BCConfig
from flywheel.algorithms.bear import BEAR, BEARConfig
from flywheel.algorithms.discrete_cql import DiscreteCQL, DiscreteCQLConfig
from flywheel.core import registry
from flywheel.core.batch import Batch
from tests.algorithms.batches import fit

STEP, RADIUS, DISCOUNT = 0.25, 0.2, 0.9


def _batch(seed: int, size: int = 128) -> Batch:
    """A point on the plane is to come to the origin. Of the data's actions a third leads there, the others lead away."""
    generator = torch.Generator().manual_seed(seed)
    position = torch.rand(size, 2, generator=generator) * 2 - 1
    towards = -position / position.norm(dim=1, keepdim=True)
    sign = torch.where(torch.rand(size, 1, generator=generator) < 1 / 3, 1.0, -1.0)
    action = (0.8 * sign * towards + 0.1 * torch.randn(size, 2, generator=generator)).clamp(-1, 1)
    following = (position + STEP * action).clamp(-1, 1)
    reached = (following.norm(dim=1) < RADIUS).float()
    return Batch({"state": position}, action, reached, DISCOUNT * (1 - reached), {"state": following})


def _successes(algorithm: Algorithm, ways: torch.Tensor | None = None) -> float:
    """The share of 200 points that come to the origin within 12 steps; `ways` says where discrete actions lead."""
    position = torch.rand(200, 2, generator=torch.Generator().manual_seed(9)) * 2 - 1
    reached = torch.zeros(200, dtype=torch.bool)
    with torch.inference_mode():
        for _ in range(12):
            action = algorithm.act({"state": position}, None, deterministic=True)
            action = action if ways is None else action @ ways
            position = torch.where(reached[:, None], position, (position + STEP * action).clamp(-1, 1))
            reached |= position.norm(dim=1) < RADIUS
    return float(reached.float().mean())


def test_cloning_mixed_behaviour_fails() -> None:
    assert _successes(fit(BC(BCConfig(hidden=(64, 64), learning_rate=1e-3), Sizes(2, 2)), _batch, range(400))) < 0.3


_FAST = {"hidden": (64, 64), "target_rate": 0.02}
_RATES = {"actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3}
_ONE_RATE = {"learning_rate": 1e-3}
LEARNERS = {
    "iql": (500, {"expectile": 0.9, "inverse_temperature": 10.0, **_ONE_RATE}),
    "cql": (500, {"conservative_weight": 0.5, "n_actions": 4, **_RATES}),
    "cal_ql": (700, {"conservative_weight": 0.5, "n_actions": 4, **_RATES}),
    "awac": (500, {"inverse_temperature": 10.0, **_ONE_RATE}),
    "td3_bc": (500, {"alpha": 10.0, **_ONE_RATE}),
    "brac": (500, {"alpha": 0.02, "warm_up": 100, **_RATES}),
    "bear": (500, {"threshold": 0.3, "n_actions": 5, "warm_up": 100, **_RATES}),
    "qt_opt": (500, {"cem_samples": 32, "lag": 50, **_ONE_RATE}),
}
"""The updates of each, and its settings: cloning succeeds in less than 0.3."""


@pytest.mark.parametrize("name", list(LEARNERS))
def test_offline_learning_finds_the_good_part_of_mixed_behaviour(name: str) -> None:
    updates, settings = LEARNERS[name]
    cls = registry.load("algorithms", name, Algorithm)
    torch.manual_seed(0)
    algorithm = cls(cls.Config(**_FAST, **settings), Sizes(2, 2))
    fit(algorithm, lambda number: _with_returns(_batch(number)), range(updates))
    assert _successes(algorithm.eval()) > 0.85


def test_awr_imitates_what_returned_more() -> None:
    def batch(number: int) -> Batch:
        plain = _batch(number)
        moved = plain.next_observation["state"].norm(dim=1) < plain.observation["state"].norm(dim=1)
        return replace(plain, mc_return=moved.float())

    torch.manual_seed(0)
    config = AWRConfig(hidden=(64, 64), inverse_temperature=10.0, learning_rate=1e-3)
    assert _successes(fit(AWR(config, Sizes(2, 2)), batch, range(600))) > 0.9


def test_discrete_cql_finds_the_good_part_of_mixed_behaviour() -> None:
    """Of four ways to go, the data takes any as often, and the one that leads to the origin is not told."""
    ways = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])

    def batch(number: int) -> Batch:
        plain = _batch(number)
        action = torch.nn.functional.one_hot(torch.randint(4, (128,), generator=torch.Generator().manual_seed(number)), 4).float()
        following = (plain.observation["state"] + STEP * action @ ways).clamp(-1, 1)
        reached = (following.norm(dim=1) < RADIUS).float()
        return Batch(plain.observation, action, reached, DISCOUNT * (1 - reached), {"state": following})

    torch.manual_seed(0)
    config = DiscreteCQLConfig(hidden=(64, 64), conservative_weight=0.1, learning_rate=1e-3, target_rate=0.02)
    algorithm = fit(DiscreteCQL(config, Sizes(2, 4)), batch, range(1200))
    assert _successes(algorithm, ways) > 0.9


def _with_returns(batch: Batch) -> Batch:
    """What the data went on to collect is not known here; its reward of this step is a bound."""
    return replace(batch, mc_return=batch.reward)


def test_bears_multiplier_comes_back_from_the_end_of_its_range() -> None:
    algorithm = BEAR(BEARConfig(hidden=(8,), threshold=0.0), Sizes(2, 2))
    algorithm.log_multiplier.data.fill_(-6.0)
    fit(algorithm, _batch, range(1))
    assert algorithm.log_multiplier.item() == pytest.approx(-5.0)
    fit(algorithm, _batch, range(5))
    assert algorithm.log_multiplier.item() > -5.0

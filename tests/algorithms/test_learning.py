"""Each algorithm finds what it should in a problem of two-dimensional steps that takes seconds."""

from __future__ import annotations

import pytest
import torch

from flywheel.algorithms.base import Algorithm, Sizes
from flywheel.algorithms.bc import BC, BCConfig
from flywheel.algorithms.cql import CQL, CQLConfig
from flywheel.algorithms.iql import IQL, IQLConfig
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


def _successes(algorithm: Algorithm) -> float:
    position = torch.rand(200, 2, generator=torch.Generator().manual_seed(9)) * 2 - 1
    reached = torch.zeros(200, dtype=torch.bool)
    with torch.inference_mode():
        for _ in range(12):
            action = algorithm.act({"state": position}, None, deterministic=True)
            position = torch.where(reached[:, None], position, (position + STEP * action).clamp(-1, 1))
            reached |= position.norm(dim=1) < RADIUS
    return float(reached.float().mean())


def test_cloning_mixed_behaviour_fails() -> None:
    assert _successes(fit(BC(BCConfig(hidden=(64, 64), learning_rate=1e-3), Sizes(2, 2)), _batch, range(400))) < 0.3


@pytest.mark.parametrize(
    "algorithm",
    [
        lambda: IQL(
            IQLConfig(hidden=(64, 64), expectile=0.9, inverse_temperature=10.0, learning_rate=1e-3, target_rate=0.02), Sizes(2, 2)
        ),
        lambda: CQL(
            CQLConfig(
                hidden=(64, 64), conservative_weight=0.5, actor_learning_rate=1e-3, critic_learning_rate=1e-3, target_rate=0.02
            ),
            Sizes(2, 2),
        ),
    ],
    ids=["iql", "cql"],
)
def test_offline_learning_finds_the_good_part_of_mixed_behaviour(algorithm: type[Algorithm]) -> None:
    torch.manual_seed(0)
    assert _successes(fit(algorithm(), _batch, range(1200))) > 0.9

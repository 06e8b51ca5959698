"""Random batches, and updates as the trainer takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Adam

from flywheel.algorithms.base import Algorithm
from flywheel.core.batch import Batch

STATE_DIM, ACTION_DIM = 5, 2


def random_batch(seed: int, size: int = 16) -> Batch:
    """A batch with everything that any algorithm needs."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    kind = torch.rand(size, generator=generator)
    reward = (kind < 0.25).float()
    return Batch(
        observation={"state": normal(size, STATE_DIM)},
        action=torch.tanh(normal(size, ACTION_DIM)),
        reward=reward,
        discount=0.99 * (1 - reward),
        next_observation={"state": normal(size, STATE_DIM)},
        goal={"state": normal(size, STATE_DIM)},
        actor_goal={"state": normal(size, STATE_DIM)},
        low_actor_goal={"state": normal(size, STATE_DIM)},
        high_actor_target={"state": normal(size, STATE_DIM)},
        mc_return=torch.rand(size, generator=generator),
        is_chained=kind > 0.75,
    )


def optimizer_of(algorithm: Algorithm) -> Adam:
    return Adam(algorithm.parameter_groups(), fused=True)


def update(algorithm: Algorithm, optimizer: Adam, batch: Batch) -> dict[str, Tensor]:
    """One update; returns the losses."""
    losses = algorithm.losses(batch)
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    algorithm.after_step()
    return losses


def fit(algorithm: Algorithm, batches: Callable[[int], Batch], updates: Iterable[int]) -> Algorithm:
    """The algorithm after updates on `batches(number)`."""
    optimizer = optimizer_of(algorithm)
    for number in updates:
        update(algorithm, optimizer, batches(number))
    return algorithm

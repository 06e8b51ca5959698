"""Gradient updates per second of an algorithm, sampling included, at the sizes of `flywheel.bench.data`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import torch

from flywheel.algorithms.base import Algorithm, Sizes
from flywheel.bench.data import ACTION_DIM, OBSERVATION_DIM, measure
from flywheel.core import registry
from flywheel.core.batch import Batch
from flywheel.core.memory import keep_freed_memory
from flywheel.datasets.columns import Columns
from flywheel.training.adam import FusedAdam
from flywheel.training.data import ChunkSource
from flywheel.training.recipe import DataConfig, make_recipe
from flywheel.training.threads import choose_threads

BATCH_SIZE, DISCOUNT = 256, 0.99
"""As training has them by default."""
HIDDEN = (256, 256)
"""What the field compares with, also for the algorithms whose own default is larger."""


class Updater:
    """One algorithm with its default settings but for its size, its optimizer and its data."""

    def __init__(self, algorithm: str, columns: Columns, hidden: tuple[int, ...] = HIDDEN) -> None:
        keep_freed_memory()
        cls = registry.load("algorithms", algorithm, Algorithm)  # type: ignore[type-abstract]
        recipe = make_recipe(DataConfig(), cls, columns)
        torch.manual_seed(0)
        self._algorithm = cls(cls.Config(hidden=hidden), Sizes(OBSERVATION_DIM, ACTION_DIM, recipe.goal_conditioned))
        self._optimizer = FusedAdam(self._algorithm.parameter_groups())
        source = ChunkSource(columns, recipe.sampler, recipe.relabeler, batch_size=BATCH_SIZE, discount=DISCOUNT, seed=0)
        self._batches = _batches(source)

    def update(self) -> int:
        """Sample a batch, compute the losses, take the step; returns 1, the number of updates."""
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._algorithm.losses(next(self._batches))
        torch.autograd.backward(list(losses.values()))
        self._optimizer.step()
        self._algorithm.after_step()
        return 1

    def choose_threads(self) -> int:
        """As many as training would choose for this algorithm, here and now."""
        return choose_threads(self._algorithm, next(self._batches))

    def rate(self, seconds: float) -> float:
        """Updates per second of processor time over a burst of at least so long."""
        start, count = time.process_time(), 0
        while (elapsed := time.process_time() - start) < seconds:
            count += self.update()
        return count / elapsed


def measure_updates(algorithm: str, columns: Columns, bursts: int = 7, seconds: float = 1.0) -> list[float]:
    """Updates per second in each burst."""
    return measure(Updater(algorithm, columns).update, bursts, seconds)


def _batches(source: ChunkSource) -> Iterator[Batch]:
    """What training is fed, batch by batch, without end."""
    for chunk in source.updates(0, sys.maxsize):
        for start in range(0, len(chunk), BATCH_SIZE):
            yield chunk[start : start + BATCH_SIZE]

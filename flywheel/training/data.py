"""From a snapshot to chunks of batches. What update u sees is a pure function of (snapshot, seed, u)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from flywheel.core.batch import Batch
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import Relabeler
from flywheel.datasets.sampler import Sampler

CHUNK_UPDATES = 50
"""Updates per gather: enough that Lightning's half millisecond a step disappears, few enough that a chunk stays small."""


class ChunkSource:
    """Draws chunk c (updates 50 c to 50 c + 49) with a generator seeded by (seed, c)."""

    def __init__(
        self, columns: Columns, sampler: Sampler, relabeler: Relabeler, *, batch_size: int, discount: float, seed: int
    ) -> None:
        self.columns, self.sampler, self.relabeler = columns, sampler, relabeler
        self.batch_size, self.discount, self.seed = batch_size, discount, seed

    def draw(self, chunk: int) -> Batch:
        """All rows of one chunk: (50 * batch_size, ...)."""
        rng = np.random.default_rng([self.seed, chunk])
        indices = self.sampler.sample(rng, CHUNK_UPDATES * self.batch_size)
        return self.columns.gather(indices, self.relabeler(self.columns.table, indices, rng), self.discount)

    def updates(self, start: int, stop: int) -> Iterator[Batch]:
        """The rows of updates [start, stop), chunk by chunk."""
        while start < stop:
            chunk, offset = divmod(start, CHUNK_UPDATES)
            count = min(CHUNK_UPDATES - offset, stop - start)
            yield self.draw(chunk)[offset * self.batch_size : (offset + count) * self.batch_size]
            start += count


class StoreDataModule(LightningDataModule):
    """Feeds one Lightning epoch: the updates up to the next checkpoint."""

    def __init__(self, source: ChunkSource, span: Callable[[], tuple[int, int]]) -> None:
        super().__init__()
        self.source, self.span = source, span

    def train_dataloader(self) -> DataLoader[Batch]:
        """A loader over the epoch's chunks; sampling is vectorised, so worker processes would only copy."""
        return DataLoader(_Epoch(self.source, self.span), batch_size=None)


class _Epoch(IterableDataset[Batch]):
    def __init__(self, source: ChunkSource, span: Callable[[], tuple[int, int]]) -> None:
        self.source, self.span = source, span

    def __iter__(self) -> Iterator[Batch]:
        return self.source.updates(*self.span())

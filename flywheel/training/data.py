"""From a snapshot to chunks of batches. What update u sees is a pure function of (snapshot, seed, u)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.datasets.pool import make_pool
from flywheel.datasets.relabel import Relabeled, Relabeler
from flywheel.datasets.returns import Discount
from flywheel.datasets.sampler import Indices, Sampler
from flywheel.datasets.table import EpisodeTable
from flywheel.datasets.window import SINGLE, Window

CHUNK_UPDATES = 50
"""Updates per draw: enough that Lightning's half millisecond a step disappears, few enough that a chunk stays small."""
_GATHER_BYTES = 128 << 20
"""Bytes of pictures that are gathered at once: a few batches."""


class Gatherable(Protocol):
    """What batches are gathered from: the columns of a store, or of several."""

    @property
    def table(self) -> EpisodeTable:
        """The episodes."""

    @property
    def sample_bytes(self) -> int:
        """What one sample's pictures and other arrays take, with a next observation and a goal; 0 without any."""

    @property
    def pool_rows(self) -> int:
        """How many decoded rows are kept in memory; 0 where none is worth it, because everything is kept raw."""

    def gather(self, indices: Indices, relabeled: Relabeled, discount: Discount, window: Window) -> Batch:
        """The batch of some transitions with their meaning."""


class Part(NamedTuple):
    """Which part of each batch a process computes, where several train together."""

    rank: int = 0
    world: int = 1


WHOLE = Part()
"""All of it: one process alone."""


class ChunkSource:
    """Draws chunk c (updates 50 c to 50 c + 49) with a generator seeded by (seed, c).

    Each of several processes draws the same indices and gathers its own part of each batch, so that all parts together, in the
    order of their ranks, are what one process would get. There is no other state than (seed, update).

    Where pictures are kept as JPEG and do not fit into memory once decoded, the samples come from a pool of episodes that do
    (`datasets.pool`); elsewhere they are independent of each other.
    """

    def __init__(
        self,
        columns: Gatherable,
        sampler: Sampler,
        relabeler: Relabeler,
        *,
        batch_size: int,
        discount: Discount,
        seed: int,
        window: Window = SINGLE,
        frames: int = 1,
        part: Part = WHOLE,
    ) -> None:
        """`frames` pictures in a row are seen at once, as channels (B, frames C, H, W), the newest last, in place of the
        window's history.

        Raises `FlywheelError` if the batch cannot be parted evenly.
        """
        if not 0 <= part.rank < part.world or batch_size % part.world:
            raise FlywheelError(f"A batch of {batch_size} cannot be parted for rank {part.rank} of {part.world} processes.")
        self.columns, self.sampler, self.relabeler = columns, sampler, relabeler
        self.batch_size, self.discount, self.seed, self.part = batch_size, discount, seed, part
        self.frames, self.window = frames, replace(window, history=frames) if frames > 1 else window
        self.pool = make_pool(columns.table, sampler, seed, columns.pool_rows)

    def draw(self, chunk: int) -> Batch:
        """All rows of one chunk, or this process's part of them: (50 * batch_size / world, ...)."""
        indices, relabeled = self._drawn(chunk)
        return self._gathered(indices, relabeled)

    def updates(self, start: int, stop: int) -> Iterator[Batch]:
        """The rows of updates [start, stop): chunk by chunk, or with pictures a few batches at a time, gathered in advance."""
        if not self.columns.sample_bytes:
            yield from self._batches(start, stop, CHUNK_UPDATES)
            return
        own = self.batch_size // self.part.world
        at_once = max(1, _GATHER_BYTES // (own * self.columns.sample_bytes * self.frames))
        yield from _in_advance(self._batches(start, stop, at_once))

    def _batches(self, start: int, stop: int, at_once: int) -> Iterator[Batch]:
        own = self.batch_size // self.part.world
        drawn, held = self._drawn(start // CHUNK_UPDATES), start // CHUNK_UPDATES
        while start < stop:
            chunk, offset = divmod(start, CHUNK_UPDATES)
            if chunk != held:
                drawn, held = self._drawn(chunk), chunk
            count = min(CHUNK_UPDATES - offset, stop - start, at_once)
            rows = slice(offset * own, (offset + count) * own)
            indices, relabeled = drawn
            yield self._gathered(indices[rows], relabeled[rows])
            start += count

    def _gathered(self, indices: Indices, relabeled: Relabeled) -> Batch:
        batch = self.columns.gather(indices, relabeled, self.discount, self.window)
        return as_channels(batch) if self.frames > 1 else batch

    def _drawn(self, chunk: int) -> tuple[Indices, Relabeled]:
        rng = np.random.default_rng([self.seed, chunk])
        count = CHUNK_UPDATES * self.batch_size
        indices = self.pool.sample(rng, chunk * count, count) if self.pool else self.sampler.sample(rng, count)
        relabeled = self.relabeler(self.columns.table, indices, rng)
        if self.part.world == 1:
            return indices, relabeled
        place = np.arange(len(indices)).reshape(CHUNK_UPDATES, self.part.world, -1)[:, self.part.rank].reshape(-1)
        return indices[place], relabeled[place]


def as_channels(batch: Batch) -> Batch:
    """A batch with a history, of which pictures (B, h, C, H, W) become (B, h C, H, W), channels last in memory; of all else the
    newest is seen alone.
    """

    def seen(name: str, value: Tensor) -> Tensor:
        if name == "task":
            return value
        if value.dtype != torch.uint8 or value.dim() != 5:
            return value[:, -1]
        rows, frames, channels, height, width = value.shape
        return value.permute(0, 3, 4, 1, 2).reshape(rows, height, width, frames * channels).permute(0, 3, 1, 2)

    now, following = (
        {name: seen(name, value) for name, value in part.items()} for part in (batch.observation, batch.next_observation)
    )
    return replace(batch, observation=now, next_observation=following, is_pad_history=None)


def _in_advance(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, the next of which is gathered on a thread while the last one is learned from."""
    with ThreadPoolExecutor(1, thread_name_prefix="gather") as pool:
        pending = pool.submit(next, batches, None)
        while (batch := pending.result()) is not None:
            pending = pool.submit(next, batches, None)
            yield batch


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

"""Batches of pictures and other arrays from the training cache: uint8 as it lies on the disk, in buffers that are used again.

A raw row is copied by `torch.index_select`, four times as fast as numpy's indexing; an encoded picture is decoded on all cores
into a ring of the newest ones, and copied from there like a raw row whenever it is wanted again soon (`pool` sees to that).
Both end in one buffer, which stays NHWC in memory and is seen as NCHW ("channels last"): nothing is converted or moved before
the device.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property, partial

import numpy as np
import torch
from torch import Tensor

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.cache.array_cache import ArrayMaps, Bytes
from flywheel.datasets.cache.decoded import DecodedRows
from flywheel.datasets.pictures import decode
from flywheel.datasets.schema import is_picture
from flywheel.datasets.table import Bools, Ints
from flywheel.datasets.tfrecord import DamagedError

_MOST_FREE = 2
"""Buffers of one size that are kept for the next batch; with one ahead of the one in use, that is all there are."""


class Buffers:
    """Memory for batches, used again as soon as the last tensor that looks at it is gone.

    A fresh 50 MB buffer costs as much in page faults as the copy into it.
    """

    def __init__(self) -> None:
        self._free: defaultdict[int, list[Bytes]] = defaultdict(list)

    def take(self, size: int) -> Tensor:
        """`size` bytes with any content, (size,) uint8."""
        free = self._free[size]
        buffer = free.pop() if free else np.empty(size, np.uint8)
        # The tensor's storage holds this very view of the buffer, and all views of the tensor hold its storage.
        lease = buffer[:]
        weakref.finalize(lease, self._give_back, buffer)
        return torch.from_numpy(lease)

    def _give_back(self, buffer: Bytes) -> None:
        free = self._free[len(buffer)]
        if len(free) < _MOST_FREE:
            free.append(buffer)


@dataclass(frozen=True, eq=False)
class Frames:
    """The column of one observation array."""

    maps: ArrayMaps
    decoded: DecodedRows | None = None
    """The pictures that were decoded last; None to decode them for each batch anew."""
    buffers: Buffers = field(default_factory=Buffers)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_encoded(self, rows: Ints) -> Bools:
        """(n,) which rows are kept as PNG or JPEG."""
        return np.zeros(len(rows), np.bool_) if self.maps.spans is None else self.maps.spans[rows, 1] > 0

    def gather(self, rows: Ints) -> Tensor:
        """The rows (n,) of the column: (n, *shape), and a picture of (H, W, C) as (n, C, H, W), channels last.

        The tensor's memory is used again when it and all its views are gone. Raises `FlywheelError` for a damaged cache.
        """
        spec = self.maps.spec
        buffer = self.buffers.take(len(rows) * self.maps.rows.shape[1])
        out = buffer.numpy().reshape(len(rows), -1)
        encoded = np.flatnonzero(self.is_encoded(rows))
        self._copy(rows, out, encoded)
        if len(encoded):
            self._decode(rows[encoded], out, encoded)
        values = buffer.view(torch.from_numpy(np.empty(0, spec.dtype)).dtype).view(len(rows), *spec.shape)
        return values.permute(0, 3, 1, 2) if is_picture(spec) else values

    def _copy(self, rows: Ints, out: Bytes, encoded: Ints) -> None:
        if len(encoded) == len(rows):
            return
        if len(encoded):  # a hole in the file is not to be read: any raw row will do, as its place is written over
            raw = np.ones(len(rows), np.bool_)
            raw[encoded] = False
            rows = np.where(raw, rows, rows[raw.argmax()])
        words = torch.from_numpy(_as_words(out))
        torch.index_select(self._words, 0, torch.from_numpy(rows), out=words)

    @cached_property
    def _words(self) -> Tensor:
        return shared(_as_words(self.maps.rows))

    def _decode(self, rows: Ints, out: Bytes, places: Ints) -> None:
        """Put pictures of some rows (n,) at some places (n,) of the buffer; each row is decoded once."""
        distinct, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
        if self.decoded is None or len(distinct) > len(self.decoded):
            self._decode_all(out, distinct, places[first])
            again = np.flatnonzero(first[inverse] != np.arange(len(rows)))
            out[places[again]] = out[places[first[inverse[again]]]]
            return
        memory = self.decoded.memory
        with self._lock:
            held = torch.from_numpy(self.decoded.hold(distinct, partial(self._decode_all, memory))[inverse])
            words, source = torch.from_numpy(_as_words(out)), torch.from_numpy(_as_words(memory))
            if len(rows) == len(out):
                torch.index_select(source, 0, held, out=words)
            else:
                words.index_copy_(0, torch.from_numpy(places), source.index_select(0, held))

    def _decode_all(self, out: Bytes, rows: Ints, places: Ints) -> None:
        """Decode distinct rows on all cores, each to its place."""
        pictures = out.reshape(len(out), *self.maps.spec.shape)
        pool, parts = _pool()
        splits = np.array_split(np.arange(len(rows)), 4 * parts)
        for _ in pool.map(lambda part: self._decode_part(rows[part], pictures, places[part]), splits):
            pass

    def _decode_part(self, rows: Ints, pictures: Array, places: Ints) -> None:
        assert self.maps.spans is not None
        assert self.maps.blob is not None
        blob = memoryview(self.maps.blob.data)
        for row, (offset, length), place in zip(rows.tolist(), self.maps.spans[rows].tolist(), places.tolist(), strict=True):
            try:
                decode(bytes(blob[offset : offset + length]), pictures[place])
            except DamagedError as error:
                raise FlywheelError(
                    f"Row {row} of a picture column is damaged; delete the store's .columns folder, it is built again. ({error})"
                ) from None


def shared(array: Array) -> Tensor:
    """A tensor over an array's own memory, which may be read-only: nobody here writes to a column."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _as_words(rows: Bytes) -> Array:
    """Rows as the widest numbers that divide them: fewer elements to move."""
    width = next(width for width in (8, 4, 2, 1) if rows.shape[1] % width == 0)
    return rows.view(f"u{width}" if width == 1 else f"i{width}")


@cache
def _pool() -> tuple[ThreadPoolExecutor, int]:
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(workers, thread_name_prefix="frames"), workers


# A forked process has the pool, but not its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)

"""Decoded pictures in bounded memory, so that one that is wanted again soon is not decoded again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from flywheel.datasets.cache.array_cache import Bytes
from flywheel.datasets.table import Ints


class DecodedRows:
    """The rows of one column that were decoded last: a ring, in which the next one takes the place of the oldest.

    What comes out never depends on what it holds. Its memory is taken page by page as it fills, up to `capacity` rows, beside
    4 bytes for each row of the column.
    """

    def __init__(self, rows: int, capacity: int, row_bytes: int) -> None:
        """For a column of so many rows, of which `capacity` (at least 1) are held, each of `row_bytes`."""
        self.memory: Bytes = np.empty((capacity, row_bytes), np.uint8)
        """(capacity, bytes of a row)"""
        self._place_of: npt.NDArray[np.int32] = np.zeros(rows, np.int32)  # zeros take no memory until they are written
        """(R,) each row's place in the memory plus 1; 0 where it is not held."""
        self._row_at: Ints = np.full(capacity, -1, np.int64)
        self._next = 0

    def __len__(self) -> int:
        """How many rows it can hold."""
        return len(self.memory)

    def hold(self, rows: Ints, decode: Callable[[Ints, Ints], None]) -> Ints:
        """The places (n,) in the memory of distinct rows (n,), at most `len(self)`.

        `decode(rows, places)` writes those that are not there yet. If it raises, what it was to write over is forgotten and
        nothing else has changed.
        """
        place = self._place_of.take(rows).astype(np.int64) - 1
        missing = self._missing(place)
        new = (self._next + np.arange(np.count_nonzero(missing))) % len(self)
        if len(new):
            self._forget(new)
            decode(rows[missing], new)
            self._row_at[new] = rows[missing]
            self._place_of[rows[missing]] = new + 1
            self._next = int(new[-1] + 1) % len(self)
            place[missing] = new
        return place

    def _missing(self, place: Ints) -> npt.NDArray[np.bool_]:
        """(n,) which rows are to be decoded: those without a place, and those whose place the others are about to take."""
        missing = place < 0
        age = (place - self._next) % len(self)
        while (lost := ~missing & (age < np.count_nonzero(missing))).any():
            missing |= lost
        return missing

    def _forget(self, places: Ints) -> None:
        held = self._row_at[places]
        self._place_of[held[held >= 0]] = 0
        self._row_at[places] = -1

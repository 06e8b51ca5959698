"""Observation arrays beside the state in the training cache: pictures and whatever else a recipe asks for.

One folder per array, `.columns/arrays/<key>/`, whose row r belongs to row r of the state:

    header.json       the format's version, the cache it belongs to, the array's shape and dtype
    rows.bin          (R, bytes of a row), sparse: the episodes that are kept raw
    spans.i64         (R, 2), sparse: where in blob.bin the others' pictures lie, as (offset, length)
    blob.bin          PNG or JPEG files, one behind the other
    episodes.jsonl    one line per episode, written when its rows are durable

Rows are addressed, not appended, so an array is filled in any order and long after the state. Committed rows never change and
are never cut; what a killed builder left beyond the last line is written over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flywheel.core.files import fsync_folder, write_atomically
from flywheel.core.specs import Array, ArraySpec
from flywheel.datasets.cache.cache_files import append, write_at
from flywheel.datasets.table import Ints

FORMAT = 1
_NAMES = ("rows.bin", "spans.i64", "blob.bin", "episodes.jsonl")
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FilledEpisode:
    """One line of episodes.jsonl."""

    start: int
    """Its first row."""
    steps: int
    raw: bool
    """Whether its rows are in rows.bin; otherwise they are in blob.bin."""
    blob_end: int
    """How much of blob.bin is committed with it."""


@dataclass(frozen=True, eq=False)
class ArrayMaps:
    """The committed rows of one array, memory-mapped and read-only."""

    spec: ArraySpec
    rows: Bytes
    """(R, bytes of a row); a hole where `spans` has a length."""
    spans: Ints | None = None
    """(R, 2) offset and length in `blob`, 0 long where a row is raw; None if all are."""
    blob: Bytes | None = None
    """(bytes,)"""


class ArrayCache:
    """One array's folder; its builder holds the lock of the arrays (`column_cache.open_arrays`)."""

    def __init__(self, folder: Path, spec: ArraySpec, cache_id: str) -> None:
        self.spec = spec
        self.row_bytes = spec.size * np.dtype(spec.dtype).itemsize
        self.episodes: dict[int, FilledEpisode] = {}
        """Every filled episode by its first row."""
        self._folder = folder
        self._header = {"format": FORMAT, "cache": cache_id, "shape": list(spec.shape), "dtype": spec.dtype}
        self.raw_bytes = 0
        """What the raw rows take, those included that are not committed yet."""
        self._blob_end = 0
        self._pending: list[FilledEpisode] = []
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._load()
        except (OSError, ValueError, TypeError, KeyError):
            self._reset()

    def put_raw(self, start: int, array: Array) -> int:
        """Write an episode's rows, (T + 1, *shape), and say how many bytes; they count from the next `commit` on."""
        data = np.ascontiguousarray(array, self.spec.dtype).tobytes()
        write_at(self._path("rows.bin"), start * self.row_bytes, data)
        if self._path("spans.i64").stat().st_size > start * 16:  # a killed builder may have left spans here
            write_at(self._path("spans.i64"), start * 16, bytes(16 * len(array)))
        self.raw_bytes += len(data)
        self._pending.append(FilledEpisode(start, len(array), raw=True, blob_end=self._blob_end))
        return len(data)

    def put_encoded(self, start: int, pictures: Sequence[bytes]) -> int:
        """Write an episode's pictures, T + 1 PNG or JPEG files, and say how many bytes; they count from `commit` on."""
        lengths = np.array([len(picture) for picture in pictures], np.int64)
        offsets = self._blob_end + np.cumsum(lengths) - lengths
        write_at(self._path("blob.bin"), self._blob_end, b"".join(pictures))
        write_at(self._path("spans.i64"), start * 16, np.stack([offsets, lengths], axis=1).tobytes())
        self._blob_end += int(lengths.sum())
        self._pending.append(FilledEpisode(start, len(pictures), raw=False, blob_end=self._blob_end))
        return int(lengths.sum())

    def commit(self) -> None:
        """Make what was put durable, then say so."""
        if not self._pending:
            return
        for name in _NAMES[:3]:
            _sync(self._path(name))
        lines = "".join(json.dumps(asdict(episode)) + "\n" for episode in self._pending)
        append(self._path("episodes.jsonl"), lines.encode())
        fsync_folder(self._folder)
        self.episodes.update((episode.start, episode) for episode in self._pending)
        self._pending = []

    def maps(self, rows: int) -> ArrayMaps:
        """The committed rows of a cache of so many rows."""
        self._grow("rows.bin", rows * self.row_bytes)
        mapped = np.memmap(self._path("rows.bin"), np.uint8, mode="r", shape=(rows, self.row_bytes))
        if all(episode.raw for episode in self.episodes.values()):
            return ArrayMaps(self.spec, mapped)
        self._grow("spans.i64", rows * 16)
        spans = np.memmap(self._path("spans.i64"), np.int64, mode="r", shape=(rows, 2))
        return ArrayMaps(self.spec, mapped, spans, np.memmap(self._path("blob.bin"), np.uint8, mode="r", shape=(self._blob_end,)))

    def _load(self) -> None:
        if json.loads((self._folder / "header.json").read_bytes()) != self._header:
            raise ValueError("another cache, array or version")
        index = self._path("episodes.jsonl")
        committed, newline, torn = index.read_bytes().rpartition(b"\n")
        for line in committed.splitlines():
            episode = FilledEpisode(**json.loads(line))
            if episode.start in self.episodes or episode.steps < 1 or episode.blob_end < self._blob_end:
                raise ValueError("episodes that do not fit together")
            self.episodes[episode.start] = episode
            self._blob_end = episode.blob_end
            self.raw_bytes += episode.raw * episode.steps * self.row_bytes
        if torn:
            os.truncate(index, len(committed + newline))
        if self._path("blob.bin").stat().st_size < self._blob_end or self._raw_end() > self._path("rows.bin").stat().st_size:
            raise ValueError("rows are missing")

    def _raw_end(self) -> int:
        return max((self.row_bytes * (item.start + item.steps) for item in self.episodes.values() if item.raw), default=0)

    def _reset(self) -> None:
        """Start empty. Files are replaced, never emptied, as others may have them mapped."""
        self.episodes, self._blob_end, self.raw_bytes = {}, 0, 0
        for name in _NAMES:
            self._path(name).unlink(missing_ok=True)
            self._path(name).touch()
        write_atomically(self._folder / "header.json", json.dumps(self._header).encode())

    def _grow(self, name: str, size: int) -> None:
        """Make a sparse file reach to the last row, so that it can be mapped; this takes no space."""
        if self._path(name).stat().st_size < size:
            os.truncate(self._path(name), size)

    def _path(self, name: str) -> Path:
        return self._folder / name


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)

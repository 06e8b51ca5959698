"""What the two HDF5 formats share: a file whose disk may fill up, and arrays in it."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.specs import Array
from flywheel.datasets.importers.files import need

_LEVEL = 1


class Hdf5Sink(io.FileIO):
    """A file that takes every write and remembers the first that failed: libhdf5 crashes the process at one it is told of.

    (Otherwise: SIGSEGV on a full disk.)
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it, or note why not."""
        view = memoryview(data).cast("B")
        try:
            written = 0
            while self.failure is None and written < len(view):
                written += super().write(view[written:])
        except OSError as error:
            self.failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or note why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0

    def check(self) -> None:
        """Raise what was noted."""
        if self.failure is not None:
            raise self.failure


@contextmanager
def new_file(path: Path) -> Iterator[tuple[Any, Hdf5Sink]]:
    """A new `h5py.File` and its sink to check; raises `OSError` at the end at the latest.

    Raises `FlywheelError` if h5py is missing.
    """
    h5py = need("h5py")
    with Hdf5Sink(path, "w+") as sink:
        with h5py.File(sink, "w") as file:  # not track_order: it brings times, and no two exports would be the same
            yield file, sink
        sink.check()


def is_pictures(values: Array) -> bool:
    """Whether an array is a camera's: (T, H, W, C) uint8."""
    return values.ndim == 4 and values.dtype == np.uint8


def write_array(group: Any, name: str, values: Array) -> None:
    """Write a data set, (T, *shape), into an h5py group; pictures are compressed, losslessly."""
    if is_pictures(values):
        write_pictures(group, name, values.shape[1:], deflate(values))
    else:
        group.create_dataset(name, data=values)


def write_pictures(group: Any, name: str, shape: tuple[int, ...], frames: Sequence[bytes]) -> None:
    """Write frames that `deflate` compressed as a data set (T, *shape) uint8 with HDF5's own gzip filter.

    A frame is a chunk of its own, as random frames are what is read.
    """
    size, level = (len(frames), *shape), {"compression": "gzip", "compression_opts": _LEVEL}
    data = group.create_dataset(name, shape=size, dtype=np.uint8, chunks=(1, *shape), **level)
    for number, frame in enumerate(frames):
        data.id.write_direct_chunk((number, 0, 0, 0), frame)


def deflate(frames: Array) -> list[bytes]:
    """Each picture of (T, H, W, C) compressed; on several threads, which the filter of HDF5 would not use."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda frame: zlib.compress(np.ascontiguousarray(frame).data, _LEVEL), frames))

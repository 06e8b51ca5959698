"""What the two HDF5 formats share: a file whose disk may fill up, and arrays in it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flywheel.core.specs import Array
from flywheel.datasets.importers.files import need


class Hdf5Sink(io.FileIO):
    """A file that takes every write and remembers the first that failed: libhdf5 crashes the process at one it is told of.

    (reliability.md 2h: SIGSEGV on a full disk.)
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
    """A new `h5py.File`, in the order of what is added, and its sink to check; raises `OSError` at the end at the latest.

    Raises `FlywheelError` if h5py is missing.
    """
    h5py = need("h5py")
    with Hdf5Sink(path, "w+") as sink:
        with h5py.File(sink, "w", track_order=True) as file:
            yield file, sink
        sink.check()


def write_array(group: Any, name: str, values: Array) -> None:
    """Write a data set, (T, *shape), into an h5py group; pictures are compressed, losslessly.

    A frame is a chunk of its own, as random frames are what is read.
    """
    picture = values.ndim == 4 and values.dtype == "uint8"
    options = {"chunks": (1, *values.shape[1:]), "compression": "gzip", "compression_opts": 1} if picture else {}
    group.create_dataset(name, data=values, **options)

"""HDF5 files, with h5py: hard links within the file only, and no dataset whose data lie elsewhere or nowhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.importers.files import check_dtype, check_size, natural, need, reading

_DEEPEST = 8
_SMALL = 1 << 20
_CHUNK_CACHE = 32 << 20
_OPEN = 8
_PROBE_SECONDS = 20
_PROBE_BYTES = 20e6
"""Read in a second at least, beyond that."""


class Hdf5:
    """An HDF5 file open for reading; names are paths with '/'. Everything raises `FlywheelError` naming file and field."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._h5py = need("h5py")
        _refuse_crash(path)
        with reading(path, "the HDF5 file"):
            self._file = self._h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE)
        self._opened: dict[str, Any] = {}

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def groups(self, name: str = "") -> list[str]:
        """The names of the groups in a group, demo_10 behind demo_9."""
        return [key for key in self._keys(name) if isinstance(self._get(_join(name, key)), self._h5py.Group)]

    def datasets(self, name: str = "") -> list[str]:
        """The names, relative to a group, of the datasets in it and in the groups in it."""
        return list(self._walk(name, "", 0))

    def shape(self, name: str) -> tuple[int, ...]:
        """A dataset's shape."""
        with reading(self.path, f"'{name}'"):
            return tuple(self._dataset(name).shape)

    def length(self, name: str) -> int:
        """The length of a dataset's first axis."""
        shape = self.shape(name)
        if not shape:
            raise FlywheelError(f"{self.path}: '{name}' is a single value, where one per step is expected.")
        return shape[0]

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Rows of a dataset of numbers or texts of fixed length."""
        with reading(self.path, f"'{name}'"):
            dataset = self._dataset(name)
            check_dtype(self.path, f"'{name}'", dataset.dtype)
            check_size(self.path, f"'{name}'", dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size())
            return np.asarray(dataset[start:stop] if dataset.shape else dataset[()])

    def strings(self, name: str, start: int = 0, stop: int | None = None) -> list[bytes]:
        """Rows of a dataset of texts, or of byte sequences of any length (uint8), as bytes."""
        with reading(self.path, f"'{name}'"):
            dataset = self._dataset(name)
            if not dataset.dtype.hasobject:
                return [bytes(row) for row in self.rows(name, start, stop)]
            # 16 bytes in the file refer to each value, and h5py reads texts and integers of variable length, no other objects.
            check_size(self.path, f"'{name}'", 16 * dataset.size, dataset.id.get_storage_size())
            return [row if isinstance(row, bytes) else np.asarray(row, np.uint8).tobytes() for row in dataset[start:stop]]

    def attributes(self, name: str = "") -> dict[str, Any]:
        """A group's attributes that are a number or a text."""
        with reading(self.path, f"the attributes of '{name or '/'}'"):
            found: dict[str, Any] = {}
            attributes = self._get(name).attrs
            for key in attributes:
                identifier = attributes.get_id(key)
                if identifier.shape != () or identifier.get_storage_size() > _SMALL * 64:
                    continue
                value = attributes[key]
                found[key] = value.item() if isinstance(value, np.generic) else value
            return {key: _text(value) for key, value in found.items() if isinstance(value, str | bytes | bool | int | float)}

    def _keys(self, name: str) -> list[str]:
        with reading(self.path, f"'{name or '/'}'"):
            return sorted((str(key) for key in self._get(name)), key=natural)

    def _walk(self, name: str, prefix: str, depth: int) -> Iterator[str]:
        if depth > _DEEPEST:
            raise FlywheelError(f"{self.path}: '{name}' is nested too deeply.")
        for key in self._keys(name):
            item = self._get(_join(name, key))
            if isinstance(item, self._h5py.Dataset):
                yield prefix + key
            elif isinstance(item, self._h5py.Group):
                yield from self._walk(_join(name, key), f"{prefix}{key}/", depth + 1)

    def _dataset(self, name: str) -> Any:
        """A dataset, left open: its cache of chunks lasts as long, and an episode is rarely a whole number of chunks."""
        if name not in self._opened:
            if len(self._opened) >= _OPEN:
                del self._opened[next(iter(self._opened))]
            self._opened[name] = self._open(name)
        return self._opened[name]

    def _open(self, name: str) -> Any:
        item = self._get(name)
        if not isinstance(item, self._h5py.Dataset):
            raise FlywheelError(f"{self.path}: '{name}' is no dataset.")
        if item.is_virtual or item.external:
            raise FlywheelError(f"{self.path}: '{name}' keeps its data in other files and is not read; copy them into this one.")
        return item

    def _get(self, name: str) -> Any:
        item = self._find(name)
        if item is None:
            raise FlywheelError(f"{self.path} has no '{name}'.")
        return item

    def _find(self, name: str) -> Any:
        """The object that a path of hard links leads to; a soft link may lead to an external one, so none is followed."""
        item = self._file
        with reading(self.path, f"'{name or '/'}'"):
            for part in filter(None, name.split("/")):
                link = item.get(part, getlink=True) if isinstance(item, self._h5py.Group) else None
                if link is None:
                    return None
                if not isinstance(link, self._h5py.HardLink):
                    raise FlywheelError(f"{self.path}: '{name}' is a link out of its place and is not followed; copy the data.")
                item = item[part]
        return item


def _refuse_crash(path: Path) -> None:
    """Let another process look first: damaged texts of variable length have crashed HDF5's own library, and hung it."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("hdf5_probe.py")), str(path)]
    with reading(path, "the HDF5 file"):
        seconds = _PROBE_SECONDS + path.stat().st_size / _PROBE_BYTES
    try:
        code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        code = -1
    if code < 0:
        raise FlywheelError(f"{path}: HDF5's library dies or hangs in reading it; the file is damaged or hostile.")


def _join(name: str, key: str) -> str:
    return f"{name}/{key}" if name else key


def _text(value: Any) -> Any:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value

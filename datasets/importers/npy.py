"""npz archives, read row by row: nothing is unpickled, nothing is unpacked to disk, and no length is believed.

Rows are read from the compressed member as they are asked for, in order, so that memory does not grow with the file. Since a
member's CRC is only known at its end, `Npz.check` reads a member once through before anything of it is used.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.importers.files import check_dtype, check_size, reading
from flywheel.datasets.importers.object_arrays import read_objects

_MOST_MEMBERS = 10_000
_BLOCK = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)*")


class Npz:
    """An npz file; everything raises `FlywheelError` naming file and array."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._streams: dict[str, _Rows] = {}
        self._checked: set[str] = set()
        with reading(path, "the npz file"):
            self._archive = zipfile.ZipFile(path)
            members = self._archive.infolist()
        if len(members) > _MOST_MEMBERS or len({item.filename for item in members}) != len(members):
            raise FlywheelError(f"{path} has {len(members)} members, some of the same name, or too many.")
        self._members = {_name(path, item): item for item in members}

    @property
    def names(self) -> list[str]:
        """The arrays."""
        return sorted(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def shape(self, name: str) -> tuple[int, ...]:
        """An array's shape."""
        return self._stream(name).shape

    def length(self, name: str) -> int:
        """The length of an array's first axis."""
        shape = self.shape(name)
        if not shape:
            raise FlywheelError(f"{self.path}: '{name}' is a single value, where one per step is expected.")
        return shape[0]

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Rows of an array, or all of it; cheap if asked for in order."""
        self.check(name)
        stream = self._stream(name)
        if not stream.shape:
            return stream.read(0, 1).reshape(())
        return stream.read(start, stream.shape[0] if stop is None else min(stop, stream.shape[0]))

    def objects(self, name: str) -> list[Any]:
        """The numbers in an array of objects, which are read without being run; see `object_arrays`."""
        self.check(name)
        with reading(self.path, f"'{name}'"), self._archive.open(self._member(name)) as file:
            version, head = file.read(8)[6:7], file.read(2)
            if version != b"\x01":
                raise FlywheelError(f"{self.path}: '{name}' is an npy array of another version, which is not read.")
            header = file.read(int.from_bytes(head, "little"))
            if b"'|O'" not in header:
                raise FlywheelError(f"{self.path}: '{name}' is no array of objects.")
            found = read_objects(file.read())
        return found if isinstance(found, list) else [found]

    def check(self, name: str) -> None:
        """Read an array through once, to see that it agrees with its CRC."""
        if name in self._checked:
            return
        with reading(self.path, f"'{name}'"), self._archive.open(self._member(name)) as file:
            while file.read(_BLOCK):
                pass
        self._checked.add(name)

    def _stream(self, name: str) -> _Rows:
        if name not in self._streams:
            with reading(self.path, f"'{name}'"):
                self._streams[name] = _Rows(self.path, name, self._archive, self._member(name))
        return self._streams[name]

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise FlywheelError(f"{self.path} has no '{name}'; it has {self.names}.")
        return self._members[name]


class _Rows:
    """One array, read forward; going back opens it anew."""

    def __init__(self, path: Path, name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        self._path, self._name, self._archive, self._member = path, name, archive, member
        check_size(path, f"'{name}'", member.file_size, member.compress_size)
        self._file: IO[bytes] = archive.open(member)
        self.shape, self.dtype = self._header()
        self._row_bytes = int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize
        promised = (self.shape[0] if self.shape else 1) * self._row_bytes
        if promised != member.file_size - self._file.tell():
            raise FlywheelError(f"{path}: '{name}' is said to be {self.dtype} {self.shape}, which is not the size of its data.")
        self._position = 0

    def read(self, start: int, stop: int) -> Array:
        with reading(self._path, f"'{self._name}'"):
            if start < self._position:
                self._file.close()
                self._file = self._archive.open(self._member)
                self._header()
                self._position = 0
            self._take((start - self._position) * self._row_bytes, keep=False)
            count = max(stop - start, 0)
            data = self._take(count * self._row_bytes, keep=True)
            self._position = start + count
            return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def _take(self, count: int, *, keep: bool) -> bytearray:
        data = bytearray()
        while count:
            block = self._file.read(min(count, _BLOCK))
            if not block:
                raise FlywheelError(f"{self._path}: '{self._name}' is cut off.")
            count -= len(block)
            if keep:
                data += block
        return data

    def _header(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        format_: Any = np.lib.format  # numpy 1 has no types for it
        version = format_.read_magic(self._file)
        read = {(1, 0): format_.read_array_header_1_0, (2, 0): format_.read_array_header_2_0}.get(version)
        if read is None:
            raise FlywheelError(f"{self._path}: '{self._name}' is an npy array of version {version}, which is not read.")
        shape, fortran, dtype = read(self._file)
        check_dtype(self._path, f"'{self._name}'", dtype)
        if fortran and len(shape) > 1:
            raise FlywheelError(f"{self._path}: '{self._name}' is stored column by column; save np.ascontiguousarray of it.")
        if any(size < 0 for size in shape):
            raise FlywheelError(f"{self._path}: '{self._name}' has the shape {shape}.")
        return shape, dtype


def _name(path: Path, member: zipfile.ZipInfo) -> str:
    name = member.filename.removesuffix(".npy")
    if name == member.filename or not _NAME.fullmatch(name) or ".." in name.split("/") or member.flag_bits & 1:
        raise FlywheelError(f"{path} has the member {member.filename!r}, which is no array of an npz file; it is not read.")
    return name

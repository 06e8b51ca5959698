"""A disk in memory: what is there after some of the changes that were asked of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

DERIVED = ("index.sqlite", "index.sqlite-journal")
"""Files that a store makes again, and that SQLite writes without `os`."""
FOLDER = -2
"""What stands for a folder where files have numbers."""
WAYS = ("whole", "missing", "half", "zeros")
"""What a power loss may leave of data that were not synced: their first half, or a file that has grown, without them."""
SECTORS = ("even", "odd")
"""And where they overwrote others: every other sector, which a disk writes whole or not at all; the rest is as it was."""
_SECTOR = 512


@dataclass(frozen=True)
class Change:
    """One call's effect: on a file's data (`file`), or on names in a folder (`folder`), or a sync of either."""

    kind: str
    """data, size, names, sync or told."""
    file: int = -1
    folder: str = ""
    offset: int = 0
    data: bytes = b""
    overwrites: bool = False
    """Whether the file had data at the offset before."""
    names: tuple[tuple[str, int | None], ...] = ()
    """Names in `folder` and the files they stand for from now on; None removes one. They change together."""
    text: str = ""


@dataclass
class Disk:
    """Files by number, and what every name stands for."""

    files: dict[int, bytearray] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path) -> tuple[Disk, dict[int, int]]:
        """A folder as it is, and the number of each inode."""
        disk = cls()
        numbers: dict[int, int] = {}
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_dir():
                disk.names[name] = FOLDER
            elif path.name not in DERIVED:
                number = numbers.setdefault(path.stat().st_ino, len(numbers))
                disk.files[number] = bytearray(path.read_bytes())
                disk.names[name] = number
        return disk, numbers

    def copy(self) -> Disk:
        """A disk of the same content."""
        return Disk({number: bytearray(data) for number, data in self.files.items()}, dict(self.names))

    def apply(self, change: Change, how: str = "whole") -> None:
        """Let a change happen: whole, or for data also one of the other `WAYS` or `SECTORS`."""
        data = self.files.setdefault(change.file, bytearray()) if change.file >= 0 else bytearray()
        if change.kind == "size":
            data[:] = data[: change.offset].ljust(change.offset, b"\0")
        elif change.kind == "data":
            _write(data, change.offset, change.data[: len(change.data) // 2] if how == "half" else change.data, how)
        elif change.kind == "names":
            for name, file in change.names:
                if file is None:
                    self.names.pop(name, None)
                else:
                    self.names[name] = file

    def build(self, root: Path) -> None:
        """Write it to a folder; files whose folder is not there are out of reach and left away."""
        made: dict[int, Path] = {}
        root.mkdir(parents=True)
        for name, file in sorted(self.names.items()):
            path = root / name
            if not path.parent.is_dir():
                continue
            if file == FOLDER:
                path.mkdir()
            elif file in made:
                os.link(made[file], path)
            else:
                path.write_bytes(self.files.get(file, b""))
                made[file] = path

    def key(self) -> int:
        """Equal for equal content and names."""
        numbers: dict[int, int] = {}
        content = [
            (name, numbers.setdefault(file, len(numbers)), bytes(self.files.get(file, b"")))
            for name, file in sorted(self.names.items())
        ]
        return hash(tuple(content))


def _write(data: bytearray, offset: int, new: bytes, how: str) -> None:
    size, end = len(data), offset + len(new)
    data[:] = data.ljust(end, b"\0")
    for at in range(offset // _SECTOR * _SECTOR, end, _SECTOR):
        first, last = max(at, offset), min(at + _SECTOR, end)
        is_missing = how in SECTORS and first < size and at // _SECTOR % 2 == SECTORS.index(how)
        if how != "zeros" and not is_missing:
            data[first:last] = new[first - offset : last - offset]

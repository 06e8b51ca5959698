"""The records of an RLDS data set's TFRecord shards, without TensorFlow: found by their lengths, identified by their CRCs."""

from __future__ import annotations

import os
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import json_hash
from flywheel.datasets.importers.files import reading
from flywheel.datasets.tfrecord import OVERHEAD, masked_crc, read_record

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")


class Records:
    """N records in shards of known lengths; record i is the i-th of them all."""

    def __init__(self, shards: list[tuple[Path, int]]) -> None:
        self._paths = [path for path, _ in shards]
        self._offsets = lru_cache(maxsize=4)(_offsets)
        self._ends = np.cumsum([count for _, count in shards], dtype=np.int64)

    def __len__(self) -> int:
        """The number of records that the shards are said to hold."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, index: int) -> tuple[Path, int]:
        """The shard of a record, and its number there."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return self._paths[shard], index - (int(self._ends[shard - 1]) if shard else 0)

    def identity(self, index: int) -> str:
        """A hash of the record's length and CRC, which tell its content without reading it."""
        path, number = self.place(index)
        offset = self._offset(path, number)
        with reading(path, f"record {number}"), path.open("rb") as file:
            length, _ = _HEADER.unpack(os.pread(file.fileno(), _HEADER.size, offset))
            (crc,) = _CRC.unpack(os.pread(file.fileno(), _CRC.size, offset + _HEADER.size + length))
        return json_hash([length, crc])

    def read(self, index: int) -> bytes:
        """A record's payload, checked against its CRC."""
        path, number = self.place(index)
        offset = self._offset(path, number)
        with reading(path, f"record {number}"), path.open("rb") as file:
            return read_record(file.fileno(), offset).payload

    def _offset(self, path: Path, number: int) -> int:
        offsets = self._offsets(path)
        if number >= len(offsets):
            raise FlywheelError(f"{path} holds {len(offsets)} whole records, and more are listed; it is cut off or damaged.")
        return offsets[number]


def _offsets(path: Path) -> tuple[int, ...]:
    """Where the records of a shard begin, up to the first that is damaged."""
    found = []
    with reading(path, "the shard"), path.open("rb") as file:
        stop, offset = os.fstat(file.fileno()).st_size, 0
        while stop - offset >= OVERHEAD:
            header = os.pread(file.fileno(), _HEADER.size, offset)
            length, crc = _HEADER.unpack(header)
            if masked_crc(header[:8]) != crc or length > stop - offset - OVERHEAD:
                break
            found.append(offset)
            offset += OVERHEAD + length
    return tuple(found)

"""Bytes from one process to another through shared memory: one that writes frames and never waits, one that reads them.

    0   head   where the next frame begins, counted in bytes since the ring was made; only the writer changes it
    8   tail   what the reader no longer needs ends here; only the reader changes it
    16  errors how many errors the reader has reported; only the reader changes it
    64  data   frames, each in one piece and a multiple of 16 bytes long

The writer tells each new head through a pipe as well. That makes the order certain on every processor: what was written before
a system call is seen by whoever was told through it. The head in memory is read only when the writer is dead.
The memory has no name, so that a kill leaves nothing behind.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flywheel.core.errors import FlywheelError

HEADER = struct.Struct("<IB3xQ")
"""A frame's length with this header, its kind, and its number, which counts from 1 without a gap."""
ALIGNMENT = 16
_SKIP = 0
"""The kind of what fills the end of the ring when the next frame has no room there."""
_DATA = 64
_HEAD, _TAIL, _ERRORS = range(3)
_RESERVE = 128
"""Bytes that only a `small` frame may take, so that the end of an episode always fits."""


class Frame(NamedTuple):
    """A frame as it was read, a copy of its own."""

    data: bytes
    kind: int
    number: int
    end: int
    """What may be released once it is taken care of."""


def create_memory(size: int) -> int:
    """A descriptor of so many bytes of memory, to be handed to another process; raises `FlywheelError` if they are not there."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("flywheel-recorder")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.truncate(descriptor, size + _DATA)
    except OSError as error:
        os.close(descriptor)
        raise FlywheelError(f"There is no memory for a recorder's ring of {size} bytes ({error.strerror}).") from None
    return descriptor


class Ring:
    """One side's view of the memory behind a descriptor of `create_memory`."""

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        # Pages that are there already cost the control loop no page fault.
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        try:
            self.memory = memoryview(mmap.mmap(descriptor, size, flags=flags))[_DATA:]
        except OSError as error:
            raise FlywheelError(f"There is no memory for a recorder's ring of {size - _DATA} bytes ({error.strerror}).") from None
        self.array: npt.NDArray[np.uint8] = np.frombuffer(self.memory, np.uint8)
        """The data, to write into at the offset that `reserve` gives."""
        self.size = size - _DATA
        self._counters = memoryview(self.memory.obj)[:_DATA].cast("Q")

    @property
    def head(self) -> int:
        """Where the next frame begins."""
        return self._counters[_HEAD]

    @property
    def used(self) -> int:
        """Bytes that the reader still needs."""
        return self._counters[_HEAD] - self._counters[_TAIL]

    @property
    def room(self) -> int:
        """Bytes that frames may take now, where none of them meets the end of the ring."""
        return self.size - _RESERVE - self.used

    @property
    def errors(self) -> int:
        """How many errors the reader has reported."""
        return self._counters[_ERRORS]

    def count_error(self) -> None:
        """Reader: let the writer know that there is something to be told."""
        self._counters[_ERRORS] += 1

    def reserve(self, length: int, *, small: bool = False) -> int:
        """Writer: the offset in `array` where a frame of that length may be written; -1 if there is no room for it now."""
        head = self._counters[_HEAD]
        offset = head % self.size
        skipped = self.size - offset if offset + length > self.size else 0
        room = self.size - (head - self._counters[_TAIL]) - (0 if small else _RESERVE)
        if skipped + length > room:
            return -1
        if skipped:
            HEADER.pack_into(self.memory, offset, skipped, _SKIP, 0)
            return 0
        return offset

    def following(self, offset: int, length: int) -> int:
        """Writer: the head after a frame that was written where `reserve` said."""
        head = self._counters[_HEAD]
        return head + (offset - head) % self.size + length

    def commit(self, head: int) -> None:
        """Writer: everything before `head` is written and told."""
        self._counters[_HEAD] = head

    def frames(self, head: int) -> Iterator[Frame]:
        """Reader: the frames from the tail up to a head that was told."""
        position = self._counters[_TAIL]
        while position < head:
            offset = position % self.size
            length, kind, number = HEADER.unpack_from(self.memory, offset)
            position += length
            if kind != _SKIP:
                yield Frame(bytes(self.memory[offset : offset + length]), kind, number, position)

    def release(self, end: int) -> None:
        """Reader: everything before `end` may be overwritten."""
        self._counters[_TAIL] = end

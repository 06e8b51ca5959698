"""Which episode ids are being written by anybody: what makes an append of the same id, by whichever process, happen once.

The lock file of appending holds 16 bytes per claimed id. A writer reads what others have added since its last look instead of
their records, so that an append costs the same beside many writers as alone. Claims are hints of one run of the machine: an
id that is not among them is new to the store, and one that is among them is looked up in the store itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flywheel.datasets.filesystem import refusing

_WIDTH = 16
_LARGEST = 1 << 20
"""Bytes at which the file is full and begun anew; whoever has it open looks at the store again then."""


class Unsynced:
    """The records that are written and not on the disk yet: their writers share a lock, and who has it alone knows of none.

    Until then a record may still be cut off, because the disk refuses it, and nobody else may promise that it is stored.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def begin(self) -> None:
        """Say that a record is about to be written; call it with the claims held."""
        self._lock(fcntl.LOCK_SH)

    def end(self) -> None:
        """Say that it is on the disk, or cut off."""
        self._lock(fcntl.LOCK_UN)

    def wait(self) -> None:
        """Wait until every record is on the disk, or cut off; call it with the claims held, so that no new one is begun."""
        self._lock(fcntl.LOCK_EX)
        self.end()

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lock(self, kind: int) -> None:
        with refusing(self._path):
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            fcntl.flock(self._descriptor, kind)


class Claims:
    """One writer's view of the claims; use everything but the constructor within `held`."""

    def __init__(self, path: Path, look_again: Callable[[], None]) -> None:
        """`look_again` is called, with the lock held, when claims may have been missed: the store itself has to be read."""
        self._path, self._look_again = path, look_again
        self._descriptor = -1
        self._claimed: set[bytes] = set()
        self._end = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Alone among all writers in claiming and writing."""
        with refusing(self._path):
            is_new = self._lock()
        try:
            size = self._size()
            if is_new:
                self._end = size // _WIDTH * _WIDTH
                self._look_again()
            elif size > self._end:
                data = os.pread(self._descriptor, size - self._end, self._end)
                self._claimed.update(data[at : at + _WIDTH] for at in range(0, len(data) - _WIDTH + 1, _WIDTH))
                self._end += len(data) // _WIDTH * _WIDTH
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def claim(self, episode_id: str) -> bool:
        """Claim an id; False if it was claimed before, by whoever, so that it may be stored."""
        key = hashlib.blake2b(episode_id.encode(), digest_size=_WIDTH).digest()
        if key in self._claimed:
            return False
        with refusing(self._path):
            os.pwrite(self._descriptor, key, self._end)
        self._claimed.add(key)
        self._end += _WIDTH
        return True

    def close(self) -> None:
        """Let go of the file; the next `held` begins anew."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lock(self) -> bool:
        """Lock the file that claims are written to now; returns whether it is another one than before."""
        is_new = False
        while True:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
                is_new = True
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            if self._size() < _LARGEST:
                return is_new
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self._path), os.fstat(self._descriptor)):
                    self._path.unlink()
            self.close()

    def _size(self) -> int:
        # Not `fstat`: Linux (since 6.13) stamps the next write to a file whose times were asked for with a finer time, which the
        # file system writes down. It makes the sync of each record, in another file, half as slow again (0.25 for 0.17 ms).
        return os.lseek(self._descriptor, 0, os.SEEK_END)

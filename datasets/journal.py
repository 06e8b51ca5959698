"""A writer's own file: append-only TFRecord, locked while its writer lives, a shard in the making.

Every function that creates, seals or recovers a journal must be called under `Layout.locked()`. So nobody ever meets a
journal between its creation and its lock, and two processes never recover the same one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flywheel.core.errors import FlywheelError
from flywheel.core.files import fsync_folder, write_atomically
from flywheel.datasets.layout import Layout, Shards
from flywheel.datasets.tfrecord import Damage, DamageWarning, Record, frame, scan

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Journal:
    """An open, locked journal. `size` is the end of its last whole record."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.inode = os.fstat(descriptor).st_ino
        self.size = 0
        self.records = 0

    @classmethod
    def create(cls, folder: Path) -> Journal:
        """A new journal, durable by name; raises `FlywheelError` on a full disk."""
        path = folder / f"{os.getpid()}-{secrets.token_hex(8)}.tfrecord"
        with _refusing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fsync_folder(folder)
        return cls(path, descriptor)

    def write(self, framed: bytes) -> int:
        """Write one framed record behind the last, not yet durable, and return its offset.

        Raises `FlywheelError` if the disk is full; the file then ends where it did before.
        """
        offset = self.size
        with _refusing(self.path), self._undone(offset):
            view = memoryview(framed)
            while view:
                view = view[os.pwrite(self.descriptor, view, offset + len(framed) - len(view)) :]
        self.size = offset + len(framed)
        self.records += 1
        return offset

    def sync(self, offset: int) -> None:
        """Make the last record, written at `offset`, durable; raises `FlywheelError`, without the record, if the disk refuses."""
        with _refusing(self.path), self._undone(offset):
            os.fdatasync(self.descriptor)

    @contextmanager
    def _undone(self, offset: int) -> Iterator[None]:
        """Cut the file back if the disk refuses, so that the next record follows the last good one."""
        try:
            yield
        except OSError:
            self.records -= self.size > offset
            self.size = offset
            os.ftruncate(self.descriptor, offset)
            raise

    def close(self) -> None:
        """Give up the lock; what is in the file stays for the next writer to recover."""
        os.close(self.descriptor)


def publish(layout: Layout, journal: Path, records: int, size: int) -> None:
    """Make a durable journal of whole records a shard, once. Call it under the store's lock.

    The order is what makes it safe: the shard's name is durable before the list that names it, and the journal's name goes
    last. A kill in between leaves a shard that nobody lists, which the next call replaces, or a journal that is listed already.
    """
    with _refusing(layout.info):
        shards = layout.read_shards()
        if not _is_listed(layout, shards, journal):
            os.truncate(journal, size)  # where the disk refused a record, and then to cut it off, too
            shard = layout.path / shards.file_name(len(shards.lengths))
            following = shards.add(records, size)
            shard.unlink(missing_ok=True)
            os.link(journal, shard)
            fsync_folder(layout.path)
            layout.write_shards(following)
        journal.unlink()


def recover(layout: Layout) -> None:
    """Seal the journals of dead writers, each after cutting a torn tail, which nobody was told is stored.

    Call it under the store's lock. Raises `FlywheelError` on a full disk; nothing is lost then.
    """
    for path in sorted(layout.journals.glob("*.tfrecord")):
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with _refusing(path):
                _recover(layout, path, descriptor)
        except BlockingIOError:
            pass  # its writer lives
        finally:
            os.close(descriptor)


def _recover(layout: Layout, path: Path, descriptor: int) -> None:
    items = list(scan(descriptor))
    if items and isinstance(items[-1], Damage):
        os.ftruncate(descriptor, items.pop().offset)
    records = [item for item in items if isinstance(item, Record)]
    if len(records) < len(items):
        _set_aside(layout, path, records)
    os.fsync(descriptor)
    if records:
        publish(layout, path, len(records), sum(record.end - record.offset for record in records))
    else:
        path.unlink()


def _set_aside(layout: Layout, path: Path, records: list[Record]) -> None:
    """Put a journal's whole records in its place; the damaged file is kept for a person to look at."""
    kept = layout.damaged / path.name
    warnings.warn(
        f"{path} was damaged in the middle; its whole records are sealed and it is kept as {kept}.", DamageWarning, stacklevel=2
    )
    kept.parent.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        os.link(path, kept)
    write_atomically(path, b"".join(frame(record.payload) for record in records))


def _is_listed(layout: Layout, shards: Shards, journal: Path) -> bool:
    """Whether a journal is a shard already: the same file under a listed name."""
    own = journal.stat()
    if own.st_nlink < 2:
        return False
    names = (layout.path / shards.file_name(number) for number in reversed(range(len(shards.lengths))))
    return any(os.path.samestat(own, name.stat()) for name in names if name.exists())


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Tell what the disk refused as a `FlywheelError`."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise FlywheelError(
                f"The disk is full: {path} cannot grow. Every acknowledged episode is safe; free some space and run it again."
            ) from None
        raise FlywheelError(
            f"Writing {path} failed ({error.strerror}). Every acknowledged episode is safe; check the disk."
        ) from None

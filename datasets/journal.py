"""A writer's own file: append-only TFRecord, locked while its writer lives, a shard in the making.

Every function that creates, seals or recovers a journal must be called under `Layout.locked()`. So nobody ever meets a
journal between its creation and its lock, and two processes never recover the same one.
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import secrets
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flywheel.core.files import fsync_folder
from flywheel.datasets.blank import blank
from flywheel.datasets.filesystem import boot_id, locks_tell_the_dead, refusing
from flywheel.datasets.index import Fingerprint
from flywheel.datasets.layout import MANY_SHARDS, Layout, Shards
from flywheel.datasets.tfrecord import Damage, DamageWarning, Framed, Record, frame, scan, write_pieces

_ADVISE_EVERY = 1_000
_AHEAD = 1 << 20
"""Bytes of room that a writer makes at most ahead of its records."""
_BLOCK = 4096


class StoreWarning(UserWarning):
    """Something that a person should see to before it becomes a problem."""


class Journal:
    """An open, locked journal. `size` is the end of its last whole record."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.inode = os.fstat(descriptor).st_ino
        self.size = 0
        self.records = 0
        self._room = 0
        """The size of the file, `size` and what is ahead."""

    @classmethod
    def create(cls, folder: Path) -> Journal:
        """A new journal, durable by name; raises `FlywheelError` if the disk refuses.

        Its name tells the boot of the host that writes it, for file systems whose locks do not reach other hosts.
        """
        path = folder / f"{boot_id()}-{os.getpid()}-{secrets.token_hex(8)}.tfrecord"
        with refusing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fsync_folder(folder)
            except OSError:
                os.close(descriptor)
                path.unlink()
                raise
        return cls(path, descriptor)

    def write(self, framed: Framed) -> int:
        """Write one record behind the last, not yet durable, and return its offset.

        Raises `FlywheelError` if the disk is full; the file then ends where it did before.
        """
        offset = self.size
        with refusing(self.path), self._undone(offset):
            write_pieces(self.descriptor, framed.pieces, offset)
        self.size = offset + framed.size
        self.records += 1
        if self.size > self._room:
            self._room = self.size
            self._make_room(min(offset, _AHEAD) if framed.size <= _AHEAD // 8 else 0)
        return offset

    def _make_room(self, size: int) -> None:
        """Make room ahead, durable with the record before it: syncing a file that has grown takes about twice as long.

        As much again as there are records, so that a journal of one episode is written once; none for large records, whose own
        writing is what takes the time. On a disk that has not enough room left, the file grows with each record.
        """
        if size:
            up_to_block = -(self._room + size) % _BLOCK
            with suppress(OSError):
                self._room += os.pwrite(self.descriptor, blank(self._room, size + up_to_block), self._room)

    def sync(self, offset: int) -> None:
        """Make the last record, written at `offset`, durable; raises `FlywheelError`, without the record, if the disk refuses."""
        with refusing(self.path), self._undone(offset):
            os.fdatasync(self.descriptor)

    @contextmanager
    def _undone(self, offset: int) -> Iterator[None]:
        """Cut the file back if the disk refuses, so that the next record follows the last good one."""
        try:
            yield
        except OSError:
            self.records -= self.size > offset
            self.size = self._room = offset
            os.ftruncate(self.descriptor, offset)
            raise

    def close(self) -> None:
        """Give up the lock; what is in the file stays for the next writer to recover."""
        os.close(self.descriptor)


def publish(layout: Layout, journal: Path, records: int, size: int) -> str:
    """Make a durable journal of whole records a shard, once, and return the shard's name. Call it under the store's lock.

    The order is what makes it safe: the shard's name is durable before the list that names it, and the journal's name goes
    last. A kill in between leaves a shard that nobody lists, which the next call replaces, or a journal that is listed already.
    Warns with a `StoreWarning` when there are many shards (`flywheel store compact` makes them few).
    """
    with refusing(layout.info):
        shards = layout.read_shards()
        name = _listed_name(layout, shards, journal)
        if name is None:
            _cut(journal, size)
            name = shards.file_name(len(shards.lengths))
            shard, following = layout.path / name, shards.add(records, size)
            _free(layout, shard)
            os.link(journal, shard)
            fsync_folder(shard.parent)
            layout.write_shards(following)
            _advise(layout, len(following.lengths))
        journal.unlink()
    return name


def _cut(journal: Path, size: int) -> None:
    """End a journal with its last record, durably: TFDS must never meet what is ahead, nor a record that the disk refused."""
    if journal.stat().st_size > size:
        descriptor = os.open(journal, os.O_RDWR | os.O_NOFOLLOW)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _free(layout: Layout, shard: Path) -> None:
    """Make room for a shard's name. What a kill has left there is a journal, too, or becomes one shard of two names; a file
    of this name alone was listed once, by a list that somebody has put back since, and is kept.
    """
    with suppress(FileNotFoundError):
        if shard.stat().st_nlink == 1:
            kept = layout.damaged / f"{shard.relative_to(layout.path).as_posix().replace('/', '-')}-unlisted"
            warnings.warn(f"{shard} is not listed; it is kept as {kept}.", DamageWarning, stacklevel=4)
            keep(shard, kept)
        shard.unlink()


def _advise(layout: Layout, count: int) -> None:
    if count >= MANY_SHARDS and count % _ADVISE_EVERY == 0:
        warnings.warn(
            f"{layout.path} has {count:,} shards, which makes it slow to open; 'flywheel store compact' merges them while "
            "others write and read.",
            StoreWarning,
            stacklevel=4,
        )


def recover(layout: Layout) -> None:
    """Seal the journals of dead writers, each after cutting a torn tail, which nobody was told is stored.

    A journal whose lock is free has a dead writer, where locks reach every writer: on a local file system. On one that is not
    known to be local, a journal of another host, or of this one before it was started again, may still be written to. It is
    left alone then, with a `StoreWarning`: its episodes are read all the same, and `flywheel store repair` seals them once a
    person knows that nobody writes. Call it under the store's lock. Raises `FlywheelError` on a full disk; nothing is lost then.
    """
    for path in sorted(layout.journals.glob("*.tfrecord")):
        if _dead(path):
            recover_journal(layout, path)


def _dead(path: Path) -> bool:
    own = path.name.startswith(f"{boot_id()}-")
    if own or locks_tell_the_dead(path.parent):
        return True  # if its lock is free, too
    warnings.warn(
        f"{path} was begun on another host, or before this one was started again; once nobody writes to it, seal it with "
        "'flywheel store repair'.",
        StoreWarning,
        stacklevel=3,
    )
    return False


def recover_journal(layout: Layout, path: Path) -> None:
    """Seal one journal, unless its writer holds its lock."""
    with refusing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with refusing(path):
            _recover(layout, path, descriptor)
    except BlockingIOError:
        pass  # its writer lives
    finally:
        os.close(descriptor)


def _recover(layout: Layout, path: Path, descriptor: int) -> None:
    """Payloads are not kept: a journal may be larger than the memory."""
    whole = end = 0
    damages: list[Damage] = []
    for item in scan(descriptor):
        if isinstance(item, Damage):
            damages.append(item)
        else:
            whole, end = whole + 1, item.end
    if damages and damages[-1].torn:
        os.ftruncate(descriptor, damages.pop().offset)
    if whole and _is_copied(layout, path, whole):
        path.unlink()
        return
    if damages:
        end = _set_aside(layout, path, descriptor)
    os.fsync(descriptor)
    if whole:
        publish(layout, path, whole, end)
    else:
        path.unlink()


def _set_aside(layout: Layout, path: Path, descriptor: int) -> int:
    """Put a journal's whole records in its place, and return their size; the damaged file is kept for a person to look at."""
    kept = layout.damaged / path.name
    warnings.warn(f"{path} was damaged; its whole records are sealed and it is kept as {kept}.", DamageWarning, stacklevel=2)
    keep(path, kept)
    write_records(path, (item.payload for item in scan(descriptor) if isinstance(item, Record)))
    fsync_folder(path.parent)
    return path.stat().st_size


def keep(path: Path, kept: Path) -> None:
    """Give a file a second, durable name in the folder of damaged ones."""
    kept.parent.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        os.link(path, kept)
    for folder in (kept.parent, kept.parent.parent):
        fsync_folder(folder)


def write_records(path: Path, payloads: Iterable[bytes]) -> None:
    """Write a file of records, whole or not at all; its name is durable once its folder is synced, too."""
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    end = 0
    try:
        for payload in payloads:
            framed = frame(payload)
            write_pieces(descriptor, framed.pieces, end)
            end += framed.size
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)


def _is_copied(layout: Layout, journal: Path, records: int) -> bool:
    """Whether a shard holds the same bytes: in a copy of a store that was made in mid-seal, names of one file are two files."""
    shards, mark = layout.read_shards(), Fingerprint.of(journal, records)
    candidates = [layout.path / name for name, length in zip(shards.names, shards.lengths, strict=True) if length == records]
    return any(Fingerprint.of(path, records) == mark and filecmp.cmp(path, journal, shallow=False) for path in candidates)


def _listed_name(layout: Layout, shards: Shards, journal: Path) -> str | None:
    """The shard that a journal is already, the same file under a listed name; None if it is none."""
    own = journal.stat()
    if own.st_nlink < 2:
        return None
    for name in reversed(shards.names):
        with suppress(FileNotFoundError):
            if os.path.samestat(own, (layout.path / name).stat()):
                return name
    return None

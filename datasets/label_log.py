"""The label log of one store: `.meta/labels.jsonl`, read without a lock, appended to under one, durable when `append` returns."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from flywheel.core.errors import FlywheelError
from flywheel.core.files import fsync_folder
from flywheel.datasets.labels import Entry, Label, check_label, encode_label, extend_chain, parse_label, scan_labels, whole
from flywheel.datasets.tfrecord import Damage, DamageWarning

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LabelLog:
    """Every label of a store by episode, brought up to date by `refresh`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, list[Entry]] = {}
        """The labels of each episode that has any, oldest first."""
        self.version = 0
        """Counts the changes that `refresh` has seen."""
        self._inode, self._end = -1, 0

    def refresh(self) -> None:
        """Take in the lines that were added since the last call; a damaged one is left out with a `DamageWarning`."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._end:  # restored from a copy, perhaps
                    self.entries, self._inode, self._end = {}, status.st_ino, 0
                    self.version += 1
                if status.st_size > self._end:
                    self._take(os.pread(file.fileno(), status.st_size - self._end, self._end))
        except FileNotFoundError:
            if self._inode >= 0:
                self.entries, self._inode, self._end = {}, -1, 0
                self.version += 1

    def as_of(self, episode_id: str, chain: int) -> list[Entry] | None:
        """The labels that an episode had when its chain was this one; None if it never was."""
        entries = self.entries.get(episode_id, [])
        if not chain:
            return []
        ends = (number for number, entry in enumerate(entries, start=1) if entry.chain == chain)
        end = next(ends, None)
        return None if end is None else entries[:end]

    def append(self, labels: Callable[[], Sequence[Label]]) -> None:
        """Add the labels that a function gives, which is called when no one else can add any, on the newest state.

        Durable when it returns. Raises `FlywheelError` for a label that there is not, and when the disk refuses; the log is
        then as it was. A kill in between may leave the first of several labels standing; doing it again does no harm.
        """
        with self._locked() as descriptor:
            self.refresh()
            lines = b"".join(encode_label(check_label(label)) for label in labels())
            if lines:
                self._write(descriptor, lines)
        self.refresh()

    def _take(self, data: bytes) -> None:
        tail = data.rfind(b"\n") + 1
        if not whole(data[tail:]):
            data = data[:tail]  # torn, or being written this moment: looked at again next time
        for item in scan_labels(data):
            if isinstance(item, Damage):
                self._warn(self._end + item.offset, "does not agree with its CRC")
            else:
                self._take_line(item)
        self._end += len(data)
        self.version += bool(data)

    def _take_line(self, body: bytes) -> None:
        try:
            label = parse_label(body)
        except ValueError as error:
            self._warn(self._end, str(error))
            return
        entries = self.entries.setdefault(label.episode_id, [])
        entries.append(Entry(label, extend_chain(entries[-1].chain if entries else 0, body)))

    def _warn(self, offset: int, reason: str) -> None:
        warnings.warn(
            f"{self.path}: a label at or after byte {offset} is left out: {reason}. 'flywheel store verify' tells more.",
            DamageWarning,
            stacklevel=5,
        )

    @contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = self._lock()
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _lock(self) -> int:
        """The open log, locked; anew if it was replaced by another file, say a restored one, while this waited."""
        with self._refusing():
            while True:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                        return descriptor
                os.close(descriptor)

    def _write(self, descriptor: int, lines: bytes) -> None:
        size = os.fstat(descriptor).st_size
        tail = _tail(descriptor, size)
        if whole(tail):
            lines = b"\n" + lines  # a whole label whose line end was lost: it was promised to be stored
        else:
            size -= len(tail)
        with self._refusing(), _undone(descriptor, size):
            os.ftruncate(descriptor, size)
            view = memoryview(lines)
            while view:
                view = view[os.pwrite(descriptor, view, size + len(lines) - len(view)) :]
            os.fdatasync(descriptor)
            if not size:
                fsync_folder(self.path.parent)  # the name is new, or nobody was told yet that it is safe

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = "the disk is full" if error.errno in _FULL else error.strerror
            raise FlywheelError(
                f"{self.path} cannot be written ({why}); no label was changed. Mend that and run it again."
            ) from None


@contextmanager
def _undone(descriptor: int, size: int) -> Iterator[None]:
    """Cut the file back if the disk refuses, so that what nobody was told is stored is not read either."""
    try:
        yield
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _tail(descriptor: int, size: int) -> bytes:
    """What stands behind the last line end: nothing, unless a writer died."""
    tail = b""
    while size and b"\n" not in tail:
        start = max(0, size - 4096)
        tail = os.pread(descriptor, size - start, start) + tail
        size = start
    return tail[tail.rfind(b"\n") + 1 :]


def standing(labels: Iterable[Label], field: str) -> list[Label]:
    """Of an episode's labels, oldest first, those of a field that no undo took back; the last one holds."""
    found: list[Label] = []
    for label in labels:
        if label.field == field:
            found.pop() if label.undo and found else found.append(label)
    return found


def undone(entries: Sequence[Entry], episode_id: str, field: str, by: str, reason: str) -> Label:
    """The label that takes the newest standing one of a field back; raises `FlywheelError` if none stands."""
    found = standing((entry.label for entry in entries), field)
    if not found:
        raise FlywheelError(f"Episode '{episode_id}' has no '{field}' label to undo; 'flywheel store history' shows them.")
    before = found[-2].value if len(found) > 1 else None
    return Label(episode_id, field, before, by, reason, time.time_ns(), undo=True)

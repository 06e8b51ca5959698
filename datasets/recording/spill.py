"""The steps of an episode that is being recorded, on the disk: what survives a crash in mid-episode.

    .journal/<boot>-<pid>-<random>.recording      one per recorder, locked while it or its process lives
    .journal/<boot>-<pid>-<random>-000007.spill   its seventh episode; gone once the episode is stored

A spill is a TFRecord file of the ring's frames. It is removed after the episode was appended, and an append of an id that is
stored already does nothing: whenever the kill comes, the episode is stored once.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Self

from flywheel.core.errors import SpecError
from flywheel.core.files import fsync_folder
from flywheel.datasets.filesystem import boot_id, locks_tell_the_dead, refusing
from flywheel.datasets.journal import StoreWarning, keep
from flywheel.datasets.layout import Layout
from flywheel.datasets.recording.recorded import Recording
from flywheel.datasets.recording.ring import HEADER
from flywheel.datasets.recording.step_layout import BREAK, FINISH, StepLayout
from flywheel.datasets.schema import Schema
from flywheel.datasets.tfrecord import Damage, DamagedError, Record, frame, scan, write_pieces
from flywheel.datasets.writer import EpisodeWriter

_SESSION = ".recording"
_MOST_BYTES = (1 << 31) - (1 << 20)
"""Of a record: protocol buffers, with which TFDS reads it, end at 2 GiB."""


class Spill:
    """The spill that is being written. `size` is the end of its last whole frame, `number` that frame's number."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.size = 0
        self.number = 0
        self.is_whole = False
        """Whether its last frame ends the episode."""
        self._synced = 0

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new one, durable by name; raises `FlywheelError` if the disk refuses."""
        with refusing(path):
            spill = cls(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
            fsync_folder(path.parent)
        return spill

    @classmethod
    def resume(cls, path: Path) -> Self:
        """One that a killed process has left, without what it had not written to the end."""
        with refusing(path):
            spill = cls(path, os.open(path, os.O_RDWR | os.O_NOFOLLOW))
            for item in scan(spill._descriptor):
                if isinstance(item, Record):
                    spill._note(item.payload, item.end)
            os.ftruncate(spill._descriptor, spill.size)
        return spill

    def append(self, frames: list[bytes]) -> None:
        """Write frames, safe from a kill; raises `FlywheelError`, with the file as it was, if the disk refuses."""
        pieces = [piece for item in frames for piece in frame(item).pieces]
        with refusing(self.path):
            try:
                write_pieces(self._descriptor, pieces, self.size)
            except OSError:
                os.ftruncate(self._descriptor, self.size)
                raise
        self._note(frames[-1], self.size + sum(map(len, pieces)))

    def sync(self) -> None:
        """Make what was written safe from a power loss, too; raises `FlywheelError` if the disk refuses."""
        if self._synced < self.size:
            with refusing(self.path):
                os.fdatasync(self._descriptor)
            self._synced = self.size

    def close(self) -> None:
        """Stop writing; the file stays."""
        os.close(self._descriptor)

    def _note(self, last: bytes, end: int) -> None:
        _, kind, self.number = HEADER.unpack_from(last)
        self.is_whole = kind in (FINISH, BREAK)
        self.size = end


def read_spill(path: Path, layout: StepLayout) -> Recording | None:
    """The recording of a spill, also one that was cut off; None for an empty one.

    Raises `DamagedError` if it holds something else; what is torn off at its end is left out.
    """
    try:
        with path.open("rb") as file:
            frames = _whole(file.fileno())
            first = next(frames, None)
            return None if first is None else Recording(layout, chain((first,), frames))
    except DamagedError as error:
        raise DamagedError(f"{path}: {error}") from None


def _whole(descriptor: int) -> Iterator[bytes]:
    """All frames up to the first that is damaged: what follows it is not known to follow."""
    for item in scan(descriptor):
        if isinstance(item, Damage):
            if not item.torn:
                warnings.warn(f"A step of a recording is damaged: {item.reason} The steps before it are kept.", StoreWarning, 2)
            return
        yield item.payload


def open_session(journals: Path) -> tuple[str, int]:
    """A new recorder's name, and the descriptor that holds its lock as long as any process has it."""
    name = f"{boot_id()}-{os.getpid()}-{secrets.token_hex(8)}"
    path = journals / (name + _SESSION)
    temporary = journals / f".{path.name}.tmp"
    with refusing(path):
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        # Locked before it has its name: nobody meets it between the two and takes it for a dead recorder's.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        temporary.rename(path)
    return name, descriptor


def session_spills(journals: Path, name: str) -> list[Path]:
    """The spills of a recorder, in the order of its episodes."""
    return sorted(journals.glob(f"{name}-*.spill"))


def end_session(journals: Path, name: str) -> None:
    """Remove a recorder's lock, unless something of it is left to be stored."""
    if not session_spills(journals, name):
        (journals / (name + _SESSION)).unlink(missing_ok=True)


def store_spill(schema: Schema, path: Path, writer: EpisodeWriter, tell: Callable[[Recording | None], None]) -> None:
    """Append a spill's episode, durably and once, tell of it (None if there is nothing to append), and remove the spill.

    In this order, as a kill in between then costs nobody the message. Raises `DamagedError` or `SpecError` for a spill that is
    no episode of this store, and `FlywheelError` if the disk refuses: the spill stays, and this may be called again.
    """
    recording = read_spill(path, StepLayout(schema))
    if recording is not None and recording.transitions:
        _append(recording, writer, 0, recording.transitions)
        tell(recording)
    else:
        tell(None)
    with refusing(path):
        path.unlink()


def set_aside(layout: Layout, path: Path) -> None:
    """Keep a spill that is no episode among the damaged files."""
    with refusing(path):
        keep(path, layout.damaged / path.name)
        path.unlink()


def _append(recording: Recording, writer: EpisodeWriter, start: int, stop: int) -> None:
    """Append the transitions [start, stop), in halves if they are more than one record may hold."""
    episode, pieces = recording.encode(start, stop)
    if sum(map(len, pieces)) < _MOST_BYTES or stop - start < 2:
        writer.append_encoded(episode, pieces)
        return
    warnings.warn(
        f"Episode {episode.metadata.episode_id} is too long for one record that TFDS can read; it is stored in two parts.",
        StoreWarning,
        stacklevel=2,
    )
    middle = (start + stop) // 2
    _append(recording, writer, start, middle)
    _append(recording, writer, middle, stop)


def recover_spills(layout: Layout, schema: Schema, writer: EpisodeWriter) -> None:
    """Store what recorders had recorded that died together with their process, or lost power: cut off, and flagged as invalid.

    An episode that was finished is stored as it is. Each is told by a `StoreWarning`, and so is what cannot be stored now; it is
    left for the next call then.
    """
    for lock in sorted(layout.journals.glob("*" + _SESSION)):
        with _abandoned(lock) as is_abandoned:
            if is_abandoned:
                name = lock.name.removesuffix(_SESSION)
                for path in session_spills(layout.journals, name):
                    _recover(layout, schema, path, writer)
                end_session(layout.journals, name)


def abandoned_spills(journals: Path) -> Iterator[Path]:
    """The spills that `recover_spills` would store."""
    for lock in sorted(journals.glob("*" + _SESSION)):
        with _abandoned(lock) as is_abandoned:
            yield from session_spills(journals, lock.name.removesuffix(_SESSION)) if is_abandoned else ()


def _recover(layout: Layout, schema: Schema, path: Path, writer: EpisodeWriter) -> None:
    try:
        store_spill(schema, path, writer, _tell)
    except (DamagedError, SpecError) as error:
        _warn(f"A recording was cut off and cannot be recovered: {error} It is kept as {layout.damaged / path.name}.")
        set_aside(layout, path)
    except Exception as error:  # whatever is wrong with one recording must not keep everybody from writing
        _warn(f"A recording was cut off and is not recovered yet: {error} It stays in {path}.")


def _tell(recording: Recording | None) -> None:
    if recording is not None:
        state = "stored, flagged as invalid" if recording.metadata.invalid else "stored"
        _warn(
            f"Episode {recording.metadata.episode_id} had not been stored when its recorder died; its {recording.transitions} "
            f"transitions are {state}."
        )


def _warn(message: str) -> None:
    warnings.warn(message, StoreWarning, stacklevel=5)


@contextmanager
def _abandoned(lock: Path) -> Iterator[bool]:
    """Whether a recorder's lock is free, and it is known that this means that it is dead; held meanwhile."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        known = lock.name.startswith(f"{boot_id()}-") or locks_tell_the_dead(lock.parent)
        yield known and _take(descriptor, lock)
    finally:
        os.close(descriptor)


def _take(descriptor: int, lock: Path) -> bool:
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), lock.stat())  # else another has recovered it meanwhile
    return False

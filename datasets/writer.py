"""Appending: an episode is on the disk when `append` returns, whatever happens to the process or the power afterwards."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import FlywheelError, SpecError
from flywheel.datasets.catalog import Catalog
from flywheel.datasets.claims import Claims, Unsynced
from flywheel.datasets.codec import encode_pieces
from flywheel.datasets.filesystem import check_writable, refusing
from flywheel.datasets.index import EpisodeIndex, Fingerprint, IndexRow
from flywheel.datasets.journal import Journal, StoreWarning, publish, recover
from flywheel.datasets.layout import Layout
from flywheel.datasets.schema import Schema
from flywheel.datasets.tfrecord import Framed, Piece, frame


def check_metadata(values: Mapping[str, Any]) -> None:
    """Raise `SpecError` for a text or a number that no record can hold."""
    for name, value in values.items():
        if isinstance(value, str) and not value.isascii() and value.encode(errors="replace").decode() != value:
            raise SpecError(f"An episode's {name} is {value!r}, which is no text that UTF-8 has; give another.")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise SpecError(f"An episode's {name} is {value}, which does not fit into 64 bits; give a smaller number.")


@dataclass(frozen=True, slots=True)
class Sealing:
    """When a journal becomes a shard, which TFDS sees: as soon as one of these is reached, and when the writer is closed.

    Raises `FlywheelError` for a number that is not above zero.
    """

    episodes: int = 256
    bytes: int = 128 << 20
    """About what TFDS advises for a shard; an episode that is larger is a shard of its own."""
    seconds: float = 600.0
    """Since the journal's first episode, by a clock that never goes backwards."""

    def __post_init__(self) -> None:
        for name in ("episodes", "bytes", "seconds"):
            if not getattr(self, name) > 0:
                raise FlywheelError(f"seal_{name} is {getattr(self, name)}; it must be above zero.")


class _Stored(NamedTuple):
    """What the index will say of an episode: its row is made when the journal is sealed, which no acknowledgement waits for."""

    metadata: EpisodeMetadata
    length: int
    episode_return: float
    offset: int
    crc: int

    def row(self, shard: str) -> IndexRow:
        """The index's row of the episode in its shard."""
        return IndexRow(
            **self.metadata.to_json(),
            length=self.length,
            episode_return=self.episode_return,
            shard=shard,
            offset=self.offset,
            crc=self.crc,
        )


@dataclass(slots=True)
class _Open:
    """A journal that is being written, and what it holds."""

    journal: Journal
    since: float
    stored: list[_Stored] = field(default_factory=list)


class EpisodeWriter:
    """One writer of a store, for one thread of one process; any number of them may append to a store at once.

    Opening one seals what writers that died have left. Use it as a context manager: leaving it seals.

    No thread seals behind your back. An age that passes while nothing is appended is noticed by the next `append`, by
    `seal_if_due`, which a loop that waits for its next episode may call as often as it likes, and by `close`; where the writer
    died before that, by whoever opens a writer next. Until then only plain TFDS has to wait: `EpisodeStore` reads unsealed
    episodes, too.
    """

    def __init__(self, layout: Layout, schema: Schema, sealing: Sealing) -> None:
        check_writable(layout.path)
        self._layout, self._schema, self._sealing = layout, schema, sealing
        self._catalog = Catalog(layout)
        self._claims = Claims(layout.claims, self._catalog.refresh)
        self._unsynced = Unsynced(layout.unsynced)
        self._current: _Open | None = None
        self._full: list[_Open] = []
        self._process = os.getpid()
        layout.journals.mkdir(exist_ok=True)  # a copy of a store has none
        with layout.locked():
            recover(layout)
        with self._claims.held():
            pass  # reads the store
        self._catalog.save_index()

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Seal, also after an error: what was acknowledged is good."""
        self.close()

    def append(self, episode: Episode) -> str:
        """Store an episode durably and return its id; an id that is stored already, by whichever process, is not stored again.

        Raises `SpecError` if the episode does not fit the store's schema, and `FlywheelError` if the disk refuses. After an
        error the store is as it was, and the same episode may be appended again. A disk that is too full for sealing alone
        costs a `StoreWarning`: the episode is stored, and sealing is tried again.
        """
        check_metadata(vars(episode.metadata))
        episode = episode.validate(self._schema.observation, self._schema.action)
        return self.append_encoded(episode, encode_pieces(episode, self._schema))

    def append_encoded(self, episode: Episode, pieces: Sequence[Piece]) -> str:
        """As `append`, for one that is validated and encoded; of `episode`, everything but its observation is needed."""
        if os.getpid() != self._process:
            raise FlywheelError("An episode writer does not survive a fork; open one in each process.")
        framed = frame(*pieces)
        current = self._open_journal()
        offset, known = self._write(current.journal, episode.metadata.episode_id, framed)
        if known is not None:
            self._make_durable(known)
            return known.episode_id
        current.stored.append(_Stored(episode.metadata, episode.transitions, episode.episode_return, offset, framed.crc))
        self.seal_if_due()
        return episode.metadata.episode_id

    def seal_if_due(self) -> None:
        """Seal if there are enough episodes or bytes, or the first is old enough; warns where the disk refuses to."""
        current = self._current
        if current is not None and current.stored and self._is_due(current):
            try:
                self.seal()
            except FlywheelError as error:
                warnings.warn(f"{error} The episodes are not sealed yet.", StoreWarning, stacklevel=3)

    def seal(self) -> None:
        """Make the journal a shard, so that TFDS sees its episodes, too; without any it does nothing.

        Raises `FlywheelError` if the disk refuses; the episodes stay safe in the journal, and the next call tries again.
        """
        # What is not known to be unlisted is never appended to again: a listed shard must not grow.
        if self._current is not None:
            self._full.append(self._current)
            self._current = None
        sealed = {}
        while self._full:
            name = self._publish(self._full[0])
            stored = self._full.pop(0).stored
            fingerprint = Fingerprint.of(self._layout.path / name, len(stored)) if name else None
            if fingerprint is not None:
                sealed[name] = (fingerprint, [item.row(name) for item in stored])
        if sealed:
            EpisodeIndex(self._layout.index).save(sealed)

    def close(self) -> None:
        """Seal; the writer may be used again afterwards."""
        try:
            self.seal()
        finally:
            self._claims.close()
            self._unsynced.close()

    def _is_due(self, current: _Open) -> bool:
        return (
            current.journal.records >= self._sealing.episodes
            or current.journal.size >= self._sealing.bytes
            or time.monotonic() - current.since >= self._sealing.seconds
        )

    def _write(self, journal: Journal, episode_id: str, framed: Framed) -> tuple[int, IndexRow | None]:
        """Make a record durable and return its offset, or the row of the episode if it is stored already."""
        try:
            with self._claims.held():
                known = self._find(episode_id)
                if known is not None:
                    return -1, known
                self._unsynced.begin()
                offset = journal.write(framed)
            # The claims are free by now: writers wait for each other's checks, not for each other's disk.
            journal.sync(offset)
        finally:
            self._unsynced.end()
        return offset, None

    def _find(self, episode_id: str) -> IndexRow | None:
        """The row of an episode that is stored already. Call it with the claims held; afterwards the id is claimed."""
        if self._claims.claim(episode_id) and episode_id not in self._catalog.rows:
            return None
        self._unsynced.wait()
        self._catalog.refresh()  # the claim may be of a writer that failed, and the row of an episode that was purged
        return self._catalog.rows.get(episode_id)

    def _publish(self, full: _Open) -> str:
        """Seal one journal; returns the shard's name, or an empty one if there was nothing to seal."""
        name = ""
        with self._layout.locked():
            if full.journal.records:
                name = publish(self._layout, full.journal.path, full.journal.records, full.journal.size)
            else:
                with refusing(full.journal.path):
                    full.journal.path.unlink()
        full.journal.close()
        return name

    def _open_journal(self) -> _Open:
        if self._current is None:
            with self._layout.locked():
                self._current = _Open(Journal.create(self._layout.journals), time.monotonic())
        return self._current

    def _make_durable(self, row: IndexRow) -> None:
        """An episode of a writer that was killed may not be on the disk yet, and this one is about to promise that it is."""
        with suppress(FileNotFoundError):  # sealed meanwhile, and therefore durable
            descriptor = os.open(self._layout.path / row.shard, os.O_RDONLY)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

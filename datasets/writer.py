"""Appending: an episode is on the disk when `append` returns, whatever happens to the process or the power afterwards."""

from __future__ import annotations

import os
from contextlib import suppress
from types import TracebackType
from typing import Self

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.datasets.catalog import Catalog
from flywheel.datasets.codec import encode_episode
from flywheel.datasets.index import IndexRow
from flywheel.datasets.journal import Journal, publish, recover
from flywheel.datasets.layout import Layout
from flywheel.datasets.schema import Schema
from flywheel.datasets.tfrecord import frame, masked_crc


class EpisodeWriter:
    """One writer of a store, for one thread of one process; any number of them may append to a store at once.

    Opening one seals what writers that died have left. Use it as a context manager: leaving it seals.
    """

    def __init__(self, layout: Layout, schema: Schema, seal_episodes: int) -> None:
        if seal_episodes < 1:
            raise FlywheelError(f"seal_episodes is {seal_episodes}; a shard needs at least one episode.")
        self._layout, self._schema, self._seal_episodes = layout, schema, seal_episodes
        self._catalog = Catalog(layout)
        self._journal: Journal | None = None
        self._process = os.getpid()
        with layout.locked():
            recover(layout)
        self._catalog.refresh()
        self._catalog.save_index()

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Seal, also after an error: what was acknowledged is good."""
        self.close()

    def append(self, episode: Episode) -> str:
        """Store an episode durably and return its id; an id that is stored already, by whichever process, is not stored again.

        Raises `SpecError` if the episode does not fit the store's schema, and `FlywheelError` on a full disk. After an
        error the store is as it was, and the same episode may be appended again.
        """
        if os.getpid() != self._process:
            raise FlywheelError("An episode writer does not survive a fork; open one in each process.")
        episode = episode.validate(self._schema.observation, self._schema.action)
        payload = encode_episode(episode, self._schema)
        journal = self._open_journal()
        with self._layout.appending():
            self._catalog.refresh()
            known = self._catalog.rows.get(episode.metadata.episode_id)
            offset = journal.write(frame(payload)) if known is None else -1
        # The lock is free by now: writers wait for each other's checks, not for each other's disk.
        if known is not None:
            self._make_durable(known)
            return known.episode_id
        journal.sync(offset)
        self._catalog.note(_row(episode, payload, journal, offset), journal.inode, journal.size)
        if journal.records >= self._seal_episodes:
            self.seal()
        return episode.metadata.episode_id

    def seal(self) -> None:
        """Make the journal a shard, so that TFDS sees its episodes, too; without any it does nothing.

        Raises `FlywheelError` on a full disk; the episodes stay safe in the journal.
        """
        journal = self._journal
        if journal is None:
            return
        with self._layout.locked():
            if journal.records:
                publish(self._layout, journal.path, journal.records, journal.size)
            else:
                journal.path.unlink()
        journal.close()
        self._journal = None
        self._catalog.refresh()
        self._catalog.save_index()

    def close(self) -> None:
        """Seal; the writer may be used again afterwards."""
        self.seal()

    def _open_journal(self) -> Journal:
        if self._journal is None:
            with self._layout.locked():
                self._journal = Journal.create(self._layout.journals)
        return self._journal

    def _make_durable(self, row: IndexRow) -> None:
        """An episode that another writer has written may not be on the disk yet, and this one is about to promise that it is."""
        with suppress(FileNotFoundError):  # sealed meanwhile, and therefore durable
            descriptor = os.open(self._layout.path / row.shard, os.O_RDONLY)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)


def _row(episode: Episode, payload: bytes, journal: Journal, offset: int) -> IndexRow:
    return IndexRow(
        **episode.metadata.to_json(),
        length=episode.transitions,
        episode_return=episode.episode_return,
        shard=f"{journal.path.parent.name}/{journal.path.name}",
        offset=offset,
        crc=masked_crc(payload),
    )

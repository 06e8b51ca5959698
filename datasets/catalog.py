"""Where every episode of a store is right now: in the sealed shards and, acknowledged but unsealed, in the journals.

Reading takes no lock and never writes. The journals are read before the list of shards, so that one which is sealed
meanwhile is seen twice and not never; an episode seen twice counts once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from flywheel.datasets.index import EpisodeIndex, Fingerprint, IndexRow, Shard, index_row
from flywheel.datasets.layout import Layout, Shards
from flywheel.datasets.tfrecord import Damage, DamagedError, DamageWarning, Record, holds_crc, scan


@dataclass
class _Journal:
    """How far a journal has been read."""

    inode: int
    end: int = 0
    rows: list[IndexRow] = field(default_factory=list)


class Catalog:
    """The rows of one store, brought up to date by `refresh`."""

    def __init__(self, layout: Layout) -> None:
        self.rows: dict[str, IndexRow] = {}
        """Every episode by id."""
        self.shards = Shards("")
        self._layout = layout
        self._index = EpisodeIndex(layout.index)
        self._journals: dict[str, _Journal] = {}
        self._sealed: dict[str, tuple[Fingerprint, list[IndexRow]]] = {}
        self._info: os.stat_result | None = None

    def refresh(self) -> None:
        """Take in what was appended or sealed since the last call."""
        present = self._read_journals()
        self._read_shards()
        for name in self._journals.keys() - present:
            self._forget(self._journals.pop(name).rows)  # sealing has replaced them by now; what is left is gone from the disk

    @property
    def sealed(self) -> Mapping[str, Shard]:
        """The rows of every shard that could be read, by its name."""
        return self._sealed

    @property
    def journal_bytes(self) -> int:
        """Bytes of the episodes in journals, without the room that writers have made ahead."""
        return sum(journal.end for journal in self._journals.values())

    def save_index(self) -> None:
        """Add every sealed shard to the index on disk."""
        self._index.save(self._sealed)

    def _read_journals(self) -> set[str]:
        """Take in what the journals hold beyond what was read; returns the names of those that exist."""
        present = set()
        for path in sorted(self._layout.journals.glob("*.tfrecord")):
            name = path.relative_to(self._layout.path).as_posix()
            with suppress(FileNotFoundError):  # sealed this moment, so that the list of shards has it
                self._read_journal(path, name)
                present.add(name)
        return present

    def _read_journal(self, path: Path, name: str) -> None:
        with path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            journal = self._journals.setdefault(name, _Journal(inode))
            if journal.inode != inode:  # recovery has replaced a damaged journal by its whole records
                self._forget(self._journals.pop(name).rows)
                journal = self._journals.setdefault(name, _Journal(inode))
            self._forget_refused(journal, file.fileno())
            for item in scan(file.fileno(), journal.end):
                if isinstance(item, Record):
                    row = _row(item, name, path)
                    if row is not None:
                        self._take_unsealed(journal, row, item.end)
                elif not item.torn:  # what is torn at the end is an episode being written
                    _warn(path, item.reason)

    def _forget_refused(self, journal: _Journal, descriptor: int) -> None:
        """Forget the last row if its record is not there any more: the disk refused it, after it was read, and it was cut off."""
        if journal.rows and not holds_crc(descriptor, journal.end, journal.rows[-1].crc):
            refused = journal.rows.pop()
            self._forget([refused])
            journal.end = refused.offset
            for row in (row for other in self._journals.values() for row in other.rows):
                if row.episode_id == refused.episode_id:  # another writer has stored it since
                    self.rows.setdefault(row.episode_id, row)

    def _take_unsealed(self, journal: _Journal, row: IndexRow, end: int) -> None:
        journal.end = end
        journal.rows.append(row)
        self.rows.setdefault(row.episode_id, row)

    def _forget(self, rows: Iterable[IndexRow]) -> None:
        for row in rows:
            if self.rows.get(row.episode_id) is row:
                del self.rows[row.episode_id]

    def _read_shards(self) -> None:
        while not self._take_shards():
            pass  # a compaction has replaced the list and removed the shards that it named

    def _take_shards(self) -> bool:
        """Take in the list of shards; False if it was replaced meanwhile and shards that it named are gone."""
        status = self._layout.info.stat() if self._layout.info.exists() else None
        if status is not None and self._info is not None and _unchanged(status, self._info):
            return True
        shards = self._layout.read_shards()
        is_longer = shards.lengths[: len(self.shards.lengths)] == self.shards.lengths
        if shards.generation != self.shards.generation or not is_longer:  # compacted, or restored from a copy
            self._forget([row for _, rows in self._sealed.values() for row in rows])
            self._sealed = {}
        new = {}
        for number, records in enumerate(shards.lengths):
            name = shards.file_name(number)
            if name not in self._sealed:
                fingerprint = self._fingerprint(name, records)
                if fingerprint is None and status is not None and not _unchanged(self._layout.info.stat(), status):
                    return False
                if fingerprint is None:
                    _warn(self._layout.path / name, "The shard is listed but missing.")
                else:
                    new[name] = fingerprint
        indexed = self._index.load(new)
        try:
            for name, fingerprint in new.items():
                self._take_sealed(name, fingerprint, indexed.get(name))
        except FileNotFoundError:
            return False
        self.shards, self._info = shards, status
        return True

    def _fingerprint(self, name: str, records: int) -> Fingerprint | None:
        return Fingerprint.of(self._layout.path / name, records)

    def _take_sealed(self, name: str, fingerprint: Fingerprint, rows: list[IndexRow] | None) -> None:
        if rows is None:
            rows = self._from_journal(name, fingerprint) or self._scan_shard(name)
        self._sealed[name] = (fingerprint, rows)
        for row in rows:
            known = self.rows.get(row.episode_id)
            if known is None or known.shard in self._journals:
                self.rows[row.episode_id] = row

    def _from_journal(self, name: str, fingerprint: Fingerprint) -> list[IndexRow] | None:
        """The rows of a shard that was read as a journal already."""
        if not self._journals:
            return None
        status = (self._layout.path / name).stat()
        for journal in self._journals.values():
            if journal.inode == status.st_ino and journal.end == status.st_size and len(journal.rows) == fingerprint.records:
                return [replace(row, shard=name) for row in journal.rows]
        return None

    def _scan_shard(self, name: str) -> list[IndexRow]:
        path = self._layout.path / name
        rows = []
        with path.open("rb") as file:
            for item in scan(file.fileno()):
                if isinstance(item, Damage):
                    _warn(path, item.reason)
                    continue
                row = _row(item, name, path)
                if row is not None:
                    rows.append(row)
        return rows


def _row(record: Record, shard: str, path: Path) -> IndexRow | None:
    try:
        return index_row(record, shard)
    except DamagedError as error:
        _warn(path, f"The record at byte {record.offset} is no episode: {error}")
        return None


def _unchanged(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_mtime_ns, one.st_size) == (other.st_ino, other.st_mtime_ns, other.st_size)


def _warn(path: Path, reason: str) -> None:
    warnings.warn(f"{path}: {reason} It is left out; 'flywheel store verify' tells more.", DamageWarning, stacklevel=3)

"""The table of episodes to filter by: one row per episode, kept in SQLite, derived from the shards alone.

Sealed shards never change, so rows are kept per shard and taken only if the shard's size, number of records and last CRC
are those they were made from, and if each row agrees with its own checksum. What is missing or wrong is read from the shard
again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import google_crc32c

from flywheel.core.episode import EpisodeMetadata
from flywheel.datasets.codec import summarize
from flywheel.datasets.tfrecord import Record

_BUSY_SECONDS = 0.2
"""How long to wait for another process's transaction; without the index the shards are read instead."""


class Trim(NamedTuple):
    """The part of an episode that counts: its transitions [start, stop), with observation `stop` as the final one."""

    start: int
    stop: int
    episode_return: float
    """The undiscounted sum of this part's rewards."""


@dataclass(frozen=True, kw_only=True)
class IndexRow(EpisodeMetadata):
    """An episode's metadata, its summary, and where its record lies; with its labels, where the store gives it."""

    length: int
    """The number of transitions (actions taken), of the trimmed part if it is trimmed."""
    episode_return: float
    """The undiscounted sum of rewards, of the trimmed part if it is trimmed."""
    shard: str
    """The file that holds the record, relative to the store."""
    offset: int
    crc: int
    """The record's masked CRC32C."""
    trim: Trim | None = None
    """The part that counts; None for all of it."""
    deleted: bool = False
    labels: int = 0
    """The chained CRC of its labels, by which a snapshot names them; 0 where there are none."""


class Fingerprint(NamedTuple):
    """What tells one shard's content from another's at a glance."""

    records: int
    size: int
    last_crc: int

    @classmethod
    def of(cls, shard: Path, records: int) -> Fingerprint | None:
        """The fingerprint of a shard that is listed with so many records; None if its file is missing."""
        try:
            with shard.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 4))
                return cls(records, size, int.from_bytes(file.read(4), "little"))
        except FileNotFoundError:
            return None


def index_row(record: Record, shard: str) -> IndexRow:
    """The row of a record; raises `DamagedError` if it is no episode."""
    metadata, length, episode_return = summarize(record.payload)
    return IndexRow(
        **metadata.to_json(), length=length, episode_return=episode_return, shard=shard, offset=record.offset, crc=record.crc
    )


def revised(row: IndexRow, changes: Mapping[str, Any]) -> IndexRow:
    """The row with some fields changed."""
    # Ten times as fast as dataclasses.replace, which counts where 100,000 episodes have labels.
    copy = object.__new__(IndexRow)
    copy.__dict__.update(row.__dict__)
    copy.__dict__.update(changes)
    return copy


_UNLABELLED: Mapping[str, Any] = {"trim": None, "deleted": False, "labels": 0}
"""What is not of the record and so not in the index."""
_STORED = tuple(item for item in fields(IndexRow) if item.name not in _UNLABELLED)
_COLUMNS = tuple(item.name for item in _STORED)
_BOOLS = tuple(item.name for item in _STORED if item.type == "bool")
_NAMES = ", ".join(f'"{name}"' for name in _COLUMNS)
_TABLES = f"""
CREATE TABLE IF NOT EXISTS shards (shard TEXT PRIMARY KEY, records INTEGER, size INTEGER, last_crc INTEGER, checksum INTEGER);
CREATE TABLE IF NOT EXISTS episodes ({_NAMES}, PRIMARY KEY (shard, "offset"));
"""
_VERSION = google_crc32c.value(_TABLES.encode()) & 0x7FFFFFFF
"""Other columns are another version, whose index is begun again."""
_SELECT = f'SELECT {_NAMES} FROM episodes WHERE shard = ? ORDER BY "offset"'
_INSERT = f"INSERT INTO episodes ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_values = attrgetter(*_COLUMNS)

Shard = tuple[Fingerprint, Sequence[IndexRow]]


class EpisodeIndex:
    """The index file of one store. Nothing here raises for a file that is missing, damaged, locked or unwritable."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, shards: Mapping[str, Fingerprint]) -> dict[str, list[IndexRow]]:
        """The rows of those shards that are indexed soundly. Never writes."""
        if not shards or not self.path.exists():
            return {}
        try:
            with closing(self._connect("ro")) as connection:
                known = _fingerprints(connection)
                current = [shard for shard, fingerprint in shards.items() if known.get(shard) == fingerprint]
                found = {shard: _load(connection, shard) for shard in current}
        except (sqlite3.Error, UnicodeDecodeError):  # the latter from an error message that names what is damaged
            return {}
        return {shard: rows for shard, rows in found.items() if rows is not None and len(rows) == shards[shard].records}

    def fingerprints(self) -> dict[str, Fingerprint]:
        """What every indexed shard was like."""
        try:
            with closing(self._connect("ro")) as connection:
                return _fingerprints(connection)
        except (sqlite3.Error, UnicodeDecodeError):
            return {}

    def save(self, shards: Mapping[str, Shard]) -> None:
        """Add the shards that are not indexed yet; an index that cannot be used is begun again."""
        try:
            self._save(shards)
        except sqlite3.OperationalError:
            pass  # locked, full or read-only: the next writer adds what is missing
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            self._begin_again(shards)

    def keep(self, shards: Collection[str]) -> None:
        """Forget every shard but these; an index that cannot be written keeps what does no harm."""
        with suppress(sqlite3.Error), closing(self._connect("rw")) as connection, connection:
            for shard in _fingerprints(connection).keys() - set(shards):
                for table in ("shards", "episodes"):
                    connection.execute(f"DELETE FROM {table} WHERE shard = ?", (shard,))

    def _save(self, shards: Mapping[str, Shard]) -> None:
        with closing(self._connect("rwc")) as connection, connection:
            # No sync: what a power loss damages, the checksums find, and the shards still have.
            connection.execute("PRAGMA synchronous = OFF")
            _claim(connection)
            for shard, (fingerprint, rows) in shards.items():
                # One at a time: a writer that seals saves one shard, in a store that may have thousands.
                known = connection.execute("SELECT records, size, last_crc FROM shards WHERE shard = ?", (shard,)).fetchone()
                if known != fingerprint:
                    connection.execute("DELETE FROM episodes WHERE shard = ?", (shard,))
                    values = [_plain(row) for row in rows]
                    entry = (shard, *fingerprint, _checksum(values))
                    connection.execute("INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?, ?)", entry)
                    connection.executemany(_INSERT, values)

    def _begin_again(self, shards: Mapping[str, Shard]) -> None:
        with suppress(OSError, sqlite3.Error, UnicodeDecodeError):
            for path in (self.path, self.path.with_name(f"{self.path.name}-journal")):
                path.unlink(missing_ok=True)
            self._save(shards)

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{quote(os.fspath(self.path))}?mode={mode}", uri=True, timeout=_BUSY_SECONDS)


def _claim(connection: sqlite3.Connection) -> None:
    """Make the tables, or see that they are of this version; raises `sqlite3.DatabaseError` if they are of another."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
        raise sqlite3.DatabaseError("another version")
    connection.executescript(f"{_TABLES} PRAGMA user_version = {_VERSION};")


def _fingerprints(connection: sqlite3.Connection) -> dict[str, Fingerprint]:
    return {row[0]: Fingerprint(*row[1:]) for row in connection.execute("SELECT shard, records, size, last_crc FROM shards")}


def _load(connection: sqlite3.Connection, shard: str) -> list[IndexRow] | None:
    """The rows of a shard, or None if they do not agree with its checksum."""
    values = connection.execute(_SELECT, (shard,)).fetchall()
    checksum = connection.execute("SELECT checksum FROM shards WHERE shard = ?", (shard,)).fetchone()
    return list(map(_row, values)) if checksum == (_checksum(values),) else None


def _row(values: Sequence[Any]) -> IndexRow:
    # Built like this in a fifth of the time that the constructor takes: 100,000 rows are read whenever a store is opened.
    row = object.__new__(IndexRow)
    state = row.__dict__
    state.update(zip(_COLUMNS, values, strict=True))
    state.update(_UNLABELLED)
    for name in _BOOLS:
        state[name] = bool(state[name])
    return row


def _plain(row: IndexRow) -> tuple[Any, ...]:
    """The values of a row as SQLite gives them back, where a bool is a number."""
    return tuple(int(value) if isinstance(value, bool) else value for value in _values(row))


def _checksum(values: Sequence[tuple[Any, ...]]) -> int:
    return int(google_crc32c.value(repr(values).encode()))

"""A fixed set of episodes, named by its content."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.files import write_atomically
from flywheel.core.lineage import json_hash
from flywheel.datasets.index import IndexRow

SNAPSHOT_FILE = "snapshot.json"
"""What a run folder calls the snapshot that it learned from."""
_FORMAT = 2
_READ = (1, 2)
"""Format 1 has no labels."""


class SnapshotEntry(NamedTuple):
    """One episode: its id, its record's masked CRC32C, and the chained CRC of the labels that it had."""

    episode_id: str
    crc: int
    labels: int = 0
    """0 without labels; `EpisodeStore.resolve` finds the labels again."""


class Difference(NamedTuple):
    """What one snapshot has otherwise than another: sorted episode ids."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[str, ...]
    """In both, with other labels."""


@dataclass(frozen=True)
class Snapshot:
    """An immutable set of episodes, sorted by id; make one with `EpisodeStore.snapshot`.

    It names content and not places, so that sealing or compacting a store does not change it.
    """

    entries: tuple[SnapshotEntry, ...]

    @classmethod
    def of(cls, entries: Iterable[SnapshotEntry]) -> Snapshot:
        """The snapshot of some episodes in any order."""
        return cls(tuple(sorted(entries)))

    @classmethod
    def of_rows(cls, rows: Iterable[IndexRow]) -> Snapshot:
        """The snapshot of the episodes of some rows, as they are labelled."""
        return cls.of(SnapshotEntry(row.episode_id, row.crc, row.labels) for row in rows)

    def only(self, episode_ids: Collection[str]) -> Snapshot:
        """The snapshot of those of its episodes that are named."""
        return Snapshot(tuple(entry for entry in self.entries if entry.episode_id in episode_ids))

    @cached_property
    def hash(self) -> str:
        """The content hash over ids, CRCs and labels: equal for equal sets of episodes."""
        return json_hash(_plain(self.entries))

    def difference(self, later: Snapshot) -> Difference:
        """What `later` has otherwise; an episode of another record counts as removed and added."""
        ours, theirs = ({entry[:2]: entry.labels for entry in snapshot.entries} for snapshot in (self, later))
        return Difference(
            added=_ids(theirs.keys() - ours.keys()),
            removed=_ids(ours.keys() - theirs.keys()),
            relabelled=_ids(key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]),
        )

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.entries)

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        value = {"format": _FORMAT, "hash": self.hash, "episodes": _plain(self.entries)}
        write_atomically(path, (json.dumps(value) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        """Read what `save` wrote; raises `SpecError` for a newer format, and `FlywheelError` if it is damaged or missing."""
        try:
            value = json.loads(path.read_bytes())
            if value["format"] not in _READ:
                raise SpecError(f"The snapshot {path} has format {value['format']}; update flywheel-robotics.")
            snapshot = cls(tuple(_entry(*entry) for entry in value["episodes"]))
            sound = snapshot.hash == value["hash"]
        except FileNotFoundError:
            raise FlywheelError(f"There is no snapshot at {path}; a run keeps its own as snapshot.json.") from None
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise FlywheelError(f"The snapshot {path} is damaged or was edited; restore it from a copy of the run.")
        return snapshot


def load_registered(path: Path) -> Snapshot:
    """Read a snapshot that a store keeps under its hash; raises as `Snapshot.load` does, and where the name is another's."""
    snapshot = Snapshot.load(path)
    if snapshot.hash != path.stem:
        raise FlywheelError(f"{path} is the snapshot {snapshot.hash}, not the one of its name.")
    return snapshot


def _plain(entries: Iterable[SnapshotEntry]) -> list[tuple[str | int, ...]]:
    """Labels are left out where there are none, so that a snapshot without any has the hash that it had before there were."""
    return [entry if entry.labels else entry[:2] for entry in entries]


def _entry(episode_id: str, crc: int, labels: int = 0) -> SnapshotEntry:
    return SnapshotEntry(str(episode_id), int(crc), int(labels))


def _ids(keys: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    return tuple(sorted(episode_id for episode_id, _ in keys))

"""A fixed set of episodes, named by its content."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.core.lineage import json_hash

_FORMAT = 1


class SnapshotEntry(NamedTuple):
    """One episode: its id and its record's masked CRC32C."""

    episode_id: str
    crc: int


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

    def only(self, episode_ids: Collection[str]) -> Snapshot:
        """The snapshot of those of its episodes that are named."""
        return Snapshot(tuple(entry for entry in self.entries if entry.episode_id in episode_ids))

    @cached_property
    def hash(self) -> str:
        """The content hash over ids and CRCs: equal for equal sets of episodes."""
        return json_hash(self.entries)

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.entries)

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        value = {"format": _FORMAT, "hash": self.hash, "episodes": self.entries}
        write_atomically(path, (json.dumps(value) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        """Read what `save` wrote; raises `FlywheelError` if it is missing, damaged or changed."""
        try:
            value = json.loads(path.read_bytes())
            if value["format"] != _FORMAT:
                raise FlywheelError(f"The snapshot {path} has format {value['format']}; update flywheel-robotics.")
            snapshot = cls(tuple(SnapshotEntry(str(episode_id), int(crc)) for episode_id, crc in value["episodes"]))
            sound = snapshot.hash == value["hash"]
        except FileNotFoundError:
            raise FlywheelError(f"There is no snapshot at {path}; a run keeps its own as snapshot.json.") from None
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise FlywheelError(f"The snapshot {path} is damaged or was edited; restore it from a copy of the run.")
        return snapshot

"""A store of our own as a source: its episodes keep their ids, so that stores can be put together without doubling any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore


class StoreSource:
    """Every acknowledged episode of a store, as it is."""

    kind = "rlds"

    def __init__(self, path: Path) -> None:
        self._store = EpisodeStore.open(path)
        self._ids = [row.episode_id for row in self._store.rows()]

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self._ids)

    def schema(self) -> Schema:
        """The store's."""
        return self._store.schema

    def episode_id(self, index: int) -> str:
        """Its own."""
        return self._ids[index]

    def episode(self, index: int) -> Episode:
        """The episode, with the provenance that it has; raises `FlywheelError` naming the store if its record is damaged."""
        try:
            return self._store.read(self._ids[index])
        except FlywheelError as error:
            raise FlywheelError(f"{self._store.path}, episode {self._ids[index]}: {error}") from None

    def provenance(self) -> dict[str, Any]:
        """Nothing: an episode's metadata tell all."""
        return {}


def is_store(folder: Path) -> bool:
    """Whether a TFDS data folder is one of our stores."""
    return (folder / ".meta" / "schema.json").is_file()

"""What every importer is, and how its episodes come into a store: one at a time, each whole and durable, each once.

An imported episode's id is a hash of the kind of source, the content that it came from and its place therein. So a killed
import goes on where it was, a second one stores nothing twice, and a copy of a file counts as the same file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import json_hash
from flywheel.core.specs import ActionSpec
from flywheel.datasets.schema import Pictures, Schema
from flywheel.datasets.store import EpisodeStore

Progress = Callable[[int, int], None]
"""Called with (episodes looked at, episodes in all)."""


class Source(Protocol):
    """Episodes in a foreign form. They are asked for in order, so a source may read forward only, but any may be left out."""

    @property
    def kind(self) -> str:
        """The name of the format, as ``--kind`` takes it."""
        ...

    def schema(self) -> Schema:
        """What the imported episodes look like; raises `FlywheelError` if the source cannot be stored."""
        ...

    def __len__(self) -> int:
        """The number of episodes, empty ones included."""
        ...

    def episode_id(self, index: int) -> str:
        """The id that episode `index` gets, by `imported_id` or, where it is ours, its own; cheap, as known ones are left out."""
        ...

    def episode(self, index: int) -> Episode | None:
        """Episode `index`, valid for `schema`, with `episode_id` and provenance; None if it has no transition.

        Raises `FlywheelError` naming file, episode and field for anything that cannot be read or stored.
        """
        ...

    def provenance(self) -> dict[str, Any]:
        """What all of its episodes have in common (JSON): format, name, content hash, mapping; part of each one's metadata."""
        ...


@dataclass(frozen=True)
class ImportResult:
    """What an import did."""

    store: EpisodeStore
    stored: int
    skipped: int
    """Episodes that the store had already, deleted ones and those twice in the source included."""
    empty: int
    """Episodes without a transition, which are left out."""
    steps: int
    """Transitions that were stored."""


def imported_id(kind: str, content: str, index: int) -> str:
    """The id of episode `index` of what `content` (a hash) identifies."""
    return json_hash([kind, content, index])


def import_episodes(
    source: Source,
    root: Path,
    name: str,
    on_progress: Progress = lambda done, total: None,
    *,
    pictures: Pictures | None = None,
) -> ImportResult:
    """Append the episodes of a source to the store ``<root>/<name>``, which is made if it is not there.

    `pictures` says how a store that is made keeps its pictures, if not as the source's schema says.

    Raises `FlywheelError` at the first episode that cannot be read, or that was imported by another mapping before. What was
    appended until then stays, and the same call goes on from there once the file is mended.
    """
    schema = source.schema()
    store = open_target(root, name, replace(schema, pictures=pictures or schema.pictures))
    present = {row.episode_id: row.source for row in store.rows(deleted=True)}
    common = source.provenance()
    stored = skipped = empty = steps = 0
    with store.writer() as writer:
        for index in range(len(source)):
            episode_id = source.episode_id(index)
            if episode_id in present:
                _check_same_mapping(store, episode_id, present[episode_id], common)
                skipped += 1
            elif (episode := source.episode(index)) is None:
                empty += 1
            else:
                writer.append(episode)
                present[episode_id] = episode.metadata.source
                stored, steps = stored + 1, steps + episode.transitions
            on_progress(index + 1, len(source))
    return ImportResult(store, stored, skipped, empty, steps)


def open_target(root: Path, name: str, schema: Schema) -> EpisodeStore:
    """Make the store of a schema, or open one that takes its episodes as they are.

    Units, the action's meaning and how pictures are kept, which few sources tell, are the store's. Raises `FlywheelError` for a
    store that holds other arrays, or whose action bounds the source exceeds.
    """
    try:
        return EpisodeStore.create(root, name, schema)
    except FlywheelError:
        path = Path(root) / name
        if not path.is_dir():
            raise
        store = EpisodeStore.open(path)
        if not _fits(schema, store.schema):
            raise
        return store


def _fits(given: Schema, stored: Schema) -> bool:
    """Whether episodes of a schema may go into a store of another one, which then tells units and meaning."""
    mine = {key: (spec.shape, spec.dtype) for key, spec in given.observation.arrays.items()}
    theirs = {key: (spec.shape, spec.dtype) for key, spec in stored.observation.arrays.items()}
    return mine == theirs and given.action.dim == stored.action.dim and _within(given.action, stored.action)


def _within(given: ActionSpec, stored: ActionSpec) -> bool:
    low = all(mine >= theirs for mine, theirs in zip(given.low, stored.low, strict=True))
    return low and all(mine <= theirs for mine, theirs in zip(given.high, stored.high, strict=True))


def _check_same_mapping(store: EpisodeStore, episode_id: str, source: str, common: dict[str, Any]) -> None:
    """An id does not tell the mapping: without this, importing again with a mended mapping would silently change nothing."""
    if "mapping" not in common:
        return
    try:
        before = json.loads(source)["mapping"]
    except (ValueError, KeyError, TypeError):
        before = None
    if before != common["mapping"]:
        raise FlywheelError(
            f"Episode {episode_id} is in {store.path} already, imported with another mapping; import into another --name."
        )

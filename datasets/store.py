"""The growing store of episodes: an ordinary TFDS data folder that any number of processes append to.

    store = EpisodeStore.create(Path("data"), "panda_lift", schema)
    with store.writer() as writer:
        writer.append(episode)          # on the disk when it returns
    snapshot = store.snapshot(lambda episode: episode.success)

Layout and locks are in `layout`, the protocol in `journal`, what TFDS sees in `schema`. Reading never writes.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import FlywheelError
from flywheel.datasets.catalog import Catalog
from flywheel.datasets.codec import decode_episode
from flywheel.datasets.index import IndexRow
from flywheel.datasets.layout import VERSION, Layout
from flywheel.datasets.schema import Schema
from flywheel.datasets.snapshot import Snapshot, SnapshotEntry
from flywheel.datasets.tfrecord import DamagedError, DamageWarning, read_record
from flywheel.datasets.writer import EpisodeWriter

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Group:
    """How many episodes an agent made of a task, and how many succeeded."""

    task: str
    agent_id: str
    episodes: int
    successes: int


@dataclass(frozen=True)
class StoreInfo:
    """A store in numbers."""

    episodes: int
    steps: int
    """Transitions, that is actions taken."""
    shards: int
    unsealed: int
    """Episodes that are acknowledged and still in a journal, where TFDS does not see them."""
    bytes: int
    groups: tuple[Group, ...]


class EpisodeStore:
    """A store on disk; make or open one with `create` or `open`."""

    def __init__(self, path: Path, schema: Schema, name: str) -> None:
        self.path = path
        """The version folder, which TFDS calls the data directory."""
        self.schema = schema
        self.name = name
        self._layout = Layout(path)
        self._catalog = Catalog(self._layout)

    @classmethod
    def create(cls, root: Path, name: str, schema: Schema) -> EpisodeStore:
        """Make the store ``<root>/<name>/1.0.0``, or open it if it is there with the same schema.

        Raises `FlywheelError` for a bad name, for another schema and for a folder that holds something else.
        """
        if not _NAME.fullmatch(name):
            raise FlywheelError(
                f"'{name}' cannot name a store; use a small letter and then small letters, digits and '_', 64 at most."
            )
        layout = Layout(Path(root) / name / VERSION)
        layout.create(name, schema)
        store = cls._open(layout.path)
        if store.schema != schema:
            raise FlywheelError(
                f"The store {layout.path} has another schema ({_difference(store.schema, schema)}); use another name or root."
            )
        return store

    @classmethod
    def open(cls, path: Path) -> EpisodeStore:
        """Open a store by its version folder, its data set folder, or a root that holds exactly one; writes nothing.

        Raises `FlywheelError` if there is none, or more than one.
        """
        path = Path(path)
        candidates = [path, path / VERSION, *sorted(path.glob(f"*/{VERSION}"))]
        found = [folder for folder in candidates if _is_store(folder)]
        if not found:
            raise FlywheelError(f"There is no store at {path}; give the folder that was collected into (flywheel collect).")
        if len(found) > 1:
            names = ", ".join(sorted(folder.parent.name for folder in found))
            raise FlywheelError(f"{path} holds several stores ({names}); give the folder of one of them.")
        return cls._open(found[0])

    @classmethod
    def _open(cls, path: Path) -> EpisodeStore:
        layout = Layout(path)
        return cls(path, layout.read_schema(), layout.read_shards().name)

    def writer(self, seal_episodes: int = 64) -> EpisodeWriter:
        """A writer; after so many episodes, and when it is closed, its journal becomes a shard, which TFDS sees.

        Raises `FlywheelError` if the disk is too full to recover what a dead writer left.
        """
        return EpisodeWriter(self._layout, self.schema, seal_episodes)

    def rows(self) -> list[IndexRow]:
        """One row per acknowledged episode, in the order in which they lie in the shards, unsealed ones last."""
        self._catalog.refresh()
        return sorted(self._catalog.rows.values(), key=lambda row: (row.shard.startswith("."), row.shard, row.offset))

    def has(self, episode_id: str) -> bool:
        """Whether an episode is stored."""
        self._catalog.refresh()
        return episode_id in self._catalog.rows

    def snapshot(self, where: Callable[[EpisodeMetadata], bool] | None = None) -> Snapshot:
        """The episodes that are stored now, unsealed ones included, or those of them for which `where` holds."""
        return Snapshot.of(SnapshotEntry(row.episode_id, row.crc) for row in self.rows() if where is None or where(row))

    def read(self, episode_id: str) -> Episode:
        """One episode; raises `FlywheelError` if there is none of that id, and `DamagedError` if its record is damaged."""
        row = self._catalog.rows.get(episode_id) or self._find(episode_id)
        try:
            return self._read(row)
        except (FileNotFoundError, DamagedError):
            # Sealing or recovery may have moved the record since the row was made; what is damaged is so at the second look.
            moved = self._find(episode_id)
            if moved == row:
                raise
            return self._read(moved)

    def episodes(self, snapshot: Snapshot | None = None) -> Iterator[Episode]:
        """The episodes of a snapshot in its order, or all in the order of `rows`.

        A damaged record is left out with a `DamageWarning`; raises `FlywheelError` if the store lacks an episode of the snapshot.
        """
        ids = [row.episode_id for row in self.rows()] if snapshot is None else [entry.episode_id for entry in snapshot.entries]
        for episode_id in ids:
            try:
                yield self.read(episode_id)
            except DamagedError as error:
                warnings.warn(f"Episode {episode_id} is left out: {error}", DamageWarning, stacklevel=2)

    def info(self) -> StoreInfo:
        """The store in numbers."""
        rows = self.rows()
        shards = self._catalog.shards
        episodes = Counter((row.task, row.agent_id) for row in rows)
        successes = Counter((row.task, row.agent_id) for row in rows if row.success)
        journals = [path.stat().st_size for path in self._layout.journals.glob("*.tfrecord")]
        return StoreInfo(
            episodes=len(rows),
            steps=sum(row.length for row in rows),
            shards=len(shards.lengths),
            unsealed=sum(row.shard.startswith(".") for row in rows),
            bytes=shards.total_bytes + sum(journals),
            groups=tuple(Group(*key, count, successes[key]) for key, count in sorted(episodes.items())),
        )

    def _find(self, episode_id: str) -> IndexRow:
        self._catalog.refresh()
        row = self._catalog.rows.get(episode_id)
        if row is None:
            raise FlywheelError(f"The store {self.path} has no episode '{episode_id}'; 'flywheel store ls' lists them.")
        return row

    def _read(self, row: IndexRow) -> Episode:
        path = self.path / row.shard
        with path.open("rb") as file:
            try:
                record = read_record(file.fileno(), row.offset)
            except DamagedError as error:
                raise DamagedError(f"{path}: {error} 'flywheel store verify' tells what else is damaged.") from None
        if record.crc != row.crc:
            raise DamagedError(f"{path}: the record at byte {row.offset} is not episode {row.episode_id}.")
        return decode_episode(record.payload, self.schema)


def _is_store(folder: Path) -> bool:
    return Layout(folder).schema.is_file()


def _difference(stored: Schema, given: Schema) -> str:
    if stored.action != given.action:
        return f"its action is {stored.action}, not {given.action}"
    theirs, ours = stored.observation.arrays, given.observation.arrays
    for key in sorted(theirs.keys() | ours.keys()):
        if theirs.get(key) != ours.get(key):
            return f"its observation['{key}'] is {theirs.get(key)}, not {ours.get(key)}"
    return "it differs"

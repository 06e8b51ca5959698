"""The growing store of episodes: an ordinary TFDS data folder that any number of processes append to.

    store = EpisodeStore.create(Path("data"), "panda_lift", schema)
    with store.writer() as writer:
        writer.append(episode)          # on the disk when it returns
    snapshot = store.snapshot(lambda episode: episode.success)

Layout and locks are in `layout`, the protocol in `journal`, what TFDS sees in `schema`. Reading never writes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.datasets.catalog import Catalog
from flywheel.datasets.codec import decode_episode
from flywheel.datasets.index import IndexRow, Trim
from flywheel.datasets.label_log import LabelLog, undone
from flywheel.datasets.labels import Label
from flywheel.datasets.layout import NAME, VERSION, Layout
from flywheel.datasets.lineage import LineageRecords
from flywheel.datasets.overlay import Overlay, revise
from flywheel.datasets.places import url_of
from flywheel.datasets.query import Parameter, select
from flywheel.datasets.recording.recorder import EpisodeRecording, Recorder, record_episode
from flywheel.datasets.recording.spill import recover_spills
from flywheel.datasets.schema import Schema
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store_info import StoreInfo, count
from flywheel.datasets.tfrecord import DamagedError, DamageWarning, read_record
from flywheel.datasets.writer import EpisodeWriter, Sealing


class EpisodeStore:
    """A store on disk; make or open one with `create` or `open`."""

    def __init__(self, path: Path, schema: Schema, name: str, catalog: Catalog | None = None) -> None:
        self.path = path
        """The version folder, which TFDS calls the data directory."""
        self.schema = schema
        self.name = name
        self._layout = Layout(path)
        self._catalog = catalog or Catalog(self._layout)
        self._labels = LabelLog(self._layout.labels)
        self.lineage = LineageRecords(self._layout)
        """The snapshots that were trained on and the policies that came of them."""
        self._overlay = Overlay(path, self._catalog, self._labels)

    @classmethod
    def create(cls, root: Path, name: str, schema: Schema) -> EpisodeStore:
        """Make the store ``<root>/<name>/1.0.0``, or open it if it is there with the same schema.

        Raises `FlywheelError` for a bad name, for another schema and for a folder that holds something else.
        """
        if not NAME.fullmatch(name):
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
    def open(cls, path: Path | str) -> EpisodeStore:
        """Open a store by its version folder, its data set folder, or a root that holds exactly one; writes nothing.

        A URL (``s3://bucket/lift``) opens what `sync` has copied there.
        Raises `FlywheelError` if there is no store, or more than one.
        """
        if url := url_of(path):
            from flywheel.datasets.remote import open_remote  # it builds on this file

            return open_remote(url)
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
        layout.check_contained()
        return cls(path, layout.read_schema(), layout.read_shards().name)

    def writer(self, seal_episodes: int = 256, *, seal_bytes: int = 128 << 20, seal_seconds: float = 600.0) -> EpisodeWriter:
        """A writer; after so many episodes or bytes, or so long, and when it is closed, its journal becomes a shard.

        TFDS sees an episode from then on; this class, at once. Raises `FlywheelError` where nobody may or should write (full,
        read-only, forbidden, or on a network file system).
        """
        writer = EpisodeWriter(self._layout, self.schema, Sealing(seal_episodes, seal_bytes, seal_seconds))
        recover_spills(self._layout, self.schema, writer)
        return writer

    def recorder(self, *, ring_bytes: int = 64 << 20, seal_episodes: int = 256) -> Recorder:
        """A recorder, which logs steps from within a control loop; arguments and errors as `Recorder` has them."""
        return Recorder(self, ring_bytes=ring_bytes, seal_episodes=seal_episodes)

    def episode(
        self, *, task: str = "", robot: str = "", **metadata: str | int | bool
    ) -> AbstractContextManager[EpisodeRecording]:
        """A recorder for a single episode; arguments and errors as `Recorder.episode` has them."""
        return record_episode(self, task=task, robot=robot, **metadata)

    def rows(self, *, deleted: bool = False) -> list[IndexRow]:
        """One row per acknowledged episode as it is labelled, in the order of the shards, unsealed ones last.

        Episodes that are labelled as deleted are left out unless they are asked for.
        """
        self._refresh()
        return self._overlay.rows(deleted=deleted)

    def has(self, episode_id: str) -> bool:
        """Whether an episode is stored and not labelled as deleted."""
        self._refresh()
        row = self._overlay.find(episode_id)
        return row is not None and not row.deleted

    def query(self, expression: str, *parameters: Parameter) -> list[IndexRow]:
        """The rows for which an SQL expression over `query.COLUMNS` holds: ``store.query("task = ? and success", "lift")``.

        Raises `FlywheelError` for an expression that is not one, and for anything that does more than compare columns.
        """
        return select(self.rows(), expression, parameters)

    def snapshot(self, where: Callable[[IndexRow], bool] | str | None = None) -> Snapshot:
        """The episodes that are stored now as they are labelled, unsealed ones included, or those for which `where` holds.

        `where` is a function of a row or an expression for `query`, whose errors it raises.
        """
        if isinstance(where, str):
            return Snapshot.of_rows(self.query(where))
        return Snapshot.of_rows(row for row in self.rows() if where is None or where(row))

    def resolve(self, snapshot: Snapshot) -> list[IndexRow]:
        """The rows of a snapshot in its order, labelled as they were then, also where they are deleted by now.

        Raises `FlywheelError` for an episode or a label that the store no longer holds as the snapshot has it.
        """
        self._refresh()
        return [self._overlay.as_of(*entry) for entry in snapshot.entries]

    def read(self, episode_id: str) -> Episode:
        """One episode as it is labelled: trimmed, and with the labels in its metadata.

        Raises `FlywheelError` if there is none of that id or it is deleted, and `DamagedError` if its record is damaged.
        """
        self._refresh()
        return self.read_as(self._find(episode_id))

    def read_as(self, row: IndexRow) -> Episode:
        """The episode with a row's trim and metadata; raises as `raw` does."""
        return revise(self.raw(row.episode_id), row)

    def raw(self, episode_id: str) -> Episode:
        """One episode as it was recorded, whatever its labels say.

        Raises `FlywheelError` if there is none of that id, and `DamagedError` if its record is damaged.
        """
        return decode_episode(self.payload(episode_id), self.schema)

    def payload(self, episode_id: str) -> bytes:
        """An episode's record as it lies on the disk, for `codec` to take what is wanted from it; raises as `raw` does."""
        row = self._catalog.rows.get(episode_id) or self._find_recorded(episode_id)
        try:
            return self._read(row)
        except (FileNotFoundError, DamagedError):
            # Sealing or recovery may have moved the record since the row was made; what is damaged is so at the second look.
            self._catalog.refresh()
            moved = self._find_recorded(episode_id)
            if moved == row:
                raise
            return self._read(moved)

    def episodes(self, snapshot: Snapshot | None = None) -> Iterator[Episode]:
        """The episodes of a snapshot in its order, labelled as they were then, or all in the order of `rows`.

        A damaged record is left out with a `DamageWarning`; raises `FlywheelError` if the store lacks an episode of the snapshot.
        """
        for row in self.rows() if snapshot is None else self.resolve(snapshot):
            try:
                yield self.read_as(row)
            except DamagedError as error:
                warnings.warn(f"Episode {row.episode_id} is left out: {error}", DamageWarning, stacklevel=2)

    def label(
        self, episode_ids: Iterable[str], field: str, value: bool | str | tuple[int, int] | None, *, by: str, reason: str = ""
    ) -> None:
        """Label episodes, durably when it returns; nothing is ever lost by it, as `undo` takes it back.

        Args:
            episode_ids: Which ones; deleted ones may be labelled, too.
            field: ``success``, ``invalid`` or ``deleted`` (a bool), ``task`` (its name), or ``trim``.
            value: For ``trim`` the transitions [start, stop) that count, with observation `stop` as the final one; None makes
                any field again what was recorded.
            by: Who or what says so: a person, or a detector with its version.
            reason: Why.

        Raises `FlywheelError` for an episode, a field or a value that there is not, and when the disk refuses.
        """
        value = value.item() if isinstance(value, np.generic) else value  # numpy's own bool means one, too
        rows = self._named(episode_ids)
        at_ns = time.time_ns()
        given = [self._trim(row, value) if isinstance(value, tuple) else value for row in rows]
        labels = [Label(row.episode_id, field, own, by, reason, at_ns) for row, own in zip(rows, given, strict=True)]
        self._labels.append(lambda: labels)

    def undo(self, episode_ids: Iterable[str], field: str, *, by: str, reason: str = "") -> None:
        """Take the newest standing label of a field back, so that the one before it holds, or what was recorded.

        Raises `FlywheelError` for an episode that has none, for which nothing is changed then, and when the disk refuses.
        """
        rows = self._named(episode_ids)

        def labels() -> list[Label]:
            entries = self._labels.entries
            return [undone(entries.get(row.episode_id, []), row.episode_id, field, by, reason) for row in rows]

        self._labels.append(labels)

    def history(self, episode_id: str) -> list[Label]:
        """Every label that an episode was ever given, oldest first; raises `FlywheelError` if there is no such episode."""
        self._refresh()
        row = self._find_recorded(episode_id)
        return [entry.label for entry in self._labels.entries.get(row.episode_id, [])]

    def info(self) -> StoreInfo:
        """The store in numbers, as its episodes are labelled."""
        return count(self.rows(), self._catalog.shards, self._catalog.journal_bytes)

    def _refresh(self) -> None:
        self._catalog.refresh()
        self._labels.refresh()

    def _find(self, episode_id: str) -> IndexRow:
        row = self._overlay.find(episode_id)
        if row is None:
            raise FlywheelError(f"The store {self.path} has no episode '{episode_id}'; 'flywheel store ls' lists them.")
        if row.deleted:
            raise FlywheelError(f"Episode '{episode_id}' is deleted; 'flywheel store label ... --restore' brings it back.")
        return row

    def _named(self, episode_ids: Iterable[str]) -> list[IndexRow]:
        if isinstance(episode_ids, str):  # else it would be taken letter by letter
            raise FlywheelError(f"Give the episodes' ids as a list, ['{episode_ids}'], not as one text.")
        return [self._find_recorded(episode_id) for episode_id in dict.fromkeys(episode_ids)]

    def _find_recorded(self, episode_id: str) -> IndexRow:
        row = self._catalog.rows.get(episode_id)
        if row is None:
            self._catalog.refresh()
            row = self._catalog.rows.get(episode_id)
        if row is None:
            raise FlywheelError(f"The store {self.path} has no episode '{episode_id}'; 'flywheel store ls' lists them.")
        return row

    def _trim(self, row: IndexRow, part: tuple[int, int]) -> Trim:
        if not all(isinstance(end, int | np.integer) for end in part):
            raise FlywheelError(
                f"A trim is two whole numbers, not {part}; give the first transition and the one behind the last."
            )
        start, stop = map(int, part)
        if not 0 <= start < stop <= row.length:
            raise FlywheelError(
                f"Episode '{row.episode_id}' has {row.length} steps; a trim is a part of 0:{row.length}, not {start}:{stop}."
            )
        return Trim(start, stop, float(self.raw(row.episode_id).reward[start:stop].sum(dtype=np.float64)))

    def _read(self, row: IndexRow) -> bytes:
        path = self.path / row.shard
        with path.open("rb") as file:
            try:
                record = read_record(file.fileno(), row.offset)
            except DamagedError as error:
                raise DamagedError(f"{path}: {error} 'flywheel store verify' tells what else is damaged.") from None
        if record.crc != row.crc:
            raise DamagedError(f"{path}: the record at byte {row.offset} is not episode {row.episode_id}.")
        return record.payload


def _is_store(folder: Path) -> bool:
    return Layout(folder).schema.is_file()


def _difference(stored: Schema, given: Schema) -> str:
    if stored.action != given.action:
        return f"its action is {stored.action}, not {given.action}"
    theirs, ours = stored.observation.arrays, given.observation.arrays
    for key in sorted(theirs.keys() | ours.keys()):
        if theirs.get(key) != ours.get(key):
            return f"its observation['{key}'] is {theirs.get(key)}, not {ours.get(key)}"
    return f"it keeps pictures as {stored.pictures}, not as {given.pictures}"

"""The training cache on disk: a store's steps as append-only binary columns, each episode decoded once.

    header.json       the format's version, the schema's hash, and the cache's own name
    state.f32         (rows, D)   ObservationSpec.pack_state of every step, final observations included; D may be 0
    action.f32        (rows, A)
    reward.f32        (rows,)
    episodes.jsonl    one line per episode: the commit record, written only when the episode's rows are durable
    arrays/           pictures and other arrays, where a recipe asked for them (`array_cache`)

An episode is kept as it was recorded: labels (success, task, trim) are the store's, and come in when a table is made.
Everything here is derived from the store. A crash leaves rows or half a line beyond the last commit, which the next builder
cuts; whatever else is wrong with it, it is built again. Rows once committed never change and are never cut, so that other
processes' memory maps stay valid.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.episode import Episode
from flywheel.core.files import fsync_folder, write_atomically
from flywheel.core.lineage import content_hash, json_hash
from flywheel.datasets.cache.array_cache import ArrayCache
from flywheel.datasets.cache.cache_files import append
from flywheel.datasets.schema import Schema
from flywheel.datasets.table import Floats

FORMAT = 2
_COMMIT_ROWS = 100_000
"""Rows between commits of a long build, so that a kill costs seconds and not the build."""


@dataclass(frozen=True, slots=True)
class CachedEpisode:
    """One line of episodes.jsonl: where an episode's rows lie, and whether its last step is a terminal one."""

    episode_id: str
    crc: int
    start: int
    steps: int
    terminal: bool


class ColumnCache:
    """An open, locked cache; make one with `open_cache`."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.folder = folder
        self.episodes: dict[tuple[str, int], CachedEpisode] = {}
        """Every committed episode by (id, CRC)."""
        self._observation, self._action = schema.observation, schema.action
        self._widths = {"state": schema.observation.state_dim, "action": schema.action.dim, "reward": 1}
        self._header = {"format": FORMAT, "schema": json_hash(schema.to_json())}
        self.name = ""
        """What tells this cache from one that was built in its place: arrays belong to one cache."""
        self.rows = 0
        """The committed rows R."""
        try:
            self._load()
        except (OSError, ValueError, TypeError, KeyError):
            self._reset()

    def append(self, episodes: Iterable[tuple[int, Episode]]) -> None:
        """Add episodes, each with the CRC of its record; raises `FlywheelError` if the disk is full."""
        pending: list[tuple[int, Episode]] = []
        rows = 0
        for crc, episode in episodes:
            pending.append((crc, episode))
            rows += len(episode)
            if rows >= _COMMIT_ROWS:
                self._commit(pending)
                pending, rows = [], 0
        if pending:
            self._commit(pending)

    def arrays(self) -> dict[str, Floats]:
        """The committed rows as read-only memory maps: state (R, D), action (R, A), reward (R,)."""
        maps = {name: self._map(name, width) for name, width in self._widths.items()}
        return {**maps, "reward": maps["reward"][:, 0]}

    def _map(self, name: str, width: int) -> Floats:
        if not width:  # a store of pictures alone has no state, and nothing cannot be mapped
            return np.zeros((self.rows, 0), np.float32)
        # Not copy-on-write: the kernel counts such a map as memory, and refuses one that is larger than the machine's.
        return np.memmap(self._column(name), np.float32, mode="r", shape=(self.rows, width))

    def _commit(self, pending: list[tuple[int, Episode]]) -> None:
        episodes = [episode for _, episode in pending]
        self._extend("state", [self._observation.pack_state(episode.observation) for episode in episodes])
        self._extend("action", [self._action.normalize(episode.action) for episode in episodes])
        self._extend("reward", [episode.reward for episode in episodes])
        lines = []
        for crc, episode in pending:
            record = CachedEpisode(
                episode.metadata.episode_id, crc, self.rows, len(episode), terminal=bool(episode.is_terminal[-1])
            )
            self.episodes[record.episode_id, crc] = record
            self.rows += len(episode)
            lines.append(json.dumps(asdict(record)) + "\n")
        append(self.folder / "episodes.jsonl", "".join(lines).encode())
        fsync_folder(self.folder)

    def _extend(self, name: str, blocks: list[Any]) -> None:
        append(self._column(name), np.ascontiguousarray(np.concatenate(blocks), dtype=np.float32).tobytes())

    def _load(self) -> None:
        """Read the commit records and cut what lies beyond them; raises if the cache is not wholly what it should be."""
        header = json.loads((self.folder / "header.json").read_bytes())
        self.name = header.pop("name")
        if header != self._header:
            raise ValueError("another schema or version")
        index = self.folder / "episodes.jsonl"
        committed, newline, _torn = index.read_bytes().rpartition(b"\n")
        for line in committed.splitlines():
            record = CachedEpisode(**json.loads(line))
            if record.start != self.rows or record.steps < 2:
                raise ValueError("episodes that do not follow each other")
            self.episodes[record.episode_id, record.crc] = record
            self.rows += record.steps
        sizes = {self._column(name): 4 * width * self.rows for name, width in self._widths.items()}
        if any(path.stat().st_size < size for path, size in sizes.items()):
            raise ValueError("rows are missing")
        for path, size in {**sizes, index: len(committed + newline)}.items():
            if path.stat().st_size > size:
                os.truncate(path, size)

    def _reset(self) -> None:
        """Start empty. Files are replaced, never emptied, as others may have them mapped; the index goes last but one."""
        self.episodes, self.rows, self.name = {}, 0, uuid.uuid4().hex
        for name in self._widths:
            self._column(name).unlink(missing_ok=True)
        (self.folder / "episodes.jsonl").unlink(missing_ok=True)
        for name in self._widths:
            self._column(name).touch()
        (self.folder / "episodes.jsonl").touch()
        write_atomically(self.folder / "header.json", json.dumps({**self._header, "name": self.name}).encode())

    def _column(self, name: str) -> Path:
        return self.folder / f"{name}.f32"


@contextmanager
def open_arrays(cache: ColumnCache, schema: Schema, keys: Iterable[str]) -> Iterator[dict[str, ArrayCache]]:
    """The caches of some observation arrays, locked against other builders of arrays."""
    folder = cache.folder / "arrays"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield {key: ArrayCache(folder / key, schema.observation.arrays[key], cache.name) for key in keys}


@contextmanager
def open_cache(store: Path, schema: Schema) -> Iterator[ColumnCache]:
    """The cache of the store at a path, locked against other builders; memory maps that it gave outlive the lock."""
    folder = cache_folder(store)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield ColumnCache(folder, schema)


def cache_folder(store: Path) -> Path:
    """Where a store's cache lies: in the store, or in the user's cache folder if the store cannot be written."""
    if os.access(store, os.W_OK):
        return store / ".columns"
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "flywheel" / "columns" / content_hash(os.fsencode(store.resolve()))

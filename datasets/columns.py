"""A snapshot as memory-mapped columns, and batches gathered from them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from flywheel.core.batch import Batch
from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.datasets.cache.array_build import Loaded, Wanted, default_budget, fill, plan
from flywheel.datasets.cache.array_cache import ArrayMaps
from flywheel.datasets.cache.column_cache import CachedEpisode, ColumnCache, open_arrays, open_cache
from flywheel.datasets.cache.decoded import DecodedRows
from flywheel.datasets.cache.frames import Frames, shared
from flywheel.datasets.cache.gather import make_batch
from flywheel.datasets.codec import decode_array, decode_episode, encoded_pictures
from flywheel.datasets.index import IndexRow
from flywheel.datasets.pictures import encode_many
from flywheel.datasets.relabel import Relabeled
from flywheel.datasets.returns import Discount
from flywheel.datasets.sampler import Indices
from flywheel.datasets.schema import Schema
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.table import EpisodeTable, Floats, Ints
from flywheel.datasets.tfrecord import DamagedError, DamageWarning
from flywheel.datasets.window import SINGLE, Window

PICTURE_POOL = 1 << 30
"""Bytes of decoded pictures that are kept in memory. A constant, as a run's batches depend on it, whatever the machine."""

Progress = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""


@dataclass(frozen=True, eq=False)
class Columns:
    """R steps of a store, of which `table` names those of one snapshot.

    Row r + 1 follows row r within an episode; the last row of an episode is its final observation, whose action and reward
    are undefined. Other snapshots' episodes may lie in between.
    """

    table: EpisodeTable
    state: Floats
    """(R, D); D is 0 where pictures are all there is."""
    action: Floats
    """(R, A)"""
    reward: Floats
    """(R,)"""
    arrays: Mapping[str, Frames] = field(default_factory=dict)
    """Pictures and other observation arrays that were asked for, each with R rows."""

    @property
    def sample_bytes(self) -> int:
        """What one sample's pictures and other arrays take, with a next observation and a goal."""
        return 3 * sum(frames.maps.rows.shape[1] for frames in self.arrays.values())

    @cached_property
    def pool_rows(self) -> int:
        """How many decoded rows are kept in memory; 0 where all episodes of the table are raw."""
        encoded = [frames for frames in self.arrays.values() if frames.is_encoded(self.table.start).any()]
        return min((len(frames.decoded) if frames.decoded else 0 for frames in encoded), default=0)

    @classmethod
    def open(
        cls,
        store: EpisodeStore,
        snapshot: Snapshot,
        on_progress: Progress = lambda done, total: None,
        *,
        arrays: Collection[str] = (),
        picture_budget: int | None = None,
        picture_pool: int = PICTURE_POOL,
    ) -> Self:
        """Bring the store's cache up to the snapshot and map it; only what is not in it yet is decoded.

        Args:
            store: Where the episodes are.
            snapshot: Which ones, with the labels (success, task, trim) that they had.
            on_progress: Told of episodes that are decoded.
            arrays: Observation arrays to carry beside the state, by key: pictures, stamps.
            picture_budget: Bytes of this store's pictures that may be kept raw; the others stay encoded and are decoded when
                they are sampled. None stands for `array_build.default_budget`.
            picture_pool: Bytes of memory for pictures that were decoded, which are not decoded again while they are there.

        A damaged record is left out with the store's `DamageWarning`.
        Raises `FlywheelError` for an empty snapshot, for observations without a state where no picture is asked for, or without
        one of the arrays, for an episode that the store no longer holds as the snapshot has it, and if the disk is full.
        """
        if not snapshot.entries:
            raise FlywheelError(f"The snapshot of {store.path} holds no episodes; collect some first (flywheel collect).")
        _check_keys(store, arrays)
        rows = store.resolve(snapshot)
        with open_cache(store.path, store.schema) as cache:
            missing = [row for row in rows if (row.episode_id, row.crc) not in cache.episodes]
            if missing:
                cache.append(_decode(store, missing, on_progress))
            maps = cache.arrays()
        held = [(row, cache.episodes[row.episode_id, row.crc]) for row in rows if (row.episode_id, row.crc) in cache.episodes]
        frames = {}
        if arrays:
            filled = _fill(store, cache, [episode for _, episode in held], arrays, picture_budget, on_progress)
            held = [(row, episode) for row, episode in held if episode.start in filled.starts]
            frames = _frames(filled.maps, picture_pool)
        if not held:
            raise FlywheelError(f"No episode of the snapshot of {store.path} is readable; see 'flywheel store verify'.")
        return cls(table=_table(held), arrays=frames, **maps)

    def gather(self, indices: Indices, relabeled: Relabeled, discount: Discount, window: Window = SINGLE) -> Batch:
        """The batch of n sampled transitions with their meaning.

        Args:
            indices: The transitions.
            relabeled: Their meaning.
            discount: Gamma, for all or per episode (E,).
            window: How many observations and actions each sample shows.
        """
        return make_batch(self, indices, relabeled, discount, window)

    def observations(self, rows: Ints) -> dict[str, Tensor]:
        """The observations of some rows (n,): the state (n, D), and the arrays."""
        state = self._tensors[0].index_select(0, torch.from_numpy(rows))
        return {"state": state} | {key: frames.gather(rows) for key, frames in self.arrays.items()}

    def actions(self, rows: Ints) -> Tensor:
        """The actions of some rows (n,): (n, A)."""
        return self._tensors[1].index_select(0, torch.from_numpy(rows))

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor]:
        return shared(self.state), shared(self.action)


def _check_keys(store: EpisodeStore, arrays: Collection[str]) -> None:
    observation = store.schema.observation
    if not observation.state_dim and not set(arrays) & set(store.schema.picture_keys):
        raise FlywheelError(
            f"The observations of {store.path} hold no floating-point vector; log the robot's state too, "
            "or learn from pictures (--data.pictures)."
        )
    others = observation.arrays.keys() - set(observation.state_keys)
    unknown = sorted(set(arrays) - others)
    if unknown:
        raise FlywheelError(f"{store.path} has no observation array {unknown} beside the state; it has {sorted(others)}.")


def _decode(store: EpisodeStore, missing: Sequence[IndexRow], on_progress: Progress) -> Iterator[tuple[int, Episode]]:
    for done, row in enumerate(missing):
        on_progress(done, len(missing))
        try:
            yield row.crc, decode_episode(store.payload(row.episode_id), store.schema, store.schema.observation.state_keys)
        except DamagedError as error:
            warnings.warn(f"Episode {row.episode_id} is left out: {error}", DamageWarning, stacklevel=2)
    on_progress(len(missing), len(missing))


@dataclass(frozen=True)
class _Filled:
    maps: dict[str, ArrayMaps]
    starts: frozenset[int]
    """The first rows of the episodes that are in all of them."""


def _fill(
    store: EpisodeStore,
    cache: ColumnCache,
    episodes: Sequence[CachedEpisode],
    keys: Collection[str],
    budget: int | None,
    on_progress: Progress,
) -> _Filled:
    pictures = [key for key in keys if key in store.schema.picture_keys]

    def load(wanted: Wanted) -> Loaded:
        payload = store.payload(wanted.episode.episode_id)
        raw = {key: decode_array(payload, store.schema, key) for key in wanted.raw}
        return {**raw, **{key: _encoded(payload, store.schema, key) for key in wanted.encoded}}

    with open_arrays(cache, store.schema, keys) as caches:
        limit = default_budget(cache.folder) if budget is None else budget
        wanted = list(plan(caches, episodes, pictures, limit))
        if wanted:
            fill(caches, wanted, load, on_progress)
        starts = frozenset.intersection(*(frozenset(array.episodes) for array in caches.values()))
        return _Filled({key: array.maps(cache.rows) for key, array in caches.items()}, starts)


def _frames(maps: Mapping[str, ArrayMaps], pool: int) -> dict[str, Frames]:
    """The columns of arrays, with room for the same number of decoded rows each, where not all of them are raw."""
    encoded = {key: array.rows.shape[1] for key, array in maps.items() if array.spans is not None}
    held = pool // sum(encoded.values()) if encoded else 0
    return {
        key: Frames(
            array, DecodedRows(len(array.rows), min(held, len(array.rows)), encoded[key]) if held and key in encoded else None
        )
        for key, array in maps.items()
    }


def _encoded(payload: bytes, schema: Schema, key: str) -> list[bytes]:
    if schema.storage(key) == "raw":
        return encode_many(decode_array(payload, schema, key), "png")  # exact, as what it was
    decode_array(payload, schema, key)  # a damaged one is found now, not while something learns
    return encoded_pictures(payload, schema, key)


def _table(episodes: Sequence[tuple[IndexRow, CachedEpisode]]) -> EpisodeTable:
    """The episodes as their labels have them: a trimmed one begins later, or ends earlier and then without a terminal state."""
    begin = [0 if row.trim is None else row.trim.start for row, _ in episodes]
    ends = [row.trim is None or row.trim.stop == cached.steps - 1 for row, cached in episodes]
    return EpisodeTable(
        episode_id=tuple(row.episode_id for row, _ in episodes),
        start=np.array([cached.start + skipped for (_, cached), skipped in zip(episodes, begin, strict=True)], np.int64),
        transitions=np.array([row.length for row, _ in episodes], np.int64),
        success=np.array([row.success for row, _ in episodes], np.bool_),
        terminal=np.array([cached.terminal and whole for (_, cached), whole in zip(episodes, ends, strict=True)], np.bool_),
        episode_return=np.array([row.episode_return for row, _ in episodes], np.float64),
        task=np.array([row.task for row, _ in episodes], np.str_),
    )

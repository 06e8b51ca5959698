"""Batches from pictures that are kept encoded: drawn from a pool, and yet a pure function of (snapshot, seed, update)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from flywheel.core.batch import Batch
from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.columns import Columns
from flywheel.datasets.mixture import Mixture, Source
from flywheel.datasets.relabel import ActorGoals, Hindsight
from flywheel.datasets.sampler import Sampler, UniformSampler, WeightedSampler
from flywheel.datasets.schema import Schema
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.window import SINGLE, Window
from flywheel.training.data import CHUNK_UPDATES, ChunkSource, Part

BATCH, EPISODES = 12, 40
FRAME = 16 * 12 * 3
POOL = 2 * FRAME * 20 * 11
"""Two cameras, and about twenty of the episodes."""
SCHEMA = Schema(
    observation=ObservationSpec(
        {"state": ArraySpec((2,)), **{key: ArraySpec((16, 12, 3), "uint8") for key in ("front", "wrist")}}
    ),
    action=ActionSpec(low=(-1.0,), high=(1.0,)),
    pictures="jpeg",
)
GOALS = ActorGoals(Hindsight(), Hindsight(0.0, 0.5, 0.5))


def _episode(number: int) -> Episode:
    rng = np.random.default_rng(number)
    steps = int(rng.integers(6, 14))
    return Episode.from_transitions(
        [
            {
                "state": rng.normal(size=2).astype(np.float32),
                **{key: np.full((16, 12, 3), rng.integers(255), np.uint8) for key in ("front", "wrist")},
            }
            for _ in range(steps + 1)
        ],
        list(rng.uniform(-1, 1, (steps, 1)).astype(np.float32)),
        [0.0] * steps,
        terminal=False,
        metadata=EpisodeMetadata(episode_id=f"e{number:03d}", task="lift"),
    )


def _append(store: EpisodeStore, numbers: range) -> None:
    with store.writer() as writer:
        for number in numbers:
            writer.append(_episode(number))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    made = EpisodeStore.create(tmp_path_factory.mktemp("pictures"), "pictures", SCHEMA)
    _append(made, range(EPISODES))
    return made


def _columns(store: EpisodeStore, snapshot: Snapshot | None = None, pool: int = POOL) -> Columns:
    found = store.snapshot() if snapshot is None else snapshot
    return Columns.open(store, found, arrays=("front", "wrist"), picture_budget=0, picture_pool=pool)


def _source(
    columns: Columns | Mixture, sampler: Sampler | None = None, part: Part | None = None, window: Window = SINGLE
) -> ChunkSource:
    sampler = UniformSampler(columns.table) if sampler is None else sampler
    found = ChunkSource(
        columns, sampler, GOALS, batch_size=BATCH, discount=0.9, seed=3, window=window, part=Part() if part is None else part
    )
    assert found.pool is not None
    return found


def _updates(source: ChunkSource, start: int, stop: int) -> Iterator[Batch]:
    own = BATCH // source.part.world
    for rows in source.updates(start, stop):
        copy = rows._map(torch.clone)  # the memory of pictures is used again
        yield from (copy[at : at + own] for at in range(0, len(rows), own))


def _assert_equal(left: Batch, right: Batch) -> None:
    for name in ("observation", "next_observation", "goal", "actor_goal"):
        ours, theirs = getattr(left, name), getattr(right, name)
        assert ours.keys() == theirs.keys() == {"state", "front", "wrist"}
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), (name, key)
    assert torch.equal(left.action, right.action)


def test_a_run_that_goes_on_draws_the_same(store: EpisodeStore) -> None:
    whole = list(_updates(_source(_columns(store)), 0, 4 * CHUNK_UPDATES))
    resumed = _updates(_source(_columns(store)), 2 * CHUNK_UPDATES + 17, 4 * CHUNK_UPDATES)
    for ours, theirs in zip(resumed, whole[2 * CHUNK_UPDATES + 17 :], strict=True):
        _assert_equal(ours, theirs)


def test_pictures_are_those_that_are_decoded_for_each_batch(store: EpisodeStore) -> None:
    source, anew = _source(_columns(store), window=Window(history=2)), _columns(store, pool=0)
    assert anew.arrays["front"].decoded is None
    for chunk in range(3):
        indices, relabeled = source._drawn(chunk)
        _assert_equal(source.draw(chunk), anew.gather(indices, relabeled, 0.9, source.window))


def test_decoded_pictures_take_no_more_than_they_may(store: EpisodeStore) -> None:
    for pool in (POOL, POOL // 50, 1):  # fewer rows than a batch wants, and none at all
        columns = _columns(store, pool=pool)
        held = [frames.decoded.memory.nbytes for frames in columns.arrays.values() if frames.decoded]
        assert pool - 2 * FRAME < sum(held) <= pool
        rows = columns.table.step_rows
        for key, seen in columns.observations(rows).items():
            assert torch.equal(seen, _columns(store).observations(rows)[key])


def test_the_parts_of_all_processes_are_what_one_gets(store: EpisodeStore) -> None:
    whole = list(_updates(_source(_columns(store)), 10, 70))
    parts = [_updates(_source(_columns(store), part=Part(rank, 3)), 10, 70) for rank in range(3)]
    for batch, *own in zip(whole, *parts, strict=True):
        for rank, found in enumerate(own):
            _assert_equal(found, batch[rank * 4 : rank * 4 + 4])


def test_a_snapshot_draws_the_same_after_the_store_has_grown(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path, "pictures", SCHEMA)
    _append(store, range(0, 2 * EPISODES, 2))
    snapshot = store.snapshot()
    before = list(_updates(_source(_columns(store, snapshot)), 0, 60))
    _append(store, range(1, 2 * EPISODES, 2))
    grown = _columns(store)
    for ours, theirs in zip(_updates(_source(_columns(store, snapshot)), 0, 60), before, strict=True):
        _assert_equal(ours, theirs)
    source = _source(grown)
    drawn = np.unique(np.concatenate([source._drawn(chunk)[0].episode for chunk in range(12)]))
    assert len(drawn) > 1.5 * EPISODES  # old ones and new ones take their turns


def test_weights_and_mixtures_draw_from_pools_too(store: EpisodeStore) -> None:
    columns = _columns(store)
    weighted = _source(columns, WeightedSampler(columns.table, np.arange(EPISODES) % 2, of="episodes"))
    assert (weighted._drawn(0)[0].episode % 2 == 1).all()
    both = Mixture([Source(_columns(store), SCHEMA.observation), Source(_columns(store), SCHEMA.observation)])
    mixed = _source(both, both.sampler((0.25, 0.75)))
    from_second = [(both.source_of[mixed._drawn(chunk)[0].episode] == 1).mean() for chunk in range(30)]
    assert abs(np.mean(from_second) - 0.75) < 0.1
    resumed = _updates(_source(both, both.sampler((0.25, 0.75))), 55, 60)
    for ours, theirs in zip(resumed, list(_updates(mixed, 0, 60))[55:], strict=True):
        _assert_equal(ours, theirs)


def test_without_memory_for_a_pool_samples_are_drawn_apart(store: EpisodeStore) -> None:
    columns = _columns(store, pool=0)
    source = ChunkSource(columns, UniformSampler(columns.table), GOALS, batch_size=BATCH, discount=0.9, seed=3)
    assert source.pool is None
    assert len(np.unique(source._drawn(0)[0].episode)) == EPISODES

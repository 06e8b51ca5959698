"""Episodes that are made again from two numbers, so that what is read can be compared bit by bit with what was written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import ActionSpec, ArraySpec, Observation, ObservationSpec
from flywheel.datasets.index import index_row
from flywheel.datasets.layout import Layout
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import Record, scan

SCHEMA = Schema(
    ObservationSpec({"state": ArraySpec((6,)), "count": ArraySpec((), "int32")}), ActionSpec((-1.0, -1.0), (1.0, 1.0))
)


def make_episode(name: str) -> Episode:
    """The one episode of a name "lane-number"."""
    lane, number = map(int, name.split("-"))
    rng = np.random.default_rng((lane, number))
    steps = int(rng.integers(2, 60))
    observations: list[Observation] = [
        {"state": rng.normal(size=6).astype(np.float32), "count": np.array(rng.integers(0, 1000), np.int32)} for _ in range(steps)
    ]
    actions = list(rng.uniform(-1, 1, (steps - 1, 2)).astype(np.float32))
    metadata = EpisodeMetadata(episode_id=name, task="crash", seed=number)
    rewards = [float(number)] * (steps - 1)
    return Episode.from_transitions(observations, actions, rewards, terminal=bool(number % 2), metadata=metadata)


def check_content(store: EpisodeStore, names: Iterable[str]) -> None:
    """Raise `AssertionError` unless the store holds these episodes bit by bit."""
    for name in names:
        found, expected = store.raw(name), make_episode(name)
        assert found.metadata == expected.metadata, name
        for key in ("action", "reward", "discount", "is_first", "is_last", "is_terminal"):
            assert np.array_equal(getattr(found, key), getattr(expected, key)), (name, key)
        for key, value in expected.observation.items():
            assert np.array_equal(found.observation[key], value), (name, key)


def check_listing(path: Path) -> list[str]:
    """The ids that plain TFDS would read, in order; raises `AssertionError` where it would stop."""
    shards = Layout(path).read_shards()
    names: list[str] = []
    for shard, expected in zip(shards.names, shards.lengths, strict=True):
        descriptor = os.open(path / shard, os.O_RDONLY)
        try:
            items = list(scan(descriptor))
        finally:
            os.close(descriptor)
        records = [item for item in items if isinstance(item, Record)]
        assert len(items) == len(records) == expected, (shard, len(items), len(records), expected)
        names += [index_row(record, shard).episode_id for record in records]
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
    return names

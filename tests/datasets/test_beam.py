"""The arithmetic of bulk statistics; Beam itself runs in tests/interop."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ArraySpec, ObservationSpec
from flywheel.datasets.beam import Moments, _convert, statistics
from flywheel.datasets.store import EpisodeStore
from tests.point import SCHEMA, episode, make_store

VALUES = arrays(np.float32, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(-1e3, 1e3, width=32))


@given(VALUES, VALUES, VALUES)
def test_moments_merge_in_any_grouping(one: np.ndarray, two: np.ndarray, three: np.ndarray) -> None:
    every = np.concatenate([one, two, three]).astype(np.float64)
    left = Moments.of(one).merged(Moments.of(two)).merged(Moments.of(three))
    right = Moments.of(one).merged(Moments.of(two).merged(Moments.of(three)))
    for found in (left, right):
        assert found.count == len(every)
        np.testing.assert_allclose(found.mean, every.mean(axis=0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.std, every.std(axis=0), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(found.low, every.min(axis=0))
        np.testing.assert_array_equal(found.high, every.max(axis=0))


def test_pictures_are_pixels_of_channels() -> None:
    picture = np.zeros((2, 4, 5, 3), np.uint8)
    picture[..., 1] = 7
    found = Moments.of(picture)
    assert found.count == 2 * 4 * 5
    np.testing.assert_array_equal(found.mean, [0, 7, 0])


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is not None, reason="Beam is installed here")
def test_a_missing_beam_is_said(tmp_path: Path) -> None:
    make_store(tmp_path, range(2))
    with pytest.raises(FlywheelError, match=r"install flywheel-robotics\[beam\]"):
        statistics(tmp_path)


@pytest.mark.slow
def test_a_batch_is_one_shard_also_beyond_the_size_at_which_writers_seal(tmp_path: Path) -> None:
    wide = ObservationSpec({**SCHEMA.observation.arrays, "wrist": ArraySpec((256, 256, 3), "uint8")})
    schema = replace(SCHEMA, observation=wide, pictures="raw")
    store = EpisodeStore.create(tmp_path / "here", "point", schema)
    with store.writer() as writer:
        for seed in range(128):
            made = episode(seed)
            frames = np.zeros((len(made), 256, 256, 3), np.uint8)
            writer.append(replace(made, observation={**made.observation, "wrist": frames}))
    assert store.info().bytes > 128 << 20
    ids = [row.episode_id for row in store.rows()]
    _, records, size = _convert((0, ids), str(tmp_path / "here"), str(tmp_path / "there"), schema)
    assert records == 128
    assert size == store.info().bytes

"""Apache Beam's own local runner over stores: statistics and conversion (test_beam.py runs it where Beam is)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ArraySpec, ObservationSpec
from flywheel.datasets.beam import convert, statistics
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep.verify import verify
from tests.point import SCHEMA, episode, make_store


def test_statistics_are_numpys(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(150))
    found = statistics(tmp_path)
    expected = {"action": [episode.action[:-1] for episode in store.episodes()]}
    expected["observation/position"] = [episode.observation["position"] for episode in store.episodes()]
    for name, parts in expected.items():
        values = np.concatenate(parts).astype(np.float64)
        assert found[name].count == len(values)
        np.testing.assert_allclose(found[name].mean, values.mean(axis=0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found[name].std, values.std(axis=0), rtol=1e-12)
        np.testing.assert_array_equal(found[name].low, values.min(axis=0))
        np.testing.assert_array_equal(found[name].high, values.max(axis=0))


def test_statistics_of_a_query_on_several_processes(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(130))
    options = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    found = statistics(tmp_path, "success", options)
    assert found["reward"].count == sum(row.length for row in store.rows() if row.success)


def test_an_empty_choice_is_said(tmp_path: Path) -> None:
    make_store(tmp_path, range(3))
    with pytest.raises(FlywheelError, match="holds no such episodes"):
        statistics(tmp_path, "task = 'unknown'")


def test_a_converted_store_holds_the_same_episodes(tmp_path: Path) -> None:
    filmed = replace(SCHEMA, observation=ObservationSpec({**SCHEMA.observation.arrays, "wrist": ArraySpec((8, 6, 3), "uint8")}))
    store = EpisodeStore.create(tmp_path / "png", "point", filmed)
    rng = np.random.default_rng(0)
    with store.writer() as writer:
        for seed in range(70):
            made = episode(seed)
            frames = rng.integers(256, size=(len(made), 8, 6, 3), dtype=np.uint8)
            writer.append(replace(made, observation={**made.observation, "wrist": frames}))
    store.label(["reach-script-00003"], "success", True, by="ada")
    shards = convert(tmp_path / "png", str(tmp_path / "raw"), "raw")
    assert shards.lengths == (64, 6)
    copy = EpisodeStore.open(tmp_path / "raw")
    assert copy.schema.pictures == "raw"
    for ours, theirs in zip(store.episodes(store.snapshot()), copy.episodes(copy.snapshot()), strict=True):
        assert ours.metadata == theirs.metadata
        np.testing.assert_array_equal(ours.observation["wrist"], theirs.observation["wrist"])
    assert verify(copy).problems == []
    with pytest.raises(FlywheelError, match="holds a data set already"):
        convert(tmp_path / "png", str(tmp_path / "raw"), "raw")


def test_an_interrupted_conversion_goes_on(tmp_path: Path) -> None:
    make_store(tmp_path / "here", range(70))
    there = tmp_path / "there"
    convert(tmp_path / "here", str(there), "raw")
    (there / "dataset_info.json").unlink()
    first = next(path for path in there.iterdir() if path.name.endswith("-00000"))
    before = first.stat().st_mtime_ns
    convert(tmp_path / "here", str(there), "raw")
    assert first.stat().st_mtime_ns == before
    assert EpisodeStore.open(there).snapshot() == EpisodeStore.open(tmp_path / "here").snapshot()

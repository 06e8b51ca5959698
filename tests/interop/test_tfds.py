from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel.datasets.exporters import rlds
from flywheel.datasets.importers.base import import_episodes
from flywheel.datasets.importers.detect import open_source
from tests.arm import make_store
from tests.interop import peers

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("camera", [False, True])
def test_tfds_reads_what_we_wrote(tmp_path: Path, camera: bool) -> None:
    pytest.importorskip("tensorflow_datasets")
    store = make_store(tmp_path / "store", camera=camera)
    rlds.export(store, store.snapshot(), tmp_path / "rlds", shard_mb=0.003)
    found = peers.read("here", "tfds_read.py", tmp_path, tmp_path / "rlds", "arm")
    expected = {episode.metadata.episode_id: episode for episode in store.episodes(store.snapshot())}
    assert len(expected) == sum(name.endswith("episode_id") for name in found)
    for number in range(len(expected)):
        episode = expected[found[f"{number}/episode_id"].item().decode()]
        for key, values in episode.observation.items():
            np.testing.assert_array_equal(found[f"{number}/observation/{key}"], values, strict=True)
        for key in ("action", "reward", "discount", "is_first", "is_last", "is_terminal"):
            np.testing.assert_array_equal(found[f"{number}/{key}"], getattr(episode, key), strict=True)
        assert {text.decode() for text in found[f"{number}/language_instruction"]} == {episode.metadata.task}


def test_we_read_what_tfds_wrote(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    (tmp_path / "tfds").mkdir()
    written = peers.read("here", "tfds_write.py", tmp_path, tmp_path / "tfds")
    result = import_episodes(open_source(tmp_path / "tfds"), tmp_path / "stores", "imported")
    assert result.stored == 3
    for number, episode in enumerate(sorted(result.store.episodes(), key=lambda episode: episode.reward[0])):
        np.testing.assert_array_equal(episode.observation["image"], written[f"{number}/image"])
        np.testing.assert_array_equal(episode.observation["state"], written[f"{number}/state"])
        np.testing.assert_array_equal(episode.action[:-1], written[f"{number}/action"][:-1])
        assert (episode.is_terminal[-1], episode.metadata.task) == (number == 1, f"task {number}")


def test_we_read_what_we_exported(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", camera=True)
    path = rlds.export(store, store.snapshot(), tmp_path / "rlds")
    result = import_episodes(open_source(path), tmp_path / "stores", "imported")
    found = sorted(result.store.episodes(), key=lambda episode: episode.reward[0])
    for episode, expected in zip(found, store.episodes(store.snapshot()), strict=True):
        for key in ("joints", "camera", "counts"):
            np.testing.assert_array_equal(episode.observation[key], expected.observation[key])
        for key in ("action", "reward", "discount", "is_terminal"):
            np.testing.assert_array_equal(getattr(episode, key), getattr(expected, key))
        assert episode.metadata.task == expected.metadata.task

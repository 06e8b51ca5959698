from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel.datasets.exporters import minari
from flywheel.datasets.importers.base import import_episodes
from flywheel.datasets.importers.detect import open_source
from tests.arm import make_store
from tests.interop import peers

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("camera", [False, True])
def test_minari_reads_what_we_wrote(tmp_path: Path, camera: bool) -> None:
    peers.require("minari")
    store = make_store(tmp_path / "store", camera=camera)
    minari.export(store, store.snapshot(), tmp_path / "minari")
    found = peers.read("minari", "minari_read.py", tmp_path, tmp_path / "minari", "arm-v0")
    episodes = list(store.episodes(store.snapshot()))
    assert found["total_steps"] == sum(episode.transitions for episode in episodes)
    np.testing.assert_array_equal(found["low"], np.asarray(store.schema.action.low, np.float32))
    for number, episode in enumerate(episodes):
        for key, values in episode.observation.items():
            np.testing.assert_array_equal(found[f"{number}/observations/{key}"], values)
        np.testing.assert_array_equal(found[f"{number}/actions"], episode.action[:-1])
        np.testing.assert_array_equal(found[f"{number}/rewards"], episode.reward[:-1])
        ended = found[f"{number}/terminations"], found[f"{number}/truncations"]
        assert [bool(flags[-1]) for flags in ended] == [episode.is_terminal[-1], not episode.is_terminal[-1]]
        assert not any(flags[:-1].any() for flags in ended)


@pytest.mark.parametrize("form", ["hdf5", "arrow", "parquet"])
def test_we_read_what_minari_wrote(tmp_path: Path, form: str) -> None:
    (tmp_path / "minari").mkdir()
    written = peers.read("minari", "minari_write.py", tmp_path, form, tmp_path / "minari")
    result = import_episodes(open_source(tmp_path / "minari" / "written-v0"), tmp_path / "stores", "imported")
    assert result.stored == 3
    for number, episode in enumerate(sorted(result.store.episodes(), key=lambda episode: episode.reward[0])):
        np.testing.assert_array_equal(episode.observation["state"], written[f"{number}/state"])
        np.testing.assert_array_equal(episode.action[:-1], written[f"{number}/actions"])
        np.testing.assert_array_equal(episode.reward[:-1], written[f"{number}/rewards"])
        assert episode.is_terminal[-1] == (number == 1)

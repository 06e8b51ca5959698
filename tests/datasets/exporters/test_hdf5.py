"""robomimic's and Minari's files, read with h5py alone, and back through our importers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel.core.lineage import code_version
from flywheel.datasets.exporters import minari, robomimic
from flywheel.datasets.importers.base import import_episodes
from flywheel.datasets.importers.detect import open_source
from flywheel.datasets.store import EpisodeStore
from tests.arm import make_store
from tests.datasets.test_schema import EVERY_KIND, every_kind

h5py = pytest.importorskip("h5py")


def test_robomimic_holds_every_transition(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", camera=False)
    path = robomimic.export(store, store.snapshot(), tmp_path / "out")
    episodes = list(store.episodes(store.snapshot()))
    with h5py.File(path) as file:
        data = file["data"]
        assert data.attrs["total"] == sum(episode.transitions for episode in episodes)
        assert json.loads(data.attrs["env_args"])["env_name"] == "task 0"
        about = json.loads(data.attrs["flywheel"])
        assert (about["snapshot"], about["code_version"]) == (store.snapshot().hash, code_version())
        for number, episode in enumerate(episodes):
            demo = data[f"demo_{number}"]
            assert demo.attrs["num_samples"] == episode.transitions == len(demo["actions"])
            assert json.loads(demo.attrs["flywheel"])["episode_id"] == episode.metadata.episode_id
            np.testing.assert_array_equal(demo["obs/joints"], episode.observation["joints"][:-1], strict=True)
            np.testing.assert_array_equal(demo["next_obs/joints"], episode.observation["joints"][1:], strict=True)
            assert demo["dones"][:].tolist() == episode.is_terminal[1:].tolist()
        successes = [f"demo_{number}" for number, episode in enumerate(episodes) if episode.metadata.success]
        assert [name.decode() for name in file["mask/success"]] == successes
        assert len(file["mask/success"]) + len(file["mask/failure"]) == len(file["mask/all"]) == 4


def test_minari_holds_every_observation(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", camera=False)
    folder = minari.export(store, store.snapshot(), tmp_path / "out")
    metadata = json.loads((folder / "data" / "metadata.json").read_text())
    assert (metadata["dataset_id"], metadata["total_episodes"]) == ("arm-v0", 4)
    assert metadata["flywheel"]["snapshot"] == store.snapshot().hash
    assert json.loads(metadata["action_space"])["low"] == [-1.0, -0.5]
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        for number, episode in enumerate(store.episodes(store.snapshot())):
            group = file[f"episode_{number}"]
            np.testing.assert_array_equal(group["observations/joints"], episode.observation["joints"], strict=True)
            assert group["terminations"][-1] == episode.is_terminal[-1] != group["truncations"][-1]


@pytest.mark.parametrize("form", [robomimic, minari])
def test_two_exports_of_a_snapshot_are_the_same_bytes(tmp_path: Path, form: Any) -> None:
    store = make_store(tmp_path / "store", camera=False)
    one = form.export(store, store.snapshot(), tmp_path / "one")
    time.sleep(1.1)  # a time in a file would be one of seconds
    two = form.export(store, store.snapshot(), tmp_path / "two")
    files = [sorted(item for item in path.parent.rglob("*") if item.is_file()) for path in (one, two)]
    assert [item.read_bytes() for item in files[0]] == [item.read_bytes() for item in files[1]]


@pytest.mark.parametrize("form", [robomimic, minari])
@pytest.mark.parametrize("camera", [False, True])
def test_episodes_come_back(tmp_path: Path, form: Any, camera: bool) -> None:
    store = make_store(tmp_path / "store", camera=camera)
    source = open_source(form.export(store, store.snapshot(), tmp_path / "out"))
    again = import_episodes(source, tmp_path / "again", "arm").store
    found = {json.loads(episode.metadata.source)["was"]: episode for episode in again.episodes()}
    for expected in store.episodes():
        episode = found[expected.metadata.episode_id]
        for name in ("action", "reward", "discount", "is_terminal"):
            np.testing.assert_array_equal(getattr(episode, name), getattr(expected, name), strict=True)
        for key, values in expected.observation.items():
            exact = values.dtype != np.float64  # what is imported becomes float32, unless a mapping asks for more
            np.testing.assert_array_equal(episode.observation[key], values.astype(episode.observation[key].dtype))
            assert not exact or episode.observation[key].dtype == values.dtype or values.dtype == np.bool_
        assert (episode.metadata.task, episode.metadata.seed) == (expected.metadata.task, expected.metadata.seed)


@pytest.mark.parametrize("form", [robomimic, minari])
def test_every_kind_of_array_can_be_written(tmp_path: Path, form: Any) -> None:
    store = EpisodeStore.create(tmp_path / "store", "kinds", EVERY_KIND)
    with store.writer() as writer:
        writer.append(every_kind())
    path = form.export(store, store.snapshot(), tmp_path / "out")
    name, group = (path, "data/demo_0/obs") if form is robomimic else (path / "data" / "main_data.hdf5", "episode_0/observations")
    with h5py.File(name) as file:
        for key, values in every_kind().observation.items():
            found = file[f"{group}/{key}"][:]
            np.testing.assert_array_equal(found, values[: len(found)])

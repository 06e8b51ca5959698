from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.detect import detect, open_source
from tests.datasets.importers import files
from tests.datasets.importers.checks import check, load

FORMS = ("hdf5", "arrow", "parquet")


def _write(root: Path, form: str, lengths: list[int], terminal: list[int], *, picture: bool = False) -> Path:
    if form == "hdf5":
        return files.minari_hdf5(root, lengths, terminal, picture=picture)
    return files.minari_arrow(root, lengths, terminal, form, picture=picture)


@pytest.mark.parametrize("form", FORMS)
def test_each_step_is_in_its_place(tmp_path: Path, form: str) -> None:
    path = _write(tmp_path, form, [3, 2, 4], [1])
    assert detect(path) == "minari"
    result, episodes = load(tmp_path, path)
    for number, count in enumerate([3, 2, 4]):
        check(episodes[number], number, count, terminal=number == 1, key="arm.0")
        assert episodes[number].observation["arm.1"].tolist() == list(range(count + 1))
        assert episodes[number].observation.keys() == {"arm.0", "arm.1"}  # texts are left out
        found = episodes[number].metadata
        assert (found.task, found.agent_id, found.seed) == ("Lift-v0", "expert", 40 + number)
    assert (result.store.schema.action.low, result.store.schema.action.high) == ((-2.0,), (2.0,))


@pytest.mark.parametrize("form", FORMS)
def test_the_three_forms_may_be_given_by_their_inner_folder(tmp_path: Path, form: str) -> None:
    path = _write(tmp_path, form, [3], [])
    assert len(open_source(path / "data", "minari")) == 1


@pytest.mark.parametrize("form", FORMS)
def test_jpeg_pictures_are_decoded(tmp_path: Path, form: str) -> None:
    path = _write(tmp_path, form, [3], [0], picture=True)
    result, (episode,) = load(tmp_path, path)
    assert result.store.schema.pictures == "png"
    camera = episode.observation["camera"]
    assert camera.shape == (4, 32, 48, 3)
    assert camera[:, 5, 7, 1].tolist() == [0, 1, 2, 3]


def test_an_end_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = files.minari_hdf5(tmp_path, [3], [])
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/terminations"][0] = True
    with pytest.raises(FlywheelError, match="'episode_0' ends at step 0, which is not its last one"):
        load(tmp_path, path)


def test_a_missing_episode_is_missed(tmp_path: Path) -> None:
    path = files.minari_hdf5(tmp_path, [3, 2], [])
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1"]
    with pytest.raises(FlywheelError, match=r"holds 1 episodes, not the 2 of its metadata.json"):
        open_source(path)


def test_a_nan_is_named(tmp_path: Path) -> None:
    path = files.minari_hdf5(tmp_path, [3, 2], [])
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/observations/arm/_index_0"][2, 1] = np.nan
    with pytest.raises(FlywheelError, match=r"lift-v0, episode episode_1: observation 'arm.0' holds a NaN .* at step 2"):
        load(tmp_path, path)


@pytest.mark.parametrize("space", ["[]", "{", '{"type": "Graph"}', '{"type": "Box"}', '{"type": "Box", "shape": ["x"]}', "3"])
def test_a_space_that_cannot_be_read(tmp_path: Path, space: str) -> None:
    path = files.minari_hdf5(tmp_path, [3], [])
    about = json.loads((path / "data" / "metadata.json").read_text())
    (path / "data" / "metadata.json").write_text(json.dumps({**about, "action_space": space}))
    with pytest.raises(FlywheelError, match=r"cannot be read|is not read"):
        open_source(path)


def test_a_discrete_action_is_a_number_within_its_bounds(tmp_path: Path) -> None:
    path = files.minari_hdf5(tmp_path, [3], [0])
    about = json.loads((path / "data" / "metadata.json").read_text())
    discrete = json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": 5})
    (path / "data" / "metadata.json").write_text(json.dumps({**about, "action_space": discrete}))
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/actions"]
        file["episode_0/actions"] = np.array([4, 0, 2])
    result, (episode,) = load(tmp_path, path)
    assert episode.action[:, 0].tolist() == [4.0, 0.0, 2.0, 0.0]
    assert (result.store.schema.action.low, result.store.schema.action.high) == ((0.0,), (4.0,))


def test_a_folder_that_leads_out_is_refused(tmp_path: Path) -> None:
    path = files.minari_arrow(tmp_path, [3, 2], [], "parquet")
    outside = tmp_path / "outside"
    (path / "data" / "1").rename(outside)
    (path / "data" / "1").symlink_to(outside)
    with pytest.raises(FlywheelError, match="leads out of"):
        open_source(path)

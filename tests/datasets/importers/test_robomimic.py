from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.detect import detect, open_source
from tests.datasets.importers import files
from tests.datasets.importers.checks import about, check, load


@pytest.mark.parametrize("done_mode", [0, 1, 2])
def test_a_success_is_terminal_and_a_demonstration_that_just_ends_is_not(tmp_path: Path, done_mode: int) -> None:
    path = files.robomimic(tmp_path / "demos.hdf5", [3, 2, 4], success=[0, 2], done_mode=done_mode)
    assert detect(path) == "robomimic"
    _, episodes = load(tmp_path, path)
    for number, (count, success) in enumerate([(3, True), (2, False), (4, True)]):
        check(episodes[number], number, count, terminal=success, key="eef_pos", rewarded=False)
        assert episodes[number].reward[:-1].tolist() == [0.0] * (count - 1) + [float(success)]
        assert episodes[number].metadata.success is success


def test_dones_are_taken_as_they_are_when_told(tmp_path: Path) -> None:
    path = files.robomimic(tmp_path / "demos.hdf5", [3, 2], success=[0], done_mode=1)
    for rule, expected in [("dones", [True, True]), ("never", [False, False])]:
        _, episodes = load(tmp_path / rule, path, {"terminal": rule})
        assert [bool(episode.is_terminal[-1]) for episode in episodes] == expected


def test_without_next_observations(tmp_path: Path) -> None:
    path = files.robomimic(tmp_path / "demos.hdf5", [3, 3], success=[0], next_obs=False)
    _, episodes = load(tmp_path, path)
    check(episodes[0], 0, 3, terminal=True, key="eef_pos", repeated=True, rewarded=False)
    assert episodes[0].episode_return == 1.0
    check(episodes[1], 1, 2, terminal=False, key="eef_pos", rewarded=False)


def test_masks_and_environment_become_metadata(tmp_path: Path) -> None:
    _, episodes = load(tmp_path, files.robomimic(tmp_path / "demos.hdf5", [1, 1, 1], success=[0]))
    assert [episode.metadata.experiment_id for episode in episodes] == ["few,train", "", "train"]
    assert json.loads(episodes[0].metadata.environment_config) == files.ENVIRONMENT
    assert (episodes[0].metadata.task, episodes[0].metadata.robot) == ("Lift", "Panda")
    assert about(episodes[2])["episode"] == "demo_2"


def test_the_action_is_what_the_environment_says(tmp_path: Path) -> None:
    path = files.robomimic(tmp_path / "demos.hdf5", [2], success=[])
    action = open_source(path).schema().action
    assert (action.controller, action.mode, action.rate) == ("osc_pose", "delta", 20.0)
    assert (action.low, action.high) == ((-1.0,), (1.0,))
    with h5py.File(path, "a") as file:
        file["data/demo_0/actions"][:] = [[-3.0], [5.0]]
    assert open_source(path).schema().action.bounds == (np.float32(-3), np.float32(5))


def test_demonstrations_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    _, episodes = load(tmp_path, files.robomimic(tmp_path / "demos.hdf5", [1] * 12, success=[]))
    assert [about(episode)["episode"] for episode in episodes] == [f"demo_{number}" for number in range(12)]


def test_shaped_rewards_tell_a_success_by_one(tmp_path: Path) -> None:
    path = files.robomimic(tmp_path / "demos.hdf5", [2, 2], success=[0])
    shaped = {**files.ENVIRONMENT, "env_kwargs": {**files.ENVIRONMENT["env_kwargs"], "reward_shaping": True}}
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = json.dumps(shaped)
        file["data/demo_1/rewards"][:] = [0.2, 0.6]
    _, episodes = load(tmp_path, path)
    assert [episode.metadata.success for episode in episodes] == [True, False]
    assert [bool(episode.is_terminal[-1]) for episode in episodes] == [True, False]


def test_states_alone_need_a_word(tmp_path: Path) -> None:
    path = files.robomimic(tmp_path / "demos.hdf5", [3], success=[0])
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs"]
        del file["data/demo_0/next_obs"]
    with pytest.raises(FlywheelError, match="dataset_states_to_obs"):
        open_source(path)


def test_an_empty_demonstration_is_left_out(tmp_path: Path) -> None:
    result, _ = load(tmp_path, files.robomimic(tmp_path / "demos.hdf5", [2, 0, 1], success=[0]))
    assert (result.stored, result.empty) == (2, 1)


@pytest.mark.parametrize("what", ["external", "soft", "virtual", "elsewhere"])
def test_data_that_lie_elsewhere_are_refused(tmp_path: Path, what: str) -> None:
    path = files.robomimic(tmp_path / "demos.hdf5", [3], success=[0])
    files.hdf5(tmp_path / "secret.hdf5", {"x": np.zeros((3, 2)), "deep/x": np.zeros((3, 2))})
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    with h5py.File(path, "a") as file:
        obs = file["data/demo_0/obs"]
        del obs["eef_pos"]
        if what == "external":
            obs["eef_pos"] = h5py.ExternalLink("secret.hdf5", "/x")
        elif what == "soft":
            obs["out"] = h5py.ExternalLink("secret.hdf5", "/deep")
            obs["eef_pos"] = h5py.SoftLink("/data/demo_0/obs/out/x")
        elif what == "virtual":
            layout = h5py.VirtualLayout((3, 2), dtype="f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.hdf5"), "x", (3, 2))
            obs.create_virtual_dataset("eef_pos", layout)
        else:
            obs.create_dataset("eef_pos", (3, 2), "f8", external=[(str(tmp_path / "secret.bin"), 0, 48)])
    with pytest.raises(FlywheelError, match=r"not followed|not read"):
        load(tmp_path, path)


def test_a_dataset_that_promises_more_than_the_file_holds_costs_no_memory(tmp_path: Path) -> None:
    path = files.robomimic(tmp_path / "demos.hdf5", [3], success=[0])
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/eef_pos"]
        file.create_dataset("data/demo_0/obs/eef_pos", (3, 1 << 40), "f8", chunks=(1, 1024))
    with pytest.raises(FlywheelError, match=r"promises .* bytes and holds"):
        load(tmp_path, path)


def test_a_group_within_itself_ends(tmp_path: Path) -> None:
    path = files.robomimic(tmp_path / "demos.hdf5", [3], success=[0])
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/again"] = file["data/demo_0"]
    with pytest.raises(FlywheelError, match="nested too deeply"):
        open_source(path)

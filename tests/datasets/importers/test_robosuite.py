from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.detect import detect, open_source
from tests.datasets.importers.checks import load

pytestmark = pytest.mark.slow
STEPS = 6


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any], list[Any]]:
    """Two demonstrations as robosuite's own wrapper records them, and what was observed meanwhile."""
    suite = pytest.importorskip("robosuite")
    wrappers = pytest.importorskip("robosuite.wrappers")
    folder = tmp_path_factory.mktemp("raw")
    options = {"has_renderer": False, "has_offscreen_renderer": False, "use_camera_obs": False, "ignore_done": True}
    inner = suite.make("Lift", robots="Panda", **options, reward_shaping=False, control_freq=20)
    environment = wrappers.DataCollectionWrapper(inner, str(folder), flush_freq=4)
    seen, done = [], []
    rng = np.random.default_rng(0)
    for _ in range(2):
        environment.reset()
        actions = rng.uniform(-0.5, 0.5, (STEPS, environment.action_dim))
        observations = []
        for action in actions:
            observation, _, _, _ = environment.step(action)
            observations.append({key: np.array(value) for key, value in observation.items()})
        seen.append(observations)
        done.append(actions)
    environment.close()
    return folder, seen, done


def _check(episodes: list[Any], seen: list[Any], done: list[Any]) -> None:
    for episode, observations, actions in zip(episodes, seen, done, strict=True):
        np.testing.assert_allclose(episode.action[:-1], actions, atol=1e-6)
        # Observation t + 1 is what the simulator showed after action t.
        for step in range(STEPS):
            expected = observations[step]["robot0_joint_pos"]
            np.testing.assert_allclose(episode.observation["robot0_joint_pos"][step + 1], expected, atol=1e-4)
        assert episode.observation["robot0_joint_pos"].shape == (STEPS + 1, 7)
        assert not episode.is_terminal[-1]
        assert not episode.reward.any()
        assert (episode.metadata.task, episode.metadata.robot) == ("Lift", "Panda")


def test_raw_folders(tmp_path: Path, recorded: tuple[Path, list[Any], list[Any]]) -> None:
    folder, seen, done = recorded
    assert detect(folder) == "robosuite"
    with pytest.raises(FlywheelError, match="give robots"):
        open_source(folder)
    _, episodes = load(tmp_path, folder, {"robots": "Panda"})
    _check(episodes, seen, done)


def test_a_gathered_file(tmp_path: Path, recorded: tuple[Path, list[Any], list[Any]]) -> None:
    folder, seen, done = recorded
    path = tmp_path / "demo.hdf5"
    with h5py.File(path, "w") as file:  # as gather_demonstrations_as_hdf5 writes it, failures included
        data = file.create_group("data")
        data.attrs["env"], data.attrs["repository_version"] = "Lift", "1.5.2"
        data.attrs["env_info"] = json.dumps({"env_name": "Lift", "robots": ["Panda"]})
        for number, episode in enumerate(sorted(folder.iterdir()), start=1):
            states = np.concatenate([np.load(piece)["states"] for piece in sorted(episode.glob("state_*.npz"))])
            demo = data.create_group(f"demo_{number}")
            demo.attrs["model_file"] = (episode / "model.xml").read_text()
            demo["states"], demo["actions"] = states[:-1], done[number - 1]
    assert detect(path) == "robosuite"
    _, episodes = load(tmp_path, path)
    for episode, observations in zip(episodes, seen, strict=True):
        np.testing.assert_allclose(
            episode.observation["robot0_joint_pos"][STEPS - 1], observations[-2]["robot0_joint_pos"], atol=1e-4
        )
        assert episode.transitions == STEPS


@pytest.mark.parametrize("damage", ["model", "state", "actions", "environment"])
def test_damage_is_one_sentence(tmp_path: Path, recorded: tuple[Path, list[Any], list[Any]], damage: str) -> None:
    folder = tmp_path / "raw"
    shutil.copytree(recorded[0], folder)
    episode = sorted(folder.iterdir())[0]
    piece = sorted(episode.glob("state_*.npz"))[0]
    given = {"robots": "Panda"}
    if damage == "model":
        (episode / "model.xml").write_text((episode / "model.xml").read_text()[:5000])
    elif damage == "environment":
        given["robots"] = "Nobody"
    else:
        with np.load(piece, allow_pickle=True) as file:
            arrays = dict(file)
        changed = {"state": {"states": arrays["states"] * np.nan}, "actions": {"action_infos": arrays["action_infos"][:-1]}}
        np.savez(piece, **{**arrays, **changed[damage]})
    with pytest.raises(FlywheelError, match="raw") as error:
        load(tmp_path, folder, given)
    assert "\n" not in str(error.value)

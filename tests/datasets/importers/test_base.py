from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.base import import_episodes
from flywheel.datasets.importers.detect import open_source
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep.verify import verify
from tests.datasets.importers import files
from tests.datasets.importers.checks import check, load, stored

ROOT = Path(__file__).resolve().parents[3]


def test_a_second_import_stores_nothing(tmp_path: Path) -> None:
    path = files.d4rl(tmp_path / "a.hdf5", [3, 2], terminal=[0, 1], timeout=[])
    first, _ = load(tmp_path, path)
    path.rename(tmp_path / "renamed.hdf5")  # the same content is the same source
    second, _ = load(tmp_path, tmp_path / "renamed.hdf5")
    assert (second.stored, second.skipped) == (0, 2)
    assert second.store.snapshot() == first.store.snapshot()


def test_a_deleted_episode_does_not_come_back(tmp_path: Path) -> None:
    path = files.d4rl(tmp_path / "a.hdf5", [3, 2], terminal=[0, 1], timeout=[])
    first, _ = load(tmp_path, path)
    first.store.label([first.store.rows()[0].episode_id], "deleted", True, by="test")
    second, episodes = load(tmp_path, path)
    assert (second.stored, second.skipped, len(episodes)) == (0, 2, 1)


@pytest.mark.parametrize("kills", [[1], [3, 7, 8]])
def test_a_killed_import_goes_on_where_it_was(tmp_path: Path, kills: list[int]) -> None:
    lengths = [2 + number % 3 for number in range(12)]
    path = files.d4rl(tmp_path / "a.hdf5", lengths, terminal=list(range(12)), timeout=[])
    for stop in kills:
        command = [sys.executable, "-m", "tests.datasets.importers.killed_import", str(path), str(tmp_path / "stores")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= stop:
                    process.kill()
                    break
        # What was told is there, and whole, before anyone recovers anything.
        there = stored(EpisodeStore.open(tmp_path / "stores"))
        assert len(there) >= stop
        for number, episode in enumerate(there):
            check(episode, number, lengths[number], terminal=True, repeated=True)
    result, episodes = load(tmp_path, path)
    assert result.stored + result.skipped == 12
    assert result.skipped >= kills[-1]
    assert [episode.transitions for episode in episodes] == lengths
    assert verify(result.store).sound


def test_a_bad_episode_stops_the_import_and_leaves_whole_ones(tmp_path: Path) -> None:
    path = files.robomimic(tmp_path / "demos.hdf5", [3, 3, 3], success=[0, 1, 2])
    with h5py.File(path, "a") as file:
        file["data/demo_1/obs/eef_pos"][1, 0] = np.nan
    with pytest.raises(FlywheelError, match=r"demos.hdf5, episode demo_1: observation 'eef_pos' holds a NaN .* at step 1"):
        load(tmp_path, path)
    (there,) = stored(EpisodeStore.open(tmp_path / "stores"))
    check(there, 0, 3, terminal=True, key="eef_pos", rewarded=False)


def test_a_bad_first_episode_makes_no_store(tmp_path: Path) -> None:
    path = files.d4rl(tmp_path / "a.hdf5", [3], terminal=[0], timeout=[], observations=np.full((3, 2), np.nan))
    with pytest.raises(FlywheelError, match="NaN"):
        load(tmp_path, path)
    assert not (tmp_path / "stores").exists()


def test_another_mapping_is_another_import(tmp_path: Path) -> None:
    path = files.d4rl(tmp_path / "a.hdf5", [3], terminal=[0], timeout=[])
    load(tmp_path, path)
    with pytest.raises(FlywheelError, match="imported with another mapping; import into another --name"):
        load(tmp_path, path, {"reward": "none"})


def test_sources_of_the_same_arrays_go_into_one_store(tmp_path: Path) -> None:
    given = {
        "observation": {"state": {"from": "observations", "unit": "m"}},
        "action": {"low": -2, "high": 2, "controller": "joint"},
    }
    first, _ = load(tmp_path, files.d4rl(tmp_path / "a.hdf5", [3], terminal=[0], timeout=[]), given)
    second, episodes = load(tmp_path, files.ogbench(tmp_path / "b.npz", [4]))
    assert second.store.schema == first.store.schema
    assert len(episodes) == 2
    wide = files.d4rl(tmp_path / "c.hdf5", [3], terminal=[0], timeout=[], actions=np.array([[0.0], [5.0], [1.0]]))
    with pytest.raises(FlywheelError, match="another schema"):
        load(tmp_path, wide)
    other = files.d4rl(tmp_path / "d.hdf5", [3], terminal=[0], timeout=[], observations=np.zeros((3, 4)))
    with pytest.raises(FlywheelError, match="another schema"):
        load(tmp_path, other)


def test_a_source_without_transitions_is_told(tmp_path: Path) -> None:
    path = files.d4rl(tmp_path / "a.hdf5", [1], terminal=[], timeout=[0])
    with pytest.raises(FlywheelError, match="holds no episode with a transition"):
        load(tmp_path, path)


def test_integers_stay_exact_and_what_is_rounded_is_said(tmp_path: Path) -> None:
    exact, rounded = np.array([[0.5], [0.25], [2.0]]), np.array([[0.1], [0.2], [0.3]])
    arrays = {"action": np.zeros((2, 1)), "observation/exact": exact, "observation/rounded": rounded}
    np.savez(tmp_path / "a.npz", **arrays, **{"observation/big": np.full(3, (1 << 53) + 1)})
    _, (episode,) = load(tmp_path, tmp_path / "a.npz")
    assert '"rounded": ["rounded"]' in episode.metadata.source
    assert episode.observation["big"].tolist() == [(1 << 53) + 1] * 3
    given = {"observation": {"rounded": {"from": "observation/rounded", "dtype": "float64"}}}
    _, (episode,) = load(tmp_path / "wide", tmp_path / "a.npz", given)
    np.testing.assert_array_equal(episode.observation["rounded"], rounded)
    assert 'rounded"]' not in episode.metadata.source


def test_rounded_actions_and_rewards_are_said(tmp_path: Path) -> None:
    arrays = {"action": np.full((2, 1), 0.1), "observation": np.zeros((3, 1)), "reward": np.array([0.5, 0.3])}
    np.savez(tmp_path / "a.npz", **arrays)
    episode = open_source(tmp_path / "a.npz", "npz").episode(0)
    assert episode is not None
    assert '"rounded": ["action", "reward"]' in episode.metadata.source


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"observations": {}}, "unknown entries"),
        ({"observation": {"state": "nothing"}}, "observation 'state' is 'nothing', which .* does not have"),
        ({"observation": {"state": {"from": "observations", "scales": 2}}}, "'scales'"),
        ({"observation": {"state": {"from": "observations", "scale": "2"}}}, "scale"),
        ({"observation": {"state": {"from": "observations", "scale": [1, 2, 3]}}}, "has 2 elements, and the mapping scales"),
        ({"observation": {"state": {"from": "observations", "dtype": "object"}}}, "dtype"),
        ({"observation": {"state": {"from": "observations", "dtype": "uint8", "scale": -1}}}, "numbers that uint8 cannot"),
        ({"observation": {"bad name": "observations"}}, "cannot be stored"),
        ({"observation": {}}, "says what is taken"),
        ({"leave_out": ["observations"]}, "no observation or no action"),
        ({"action": {"low": [0, 0]}}, "as many low as high"),
        ({"action": {"low": [0, 0], "high": [1, 1]}}, "the action has 1 dimensions, and the mapping gives 2 bounds"),
        ({"action": {"low": [1], "high": [0]}}, "low < high"),
        ({"action": {"rate": float("nan")}}, "rate"),
        ({"action": {"mode": "sideways"}}, "delta or absolute"),
        ({"action": []}, "action"),
        ({"reward": "nothing"}, "reward is 'nothing'"),
        ({"task": "lift"}, "a constant is written {value: lift}"),
        ({"task": {"valued": 1}}, "task"),
        ({"seed": {"value": "one"}}, "seed is 'one', which is no int"),
        ({"episode_steps": "many"}, "episode_steps"),
        ({"episode_id": {"value": "mine"}}, "unknown entries"),
        ({3: 4}, "unknown entries"),
    ],
)
def test_mistakes_in_a_mapping_are_told(tmp_path: Path, given: dict[str, object], message: str) -> None:
    path = files.d4rl(tmp_path / "a.hdf5", [3], terminal=[0], timeout=[])
    with pytest.raises(FlywheelError, match=message):
        load(tmp_path, path, given)


def test_a_metadata_constant_and_a_field(tmp_path: Path) -> None:
    path = files.d4rl(tmp_path / "a.hdf5", [3], terminal=[0], timeout=[], **{"infos/won": np.array([0, 0, 1])})
    given = {"robot": {"value": "ant"}, "success": "infos/won", "seed": {"value": 7}, "invalid": {"value": True}}
    _, (episode,) = load(tmp_path, path, given)
    found = episode.metadata
    assert (found.robot, found.success, found.seed, found.invalid, found.task) == ("ant", True, 7, True, "a")


@pytest.mark.parametrize("name", ["empty", "nothing", "text.hdf5", "text.npz", "folder"])
def test_what_cannot_be_told_is_asked(tmp_path: Path, name: str) -> None:
    if name == "folder":
        (tmp_path / name).mkdir()
    elif name != "nothing":
        (tmp_path / name).write_text("no data" if name != "empty" else "")
    with pytest.raises(FlywheelError, match=r"cannot be told|cannot be read|nothing at"):
        open_source(tmp_path / name)
    with pytest.raises(FlywheelError, match="There is no kind of source 'rdls'; did you mean 'rlds'"):
        open_source(tmp_path, "rdls")


def test_a_store_with_a_wider_action_takes_a_narrower_source(tmp_path: Path) -> None:
    source = open_source(files.d4rl(tmp_path / "a.hdf5", [3], terminal=[0], timeout=[]))
    schema = source.schema()
    wider = replace(schema, action=replace(schema.action, low=(-9.0,), high=(9.0,)))
    EpisodeStore.create(tmp_path / "stores", "imported", wider)
    assert import_episodes(source, tmp_path / "stores", "imported").store.schema == wider


def test_a_new_store_keeps_pictures_as_chosen_and_an_old_one_as_it_does(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), np.uint8)
    folder = tmp_path / "episodes"
    folder.mkdir()
    np.savez(folder / "a.npz", observation=pictures, action=np.zeros((3, 1)))
    source = open_source(folder)
    result = import_episodes(source, tmp_path / "stores", "imported", pictures="jpeg")
    assert result.store.schema.pictures == "jpeg"
    np.savez(folder / "b.npz", observation=pictures[::-1], action=np.zeros((3, 1)))
    result = import_episodes(open_source(folder), tmp_path / "stores", "imported", pictures="raw")
    assert (result.store.schema.pictures, result.stored, result.skipped) == ("jpeg", 1, 1)
    exact = import_episodes(open_source(folder), tmp_path / "exact", "imported")
    np.testing.assert_array_equal(stored(exact.store)[0].observation["image"], pictures)

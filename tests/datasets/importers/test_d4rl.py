from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from tests.datasets.importers import files
from tests.datasets.importers.checks import about, check, load


def test_a_terminal_end_keeps_its_last_reward_and_a_timeout_loses_its_last_transition(tmp_path: Path) -> None:
    path = files.d4rl(tmp_path / "hopper.hdf5", [4, 3, 5], terminal=[0], timeout=[1])
    result, episodes = load(tmp_path, path)
    assert (result.stored, result.skipped, result.empty, result.steps) == (3, 0, 0, 4 + 2 + 4)
    check(episodes[0], 0, 4, terminal=True, repeated=True)
    check(episodes[1], 1, 2, terminal=False)  # the next row is another episode's first: the format's trap
    check(episodes[2], 2, 4, terminal=False)  # the file's end cut it off
    assert about(episodes[0])["final_observation"] == "repeated"
    assert about(episodes[1])["final_observation"] == "last transition left out"
    assert about(episodes[1])["episode"] == "1 (rows 4 to 6)"
    assert episodes[0].metadata.task == "hopper"


def test_next_observations_give_the_final_one(tmp_path: Path) -> None:
    path = files.d4rl(tmp_path / "walker.hdf5", [4, 3], terminal=[0], timeout=[1], following=True)
    _, episodes = load(tmp_path, path)
    check(episodes[0], 0, 4, terminal=True)
    check(episodes[1], 1, 3, terminal=False)
    assert "final_observation" not in about(episodes[0])


def test_a_row_that_is_terminal_and_timed_out_is_terminal(tmp_path: Path) -> None:
    _, (episode,) = load(tmp_path, files.d4rl(tmp_path / "a.hdf5", [3], terminal=[0], timeout=[0]))
    check(episode, 0, 3, terminal=True, repeated=True)


def test_without_timeouts_the_limit_must_be_told(tmp_path: Path) -> None:
    # As in D4RL's first files: the second episode is cut off after 4 steps, without a mark.
    path = files.d4rl(tmp_path / "old.hdf5", [2, 4, 4, 1], terminal=[0, 3], timeout=[], timeouts=None)
    with pytest.raises(FlywheelError, match=r"old.hdf5 has no 'timeouts'.*episode_steps"):
        load(tmp_path, path)
    _, episodes = load(tmp_path, path, {"episode_steps": 4})
    assert [episode.transitions for episode in episodes] == [2, 3, 3, 1]
    assert [bool(episode.is_terminal[-1]) for episode in episodes] == [True, False, False, True]
    check(episodes[2], 2, 3, terminal=False)


def test_an_episode_of_one_truncated_step_has_no_transition_left(tmp_path: Path) -> None:
    result, episodes = load(tmp_path, files.d4rl(tmp_path / "a.hdf5", [1, 2], terminal=[1], timeout=[0]))
    assert (result.stored, result.empty) == (1, 1)
    check(episodes[0], 1, 2, terminal=True, repeated=True)


def test_infos_are_taken_when_they_are_named(tmp_path: Path) -> None:
    path = files.d4rl(tmp_path / "a.hdf5", [3], terminal=[0], timeout=[], following=True)
    _, (episode,) = load(tmp_path, path, {"observation": {"state": "observations", "qpos": "infos/qpos"}})
    # infos have no next row, so neither has the whole observation.
    check(episode, 0, 3, terminal=True, repeated=True)
    np.testing.assert_array_equal(episode.observation["qpos"][:3], (files.observations(0, 3).astype(np.float64) / 3).astype("f4"))
    assert about(episode)["rounded"] == ["qpos"]


def test_shuffled_transitions_are_refused(tmp_path: Path) -> None:
    arrays = files.flat([4], following=True)
    order = [2, 0, 3, 1]
    path = files.d4rl(tmp_path / "a.hdf5", [4], terminal=[], timeout=[0], **{key: value[order] for key, value in arrays.items()})
    with pytest.raises(FlywheelError, match=r"a.hdf5, episode 0 .*next observation of row 0 is not the observation of row 1"):
        load(tmp_path, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.zeros(5)}, "'rewards' has 5 rows, and there are 3 actions"),
        ({"terminals": np.zeros((3, 2))}, "'terminals' is float64 .3, 2."),
        ({"observations": np.array([[0.0], [np.nan], [1.0]])}, "observation 'state' holds a NaN or an infinity at step 1"),
        ({"actions": np.array([[0.0], [1.0], [np.inf]])}, "action holds a NaN or an infinity at step 2"),
        ({"rewards": np.array([0.0, np.nan, 0.0])}, "reward holds a NaN or an infinity at step 1"),
        ({"rewards": np.array([0.0, 1e300, 0.0])}, "reward holds numbers that float32 cannot"),
        ({"actions": None}, "has no 'actions'"),
        ({"observations": np.array([b"a", b"b", b"c"])}, "observation 'state' holds .S1, and only numbers"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = files.d4rl(tmp_path / "bad.hdf5", [3], terminal=[0], timeout=[], **changes)
    with pytest.raises(FlywheelError, match=message) as error:
        load(tmp_path, path, kind="d4rl")
    assert "bad.hdf5" in str(error.value)


def test_it_is_what_d4rl_itself_makes_of_it_but_for_the_boundaries(tmp_path: Path) -> None:
    lengths = [4, 3, 5, 2, 6]
    path = files.d4rl(tmp_path / "a.hdf5", lengths, terminal=[0, 3, 4], timeout=[1, 2])
    flat, terminals = files.flat(lengths, following=False), files.marked(lengths, [0, 3, 4])
    timeouts = files.marked(lengths, [1, 2])
    # d4rl.qlearning_dataset: a row that timed out is left out, and a terminal row's next observation is another episode's.
    kept = [row for row in range(sum(lengths)) if not timeouts[row]]
    _, episodes = load(tmp_path, path)
    for name, found in [
        ("observations", [episode.observation["state"][:-1] for episode in episodes]),
        ("actions", [episode.action[:-1] for episode in episodes]),
        ("rewards", [episode.reward[:-1] for episode in episodes]),
    ]:
        np.testing.assert_array_equal(np.concatenate(found), flat[name][kept])
    ours = np.concatenate([episode.discount[:-1] == 0 for episode in episodes])
    np.testing.assert_array_equal(ours, terminals[kept])
    following = np.concatenate([episode.observation["state"][1:] for episode in episodes])
    inner = [place for place, row in enumerate(kept) if not terminals[row]]
    np.testing.assert_array_equal(following[inner], flat["observations"][[kept[place] + 1 for place in inner]])

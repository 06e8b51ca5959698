from __future__ import annotations

from pathlib import Path

import numpy as np

from flywheel.datasets.importers.detect import detect
from tests.datasets.importers import files
from tests.datasets.importers.checks import check, load


def test_a_mark_is_the_final_observation_and_no_terminal(tmp_path: Path) -> None:
    path = files.ogbench(tmp_path / "pointmaze-medium-navigate-v0-val.npz", [4, 2, 3])
    assert detect(path) == "ogbench"
    result, episodes = load(tmp_path, path)
    assert result.steps == 9
    for number, count in enumerate([4, 2, 3]):
        check(episodes[number], number, count, terminal=False, rewarded=False)
        assert not episodes[number].reward.any()
        # 99, the action of the marked row, leads nowhere and is not in the data, nor in their bounds.
        assert episodes[number].metadata.task == "pointmaze-medium-navigate-v0"
    assert result.store.schema.action.high == (1.0,)


def test_it_is_what_ogbench_itself_makes_of_it(tmp_path: Path) -> None:
    path = files.ogbench(tmp_path / "a.npz", [4, 2])
    with np.load(path) as file:
        terminals, seen, done = file["terminals"], file["observations"], file["actions"]
    # ogbench.utils.load_dataset: observations without the marked rows, next ones by a shift.
    mask = ~terminals
    following = seen[np.concatenate([[False], mask[:-1]])]
    _, episodes = load(tmp_path, path)
    np.testing.assert_array_equal(np.concatenate([e.observation["state"][:-1] for e in episodes]), seen[mask])
    np.testing.assert_array_equal(np.concatenate([e.observation["state"][1:] for e in episodes]), following)
    np.testing.assert_array_equal(np.concatenate([e.action[:-1] for e in episodes]), done[mask])


def test_other_arrays_are_taken_when_they_are_named(tmp_path: Path) -> None:
    path = files.ogbench(tmp_path / "a.npz", [3])
    given = {"observation": {"state": "observations", "qpos": "qpos", "buttons": {"from": "button_states", "dtype": "uint8"}}}
    _, (episode,) = load(tmp_path, path, given)
    np.testing.assert_array_equal(episode.observation["qpos"], files.observations(0, 4) / 4)
    assert episode.observation["buttons"].dtype == np.uint8


def test_a_file_with_next_observations_has_transitions_for_rows(tmp_path: Path) -> None:
    arrays = files.flat([3, 2], following=True)
    del arrays["rewards"]
    np.savez(tmp_path / "regular.npz", terminals=files.marked([3, 2], [0, 1]).astype(np.float32), **arrays)
    _, episodes = load(tmp_path, tmp_path / "regular.npz")
    check(episodes[0], 0, 3, terminal=False, rewarded=False)
    check(episodes[1], 1, 2, terminal=False, rewarded=False)

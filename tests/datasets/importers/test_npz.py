from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.npy import Npz
from tests.datasets.importers import files
from tests.datasets.importers.checks import check, load


def _episode(number: int, count: int, **more: Any) -> dict[str, Any]:
    arrays = {
        "observation": files.observations(number, count + 1),
        "action": files.actions(number, count),
        "reward": files.rewards(number, count),
        "terminal": np.bool_(number == 0),
    }
    return {key: value for key, value in {**arrays, **more}.items() if value is not None}


def test_a_folder_of_episodes(tmp_path: Path) -> None:
    folder = tmp_path / "episodes"
    folder.mkdir()
    for number, count in enumerate([3, 2, 4]):
        np.savez(folder / f"episode_{number}.npz", **_episode(number, count))
    _, episodes = load(tmp_path, folder)
    for number, count in enumerate([3, 2, 4]):
        check(episodes[number], number, count, terminal=number == 0)
    # The folder grows, and what was imported is not imported again.
    np.savez(folder / "episode_10.npz", **_episode(3, 2))
    result, episodes = load(tmp_path, folder)
    assert (result.stored, result.skipped) == (1, 3)


def test_the_same_episode_in_two_files_is_stored_once(tmp_path: Path) -> None:
    folder = tmp_path / "episodes"
    folder.mkdir()
    for name in ("a", "b"):
        np.savez(folder / f"{name}.npz", **_episode(0, 3))
    result, _ = load(tmp_path, folder)
    assert (result.stored, result.skipped) == (1, 1)
    assert len(result.store.rows()) == 1


def test_one_file_without_ends_is_one_episode(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", **_episode(0, 3, terminal=np.array([False, False, True])))
    _, (episode,) = load(tmp_path, tmp_path / "one.npz")
    check(episode, 0, 3, terminal=True)


def test_a_terminal_in_the_middle_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", **_episode(0, 3, terminal=np.array([False, True, True])))
    with pytest.raises(FlywheelError, match=r"one.npz: 'terminal' marks row 1, which is not the last one"):
        load(tmp_path, tmp_path / "one.npz")


@pytest.mark.parametrize("ends", ["episode_ends", "episode_end"])
def test_flat_arrays(tmp_path: Path, ends: str) -> None:
    lengths = [3, 2, 4]
    value = np.cumsum(lengths) if ends == "episode_ends" else files.marked(lengths, [0, 1, 2])
    np.savez(tmp_path / "flat.npz", **files.flat(lengths, following=True), terminal=files.marked(lengths, [1]), **{ends: value})
    _, episodes = load(tmp_path, tmp_path / "flat.npz")
    for number, count in enumerate(lengths):
        check(episodes[number], number, count, terminal=number == 1)


def test_flat_arrays_without_next_observations(tmp_path: Path) -> None:
    lengths = [3, 2]
    arrays = files.flat(lengths, following=False)
    np.savez(tmp_path / "flat.npz", **arrays, terminals=np.array([True, False]), episode_ends=np.cumsum(lengths))
    _, episodes = load(tmp_path, tmp_path / "flat.npz")
    check(episodes[0], 0, 3, terminal=True, repeated=True)
    check(episodes[1], 1, 1, terminal=False)


def test_the_last_row_may_be_an_observation_alone(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "one.npz",
        **_episode(
            0, 3, action=np.append(files.actions(0, 3), [[np.nan]], axis=0), reward=np.append(files.rewards(0, 3), np.nan)
        ),
    )
    _, (episode,) = load(tmp_path, tmp_path / "one.npz", {"last_step": "observation"})
    check(episode, 0, 3, terminal=True)


def test_other_names_are_mapped(tmp_path: Path) -> None:
    lengths = [3, 2]
    flat = files.flat(lengths, following=False)
    np.savez(
        tmp_path / "other.npz",
        s=flat["observations"],
        u=flat["actions"] * 2,
        v=flat["actions"] * 0,
        gain=flat["rewards"],
        dead=files.marked(lengths, [0, 1]),
        stop=np.cumsum(lengths),
    )
    given = {
        "observation": {"state": {"from": "s", "unit": "m"}},
        "action": {"from": ["u", "v"], "scale": [0.5, 1], "low": [-2, 0], "high": [2, 1], "controller": "joint", "rate": 5},
        "reward": "gain",
        "terminal": "dead",
        "episode_ends": "stop",
        "task": {"value": "push"},
    }
    result, episodes = load(tmp_path, tmp_path / "other.npz", given)
    np.testing.assert_array_equal(episodes[0].action[:3, :1], files.actions(0, 3))
    assert episodes[0].metadata.task == "push"
    assert (result.store.schema.action.low, result.store.schema.action.rate) == ((-2.0, 0.0), 5.0)
    assert result.store.schema.observation.arrays["state"].unit == "m"


def test_several_observations_and_kinds_of_numbers(tmp_path: Path) -> None:
    more = {
        "observation/flag": np.array([True, False, True, False]),
        "observation/count": np.arange(4, dtype=">i4"),
        "observation/wide": np.arange(4, dtype=np.float64) + 0.5,
        "observation": None,
    }
    np.savez(tmp_path / "one.npz", **_episode(0, 3, **more))
    result, (episode,) = load(tmp_path, tmp_path / "one.npz")
    found = {key: spec.dtype for key, spec in result.store.schema.observation.arrays.items()}
    assert found == {"flag": "bool", "count": "int32", "wide": "float32"}
    assert episode.observation["count"].tolist() == [0, 1, 2, 3]


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", **_episode(0, 3, observation=np.array([_Bomb()] * 4, dtype=object)))
    with pytest.raises(FlywheelError, match="'observation' holds object"):
        load(tmp_path, tmp_path / "one.npz")
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", ["../evil.npy", "/etc/evil.npy", "a/../../evil.npy", "evil.txt", ".npy"])
def test_names_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, **_episode(0, 3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(FlywheelError, match=r"is no array of an npz file|cannot be read"):
        Npz(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "episodes"
    folder.mkdir()
    np.savez(tmp_path / "secret.npz", **_episode(0, 3))
    (folder / "episode_0.npz").symlink_to(tmp_path / "secret.npz")
    with pytest.raises(FlywheelError, match="leads out of"):
        load(tmp_path, folder)


def test_a_lying_header_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    arrays = _episode(0, 3)
    del arrays["observation"]
    np.savez(path, **arrays)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1099511627776), }"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(32)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("observation.npy", npy)
    with pytest.raises(FlywheelError, match="not the size of its data"):
        load(tmp_path, path)


def test_rows_can_be_read_in_any_order(tmp_path: Path) -> None:
    value = np.random.default_rng(0).normal(size=(100, 3))
    np.savez_compressed(tmp_path / "a.npz", x=value, y=np.float32(3))
    file = Npz(tmp_path / "a.npz")
    for start, stop in [(10, 20), (20, 30), (5, 50), (99, 100), (0, 1000)]:
        np.testing.assert_array_equal(file.rows("x", start, stop), value[start:stop])
    assert file.rows("y") == 3

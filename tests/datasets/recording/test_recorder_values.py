from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.recording.capture import with_capture_times
from flywheel.datasets.recording.recorder import Recorder
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from tests.datasets.recording.record_script import (
    action,
    check_steps,
    observation,
    picture,
    record,
    state,
    step,
)


def test_stamps_tell_when_a_sensor_was_read(store: EpisodeStore) -> None:
    with store.episode() as episode:
        episode.step({"state": state(0), "camera": picture(7)}, action(0), captured_at={"camera": 5_000})
        episode.step({"state": state(1)}, action(1))
        before = time.time_ns()
        episode.step({"state": state(2), "camera": picture(8)}, action(2))
        after = time.time_ns()
        episode.step({"state": state(3), "camera": picture(9), "camera_time": np.int64(9_000)}, action(3))
        episode.finish({"state": state(4)})
    observed = store.read(episode.episode_id).observation
    assert observed["camera"][:, 0, 0, 0].tolist() == [7, 7, 8, 9, 9]
    stamps = observed["camera_time"].tolist()
    assert stamps[:2] == [5_000, 5_000]
    assert before <= stamps[2] <= after
    assert stamps[3:] == [9_000, 9_000]


def test_every_kind_of_array_comes_back(tmp_path: Path) -> None:
    dtypes = ("float64", "float32", "float16", "int64", "uint64", "int32", "uint8", "int8", "bool")
    arrays = {f"{dtype}_{size}": ArraySpec((size,), dtype) for dtype in dtypes for size in (1, 3, 1500)}
    arrays |= {f"{dtype}_scalar": ArraySpec((), dtype) for dtype in dtypes}
    store = EpisodeStore.create(tmp_path, "kinds", Schema(ObservationSpec(arrays), ActionSpec((-1.0,) * 3, (1.0,) * 3)))
    rng = np.random.default_rng(0)
    given = [
        {key: (rng.random(spec.shape) * 2).astype(spec.dtype)[()] for key, spec in arrays.items()} | {"bool_scalar": True}
        for _ in range(4)
    ]
    with store.episode() as episode:
        for item in given[:-1]:
            episode.step(item, [0.1, 0.2, 0.3])
        episode.finish(given[-1])
    observed = store.read(episode.episode_id).observation
    for key in arrays:
        np.testing.assert_array_equal(observed[key], np.stack([item[key] for item in given]))


def test_arrays_that_are_not_contiguous_or_of_another_width_are_taken(store: EpisodeStore) -> None:
    wide = np.arange(8, dtype=np.float64)[::2]
    mirrored = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None], (24, 32, 3))[:, ::-1]
    with store.episode() as episode:
        episode.step({"state": wide, "camera": mirrored}, (0.5, -0.5))
        episode.finish({"state": wide.tolist(), "camera": mirrored})
    stored = store.read(episode.episode_id)
    assert stored.observation["state"][0].tolist() == [0, 2, 4, 6]
    np.testing.assert_array_equal(stored.observation["camera"][0], mirrored)


BAD = {
    "NaN": ({"state": np.full(4, np.nan, np.float32)}, None, r"observation\['state'\] holds a NaN"),
    "infinity": ({"state": np.full(4, np.inf)}, None, r"observation\['state'\] holds a NaN"),
    "shape": ({"state": np.zeros(5, np.float32)}, None, r"observation\['state'\] has shape \(5,\)"),
    "dtype": ({"state": np.zeros(4, complex)}, None, r"observation\['state'\] has dtype complex128"),
    "text": ({"state": "left"}, None, r"observation\['state'\]"),
    "picture": ({"state": state(1), "camera": np.zeros((24, 32, 3), np.float32)}, None, r"observation\['camera'\] has dtype"),
    "unknown": ({"state": state(1), "wrist": 1}, None, "undeclared 'wrist'"),
    "missing": ({"camera": picture(1)}, None, "lacks \\['state'\\]; only a sensor with a capture time"),
    "seconds": ({"state": state(1), "camera": picture(1)}, {"camera": 1.5}, "whole nanoseconds"),
    "too late": ({"state": state(1), "camera": picture(1)}, {"camera": 2**63}, "whole nanoseconds"),
    "no stamp": ({"state": state(1)}, {"state": 1}, "captured_at has 'state', which the schema gives no stamp"),
    "not here": ({"state": state(1)}, {"camera": 1}, "captured_at has 'camera', which is not in this step"),
    "twice": ({"state": state(1), "camera": picture(1), "camera_time": 1}, {"camera": 1}, "given twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_step_is_refused_and_leaves_nothing_behind(store: EpisodeStore, recorder: Recorder, name: str) -> None:
    bad, captured_at, message = BAD[name]
    with recorder.episode() as episode:
        step(episode, 0)
        with pytest.raises(SpecError, match=message):
            episode.step(bad, action(1), captured_at=captured_at)
        with pytest.raises(SpecError, match=message):
            episode.finish(bad, captured_at=captured_at)
        record(episode, range(1, 4))
        episode.finish(observation(4))
    check_steps(store.read(episode.result()), 4)


@pytest.mark.parametrize(
    ("bad", "reward", "message"),
    [
        (np.array([0, np.nan], np.float32), 0.0, "action holds a NaN"),
        (np.zeros(3, np.float32), 0.0, r"action has shape \(3,\)"),
        (None, 0.0, "action"),
        (action(1), float("nan"), "reward holds a NaN"),
        (action(1), None, "reward"),
        (action(1), "much", "reward"),
        (action(1), [1.0, 2.0], "reward"),
    ],
)
def test_a_bad_outcome_is_refused(recorder: Recorder, bad: object, reward: float, message: str) -> None:
    with recorder.episode() as episode:
        with pytest.raises(SpecError, match=message):
            episode.step(observation(0), bad, reward)
        record(episode, range(2))
        episode.finish(observation(2))
        assert episode.steps == 2


def test_a_refused_value_is_not_repeated(tmp_path: Path) -> None:
    arrays = with_capture_times(ObservationSpec({"force": ArraySpec((2,)), "state": ArraySpec((2,))}), ["force"])
    store = EpisodeStore.create(tmp_path, "small", Schema(arrays, ActionSpec((-1.0,), (1.0,))))
    good, other = np.ones(2, np.float32), np.full(2, 2, np.float32)
    with store.episode() as episode:
        episode.step({"force": good, "state": good}, [0.0])
        with pytest.raises(SpecError):
            episode.step({"force": other, "state": np.full(2, np.nan)}, [0.0])
        episode.step({"state": other}, [0.0])
        episode.finish({"state": other})
    assert store.read(episode.episode_id).observation["force"].tolist() == [[1, 1]] * 3


def test_the_first_step_needs_every_sensor(recorder: Recorder) -> None:
    for number in range(2):
        with recorder.episode() as episode:
            with pytest.raises(SpecError, match=r"first observation of an episode lacks \['camera'\]"):
                episode.step({"state": state(0)}, action(0))
            record(episode, range(2))
            episode.finish(observation(number))


def test_metadata_are_checked(store: EpisodeStore, recorder: Recorder) -> None:
    for bad in ({"tasks": "lift"}, {"seed": "three"}, {"task": 3}):
        with pytest.raises(FlywheelError, match=f"cannot have {next(iter(bad))}="):
            recorder.episode(**bad)  # type: ignore[arg-type]
    with recorder.episode(episode_id="one") as episode:
        record(episode, range(2))
        with pytest.raises(FlywheelError, match="cannot have colour="):
            episode.finish(observation(2), colour="red")
        episode.finish(observation(2))
    with pytest.raises(FlywheelError, match="Episode 'one' was recorded already"):
        recorder.episode(episode_id="one")
    with pytest.raises(FlywheelError, match="too small"):
        store.recorder(ring_bytes=1000)


@pytest.mark.parametrize(("name", "value"), [("task", "a\udc80"), ("seed", 2**63)])
def test_metadata_that_no_record_can_hold_is_refused_at_once(store: EpisodeStore, name: str, value: str | int) -> None:
    with store.recorder() as recorder:
        with pytest.raises(SpecError, match=f"An episode's {name} is"):
            recorder.episode(**{name: value})  # type: ignore[arg-type]
        with recorder.episode() as episode:
            record(episode, range(3))
            with pytest.raises(SpecError, match=f"An episode's {name} is"):
                episode.finish(observation(3), **{name: value})  # type: ignore[arg-type]
            episode.finish(observation(3), task="hebe 手")
    read = store.read(episode.episode_id)
    other = replace(read, metadata=replace(read.metadata, episode_id="other", **{name: value}))
    with store.writer() as writer, pytest.raises(SpecError, match=f"An episode's {name} is"):
        writer.append(other)
    assert [row.task for row in store.rows()] == ["hebe 手"]


def test_success_as_numpy_has_it(store: EpisodeStore) -> None:
    with store.episode(seed=np.int64(3)) as episode:  # type: ignore[arg-type]
        record(episode, range(3))
        episode.finish(observation(3), success=np.float32(2) > 1)  # type: ignore[arg-type]
    (row,) = store.rows()
    assert (row.success, row.seed) == (True, 3)


def test_an_episode_keeps_the_id_that_it_began_with(store: EpisodeStore, recorder: Recorder) -> None:
    with pytest.raises(FlywheelError, match="cannot be empty"):
        recorder.episode(episode_id="")
    for name in ("one", "two"):
        with recorder.episode(episode_id=name) as episode:
            record(episode, range(3))
            with pytest.raises(FlywheelError, match="is given when the episode begins"):
                episode.finish(observation(3), episode_id="one")
            episode.finish(observation(3))
    assert recorder.stored() == ("one", "two")
    assert {row.episode_id for row in store.rows()} == {"one", "two"}


@pytest.mark.parametrize("reward", ["x", [1, 2], 10**400, float("nan")])
def test_a_reward_that_is_no_number_is_refused_in_one_sentence(recorder: Recorder, reward: float) -> None:
    with recorder.episode() as episode:
        record(episode, range(3))
        with pytest.raises(SpecError, match="reward"):
            episode.step(observation(3), action(3), reward)
        with pytest.raises(SpecError, match="The last reward is"):
            episode.finish(observation(3), reward=reward)
        episode.finish(observation(3))


def test_a_ring_larger_than_all_memory_is_refused(store: EpisodeStore) -> None:
    with pytest.raises(FlywheelError, match="There is no memory for a recorder's ring"):
        store.recorder(ring_bytes=1 << 60)

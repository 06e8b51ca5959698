from __future__ import annotations

import fcntl
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from flywheel.bench.durability.calls import killed_before
from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.capture import with_capture_times
from flywheel.datasets.journal import StoreWarning
from flywheel.datasets.recorder import EpisodeRecording, Recorder, RecorderError, RecorderFullError
from flywheel.datasets.recorder_link import Settings
from flywheel.datasets.recorder_process import RecorderProcess
from flywheel.datasets.ring import HEADER, Ring, create_memory
from flywheel.datasets.schema import Schema
from flywheel.datasets.spill import open_session, read_spill
from flywheel.datasets.step_encoder import StepEncoder
from flywheel.datasets.step_layout import BEGIN, FINISH, STEP, StepLayout, begin_json, json_bytes
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamagedError, frame
from flywheel.datasets.verify import verify
from tests.datasets.record_script import EVERY, SCHEMA, action, observation, picture, state

SCRIPT = Path(__file__).with_name("record_script.py")


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore.create(tmp_path, "record", SCHEMA)


@pytest.fixture
def recorder(store: EpisodeStore) -> Iterator[Recorder]:
    with store.recorder(ring_bytes=1 << 20) as recorder:
        yield recorder


def record(episode: EpisodeRecording, numbers: range) -> None:
    for number in numbers:
        step(episode, number)


def step(episode: EpisodeRecording, number: int) -> None:
    """One step, tried again as long as the recorder is full."""
    while True:
        try:
            return episode.step(observation(number), action(number), float(number))
        except RecorderFullError:
            time.sleep(0.002)


def fill(episode: EpisodeRecording) -> None:
    while True:
        episode.step(observation(episode.steps), action(episode.steps), float(episode.steps))


def check_steps(episode: Episode, steps: int, final: int | None = None) -> None:
    """The episode holds steps 0, 1, ... with `steps` transitions."""
    assert episode.transitions == steps
    numbers = np.arange(steps + 1)
    np.testing.assert_array_equal(episode.observation["state"], np.stack([state(number) for number in numbers]))
    shown = numbers // EVERY * EVERY
    np.testing.assert_array_equal(episode.observation["camera"], np.stack([picture(number) for number in shown]))
    np.testing.assert_array_equal(episode.action[:-1], np.stack([action(number) for number in numbers[:-1]]))
    np.testing.assert_array_equal(episode.reward[:-1], numbers[:-1])
    assert not episode.action[-1].any()
    assert episode.reward[-1] == 0


def process_of(recorder: Recorder) -> int:
    process = recorder._session._link._process
    assert process is not None
    return process.pid


def kill_process_of(recorder: Recorder) -> None:
    os.kill(process_of(recorder), signal.SIGKILL)
    os.waitid(os.P_PID, process_of(recorder), os.WEXITED | os.WNOWAIT)


def leftovers(store: EpisodeStore) -> list[str]:
    return [path.name for path in (store.path / ".journal").iterdir() if path.suffix in (".spill", ".recording", ".tmp")]


def test_a_recorded_episode_is_what_was_recorded(store: EpisodeStore) -> None:
    before = time.time_ns()
    with store.recorder() as recorder:
        with recorder.episode(task="lift", robot="arm", operator="anna") as episode:
            record(episode, range(50))
            episode.finish(observation(50), success=True, terminal=True, success_detector="lift-2")
        assert episode.result() == episode.episode_id
        stored = store.read(episode.episode_id)  # acknowledged, so that everybody sees it
    check_steps(stored, 50)
    stored.validate(SCHEMA.observation, SCHEMA.action)
    metadata = stored.metadata
    assert (metadata.task, metadata.robot, metadata.operator) == ("lift", "arm", "anna")
    assert metadata.success
    assert not metadata.invalid
    assert metadata.success_detector == "lift-2"
    assert before <= metadata.started_at_ns <= time.time_ns()
    assert stored.is_terminal[-1]
    assert stored.discount[-2:].tolist() == [0, 0]
    assert stored.discount[:-2].all()
    assert leftovers(store) == []
    assert verify(store).sound


def test_episodes_follow_one_another_without_waiting(store: EpisodeStore, recorder: Recorder) -> None:
    ids = []
    for steps in (3, 30, 1):
        with recorder.episode(task="lift") as episode:
            record(episode, range(steps))
            episode.finish(observation(steps))
        ids.append(episode.episode_id)
    assert recorder.stored() == tuple(ids)
    for steps, episode_id in zip((3, 30, 1), ids, strict=True):
        stored = store.read(episode_id)
        check_steps(stored, steps)
        assert not stored.is_terminal.any()
        assert stored.discount.all()


def test_a_store_records_a_single_episode(store: EpisodeStore) -> None:
    with store.episode(task="lift", robot="arm") as episode:
        record(episode, range(4))
        episode.finish(observation(4), success=True)
    check_steps(store.read(episode.episode_id), 4)


def test_the_last_reward_may_be_known_at_the_end(store: EpisodeStore) -> None:
    with store.episode() as episode:
        for number in range(3):
            episode.step(observation(number), action(number))
        episode.finish(observation(3), reward=1.0)
    assert store.read(episode.episode_id).reward.tolist() == [0, 0, 1, 0]


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


def test_an_error_in_the_block_keeps_the_steps_as_invalid(store: EpisodeStore, recorder: Recorder) -> None:
    error = RuntimeError("the arm tripped")

    def trip() -> None:
        nonlocal episode
        with recorder.episode(task="lift") as episode:
            record(episode, range(12))
            raise error

    episode = None
    with pytest.raises(RuntimeError, match="the arm tripped"):
        trip()
    assert error.__notes__ == [
        f"Episode '{episode.episode_id}': the 11 transitions before this error are stored as a truncated, invalid episode."
    ]
    stored = store.read(episode.result())
    check_steps(stored, 11)
    assert stored.metadata.invalid
    assert not stored.metadata.success
    assert not stored.is_terminal.any()
    with recorder.episode() as episode:  # and the recorder goes on
        record(episode, range(2))
        episode.finish(observation(2))
    assert not store.read(episode.result()).metadata.invalid


def test_an_episode_that_is_not_finished_is_truncated_with_a_warning(store: EpisodeStore, recorder: Recorder) -> None:
    with (
        pytest.warns(StoreWarning, match="was not finished; it is stored as truncated after 7 transitions"),
        recorder.episode() as episode,
    ):
        record(episode, range(8))
    stored = store.read(episode.result())
    check_steps(stored, 7)
    assert not stored.metadata.invalid
    assert not stored.is_terminal.any()


@pytest.mark.parametrize("steps", [0, 1])
def test_less_than_a_transition_is_not_stored_and_said(store: EpisodeStore, recorder: Recorder, steps: int) -> None:
    message = "before its first whole transition; nothing is stored"
    with pytest.warns(StoreWarning, match=message), recorder.episode() as episode:
        record(episode, range(steps))
    with pytest.raises(RecorderError, match="no whole transition; nothing is stored"):
        episode.result()
    assert recorder.stored() == ()
    assert store.rows() == []
    recorder.close()
    assert leftovers(store) == []


def test_one_step_and_a_final_observation_are_an_episode(store: EpisodeStore, recorder: Recorder) -> None:
    with recorder.episode() as episode:
        step(episode, 0)
        episode.finish(observation(1), terminal=True)
    check_steps(store.read(episode.result()), 1)


def test_what_is_out_of_order_is_refused(recorder: Recorder) -> None:
    with recorder.episode() as episode:
        with pytest.raises(FlywheelError, match="one episode at a time"):
            recorder.episode()
        with pytest.raises(FlywheelError, match="has no step yet"):
            episode.finish(observation(0))
        with pytest.raises(FlywheelError, match="has not ended"):
            episode.result()
        record(episode, range(2))
        with pytest.raises(FlywheelError, match="finite number"):
            episode.finish(observation(2), reward=float("inf"))
        episode.finish(observation(2))
        with pytest.raises(FlywheelError, match="has ended"):
            step(episode, 2)
        with pytest.raises(FlywheelError, match="has ended"):
            episode.finish(observation(2))


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


def test_a_closed_recorder_says_so(store: EpisodeStore) -> None:
    with store.recorder() as recorder:
        pass
    recorder.close()
    with pytest.raises(FlywheelError, match="is closed"):
        recorder.episode()


def test_a_forked_process_cannot_record(store: EpisodeStore, recorder: Recorder) -> None:
    with recorder.episode() as episode:
        record(episode, range(2))
        child = os.fork()
        if not child:
            try:
                step(episode, 2)
            except FlywheelError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        episode.finish(observation(2))
    check_steps(store.read(episode.result()), 2)


def test_a_full_recorder_says_so_and_loses_nothing(store: EpisodeStore, recorder: Recorder) -> None:
    assert recorder.free + 1 >= recorder.capacity > 100
    with recorder.episode() as episode:
        step(episode, 0)
        os.kill(process_of(recorder), signal.SIGSTOP)
        with pytest.raises(RecorderFullError, match=r"hold \d+ steps, 0\.\d s of them.*not recorded; try it again"):
            fill(episode)
        recorded = episode.steps
        assert recorder.free == 0
        assert recorded > recorder.capacity
        with pytest.raises(RecorderFullError):
            episode.step(observation(recorded) | {"camera": picture(9)}, action(recorded))
        os.kill(process_of(recorder), signal.SIGCONT)
        record(episode, range(recorded, recorded + 500))
        episode.finish(observation(recorded + 500))
    check_steps(store.read(episode.result()), recorded + 500)


def test_an_episode_ends_also_while_the_recorder_is_full(store: EpisodeStore, recorder: Recorder) -> None:
    episode = recorder.episode()
    os.kill(process_of(recorder), signal.SIGSTOP)
    with pytest.raises(RecorderFullError), episode:
        fill(episode)
    os.kill(process_of(recorder), signal.SIGCONT)
    stored = store.read(episode.result())
    check_steps(stored, episode.steps - 1)
    assert stored.metadata.invalid


def test_an_episode_far_longer_than_the_memory(store: EpisodeStore) -> None:
    with store.recorder(ring_bytes=1 << 18) as recorder, recorder.episode() as episode:
        record(episode, range(20_000))
        episode.finish(observation(20_000))
        stored = store.read(episode.result())
    assert stored.transitions == 20_000
    np.testing.assert_array_equal(stored.observation["state"][:, 0], np.arange(20_001))


def test_two_recorders_at_once(store: EpisodeStore) -> None:
    with (
        store.recorder() as first,
        store.recorder() as second,
        first.episode(episode_id="first") as one,
        second.episode(episode_id="second") as two,
    ):
        for number in range(40):
            step(one, number)
            step(two, number)
        one.finish(observation(40))
        two.finish(observation(40))
    for name in ("first", "second"):
        check_steps(store.read(name), 40)
    assert leftovers(store) == []


def test_a_killed_recorder_process_is_started_again(store: EpisodeStore, recorder: Recorder) -> None:
    with recorder.episode() as episode:
        record(episode, range(20))
        kill_process_of(recorder)
        with pytest.raises(RecorderError, match=r"killed by SIGKILL.*this one was not recorded"):
            step(episode, 20)
        record(episode, range(20, 60))
        episode.finish(observation(60))
    stored = store.read(episode.result())
    check_steps(stored, 60)
    assert not stored.metadata.invalid


@pytest.mark.filterwarnings("ignore::flywheel.datasets.journal.StoreWarning")
def test_a_recorder_process_that_is_killed_over_and_over_loses_nothing(store: EpisodeStore) -> None:
    rng = np.random.default_rng(3)
    with store.recorder(ring_bytes=1 << 20) as recorder:
        for turn in range(6):
            with recorder.episode(episode_id=f"episode-{turn}") as episode:
                killed_at = int(rng.integers(60))
                for number in range(60):
                    if number == killed_at:
                        time.sleep(rng.random() * 0.02)
                        os.kill(process_of(recorder), signal.SIGKILL)
                    insist(partial(step, episode, number))
                insist(partial(episode.finish, observation(60)))
            if turn % 2:
                recorder.stored()
        names = recorder.stored()
    assert names == tuple(f"episode-{turn}" for turn in range(6))
    for name in names:
        check_steps(store.read(name), 60)
    assert leftovers(store) == []
    assert verify(store).sound


def insist(call: Callable[[], None]) -> None:
    """Call it until it does not say that the recorder's process died."""
    while True:
        with suppress(RecorderError):
            return call()


def test_a_recorder_process_that_is_killed_at_the_very_end(store: EpisodeStore) -> None:
    with store.recorder() as recorder:
        with recorder.episode() as episode:
            record(episode, range(10))
            episode.finish(observation(10))
        os.kill(process_of(recorder), signal.SIGKILL)
    check_steps(store.read(episode.episode_id), 10)
    assert leftovers(store) == []


def start_script(root: Path, steps: int) -> tuple[subprocess.Popen[str], int]:
    control = subprocess.Popen([sys.executable, str(SCRIPT), str(root), str(steps)], stdout=subprocess.PIPE, text=True)
    assert control.stdout is not None
    pid = int(control.stdout.readline())
    assert control.stdout.readline() == "recorded\n"
    return control, pid


def wait_for(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_control_process_leaves_its_steps_as_an_invalid_episode(tmp_path: Path) -> None:
    control, _ = start_script(tmp_path, 123)
    control.kill()
    control.wait()
    store = EpisodeStore.open(tmp_path)
    wait_for(lambda: store.has("broken") and not leftovers(store))
    stored = store.read("broken")
    check_steps(stored, 122)
    assert stored.metadata.invalid
    assert stored.metadata.task == "lift"
    assert not stored.is_terminal.any()
    assert not store.read("whole").metadata.invalid
    assert verify(store).sound


def killed_both(root: Path, steps: int) -> tuple[EpisodeStore, Path, Path]:
    """A store with a spill of so many steps and its lock, as a power loss leaves it."""
    control, pid = start_script(root, steps)
    time.sleep(0.1)  # until the ring is on the disk
    os.kill(pid, signal.SIGKILL)
    control.kill()
    control.wait()
    store = EpisodeStore.open(root)
    (spill,) = (store.path / ".journal").glob("*.spill")
    (lock,) = (store.path / ".journal").glob("*.recording")
    with lock.open() as file:  # a process that was killed may take a moment to be gone
        fcntl.flock(file, fcntl.LOCK_EX)
    return store, spill, lock


def test_what_both_processes_had_recorded_is_recovered_once(tmp_path: Path) -> None:
    store, spill, lock = killed_both(tmp_path, 123)
    data = spill.read_bytes()
    assert not store.has("broken")
    assert [problem.what for problem in verify(store).leftovers if problem.file.endswith(".spill")] == [
        "Steps of a recording that was cut off; the next writer stores them."
    ]
    with pytest.warns(
        StoreWarning, match="Episode broken had not been stored when its recorder died; its 122 transitions are stored, flagged"
    ):
        store.writer().close()
    check_steps(store.read("broken"), 122)
    assert store.read("broken").metadata.invalid
    assert leftovers(store) == []
    # A kill between the append and the removal leaves the spill: the next opening stores nothing twice.
    spill.write_bytes(data)
    lock.touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        store.writer().close()
    assert sorted(row.episode_id for row in store.rows()) == ["broken", "whole"]
    assert leftovers(store) == []
    assert verify(store).sound


@pytest.mark.slow
def test_kills_at_random_moments_on_either_side_lose_nothing(tmp_path: Path) -> None:
    """On one store: whatever is killed when, every episode is there once, with the steps up to some moment."""
    rng = np.random.default_rng(11)
    for turn in range(40):
        name, steps = f"turn-{turn}", int(rng.integers(3, 120))
        control = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path), str(steps), name], stdout=subprocess.PIPE, text=True
        )
        assert control.stdout is not None
        pid = int(control.stdout.readline())
        with control.stdout:
            assert control.stdout.readline() == "recorded\n"
            time.sleep(float(rng.random()) * 0.05)
            for victim in [[pid], [control.pid], [pid, control.pid], [control.pid, pid]][turn % 4]:
                os.kill(victim, signal.SIGKILL)
                time.sleep(float(rng.random()) * 0.05 * (turn % 3))
            control.kill()
            control.wait()
        if turn % 5 == 0:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    store = EpisodeStore.open(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        wait_for(lambda: store.writer().close() or not leftovers(store))
    rows = {row.episode_id: row for row in store.rows()}
    assert all(f"whole-turn-{turn}" in rows for turn in range(40))
    for name, row in rows.items():
        check_steps(store.read(name), row.length)
        assert row.invalid != name.startswith("whole")
    assert verify(store).sound


def test_a_live_recorder_is_left_alone(store: EpisodeStore, recorder: Recorder) -> None:
    with recorder.episode() as episode:
        record(episode, range(30))
        time.sleep(0.05)
        with store.writer():
            pass
        assert store.rows() == []
        kill_process_of(recorder)
        with store.writer():  # the control process lives, and will go on
            pass
        assert store.rows() == []
        with pytest.raises(RecorderError, match="SIGKILL"):
            step(episode, 30)
        record(episode, range(30, 60))
        episode.finish(observation(60))
    check_steps(store.read(episode.result()), 60)


@pytest.mark.filterwarnings("ignore::flywheel.datasets.journal.StoreWarning")
def test_a_damaged_spill_keeps_what_stands_before_the_damage(tmp_path: Path) -> None:
    _, spill, _ = killed_both(tmp_path, 40)
    data, layout, rng = spill.read_bytes(), StepLayout(SCHEMA), np.random.default_rng(0)
    found = 0
    for number in range(200):
        damaged = bytearray(data)
        if number % 2:
            del damaged[int(rng.integers(len(data))) :]
        else:
            damaged[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        spill.write_bytes(damaged)
        with suppress(DamagedError):
            recording = read_spill(spill, layout)
            if recording is not None and recording.transitions:
                check_steps(recording.episode(), recording.transitions)
                assert recording.metadata.invalid
                assert recording.metadata.episode_id == "broken"
                found += 1
    assert found > 150


def test_what_is_no_recording_is_kept_for_a_person(tmp_path: Path) -> None:
    store, spill, _ = killed_both(tmp_path, 40)
    spill.write_bytes(bytes(frame(b"something else that is long enough to be taken for a header")))
    with pytest.warns(StoreWarning, match=r"holds no episode that this version records .* It is kept as .*damaged"):
        store.writer().close()
    assert leftovers(store) == []
    assert [row.episode_id for row in store.rows()] == ["whole"]
    assert (store.path / ".meta" / "damaged" / spill.name).exists()


def test_a_recording_that_is_too_large_for_a_record_is_stored_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, spill, _ = killed_both(tmp_path, 40)
    monkeypatch.setattr("flywheel.datasets.spill._MOST_BYTES", spill.stat().st_size)
    with pytest.warns(StoreWarning, match="Episode broken is too long for one record"):
        store.writer().close()
    parts = [row.episode_id for row in store.rows() if row.episode_id != "whole"]
    assert len(parts) > 1
    assert parts[0] == "broken"
    check_steps(store.read("broken"), store.read("broken").transitions)
    states = [store.read(part).observation["state"][:, 0] for part in parts]
    for one, other in pairwise(states):
        assert one[-1] == other[0]
    np.testing.assert_array_equal(np.concatenate([states[0], *(part[1:] for part in states[1:])]), np.arange(40))
    assert all(store.read(part).metadata.invalid for part in parts)


def test_a_kill_before_every_call_of_recovery_stores_once(tmp_path: Path) -> None:
    killed_both(tmp_path / "base", 12)
    for call in itertools.count(1):
        root = tmp_path / f"killed-{call}"
        shutil.copytree(tmp_path / "base", root)
        store = EpisodeStore.open(root)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            was_killed, _ = killed_before(call, lambda _, store=store: store.writer().close())  # type: ignore[misc]
            assert verify(store).sound
            store.writer().close()
        check_recovered(store, "broken", 11)
        shutil.rmtree(root)
        if not was_killed:
            break
    assert call > 15


@pytest.mark.slow
def test_a_kill_before_every_call_of_the_process_stores_once(tmp_path: Path) -> None:
    """The process finds an episode in the ring, spills it, stores it; the next one goes on where it was killed."""
    for call in itertools.count(1):
        store = EpisodeStore.create(tmp_path / f"killed-{call}", "record", SCHEMA)
        settings = ring_with_an_episode(store)
        was_killed, _ = killed_before(call, lambda _, settings=settings: RecorderProcess(settings).run())  # type: ignore[misc]
        # A control process that is alive starts it again; where both are dead, the next writer stores what is in the spill.
        assert killed_before(1 << 30, lambda _, settings=settings: RecorderProcess(settings).run()) == (False, [])  # type: ignore[misc]
        for descriptor in (settings.ring, settings.lock, settings.doorbell, settings.answers):
            os.close(descriptor)
        check_recovered(store, "episode", 11)
        assert not store.read("episode").metadata.invalid
        if not was_killed:
            break
    assert call > 20


def ring_with_an_episode(store: EpisodeStore) -> Settings:
    """What a control process hands over that has recorded an episode and is gone."""
    name, lock = open_session(store.path / ".journal")
    memory = create_memory(1 << 20)
    ring, encoder, layout = Ring(memory), StepEncoder(StepLayout(SCHEMA)), StepLayout(SCHEMA)
    begin = begin_json(layout, EpisodeMetadata(episode_id="episode"), 0)
    HEADER.pack_into(ring.memory, 0, HEADER.size + len(begin), BEGIN, 1)
    ring.memory[HEADER.size : HEADER.size + len(begin)] = begin
    ring.commit(HEADER.size + len(begin))
    for number in range(12):
        end = json_bytes({"metadata": {}}) if number == 11 else b""
        length = encoder.stage(observation(number), None) + len(end)
        if end:
            encoder.stage_end()
        else:
            encoder.stage_outcome(action(number), float(number))
        offset = ring.reserve(length)
        encoder.write(ring, offset, length, FINISH if end else STEP, number + 2, end)
        ring.commit(ring.following(offset, length))
        encoder.keep()
    doorbell, bell = os.pipe()
    os.close(bell)
    return Settings(str(store.path), name, lock, memory, 64, os.getpid(), doorbell, os.open(os.devnull, os.O_WRONLY))


def check_recovered(store: EpisodeStore, name: str, transitions: int) -> None:
    assert [row.episode_id for row in store.rows() if not row.episode_id.startswith("whole")] == [name]
    check_steps(store.read(name), transitions)
    assert leftovers(store) == []
    assert verify(store).sound


def test_a_full_disk_is_told_and_costs_nothing(store: EpisodeStore, recorder: Recorder) -> None:
    with recorder.episode() as episode:
        record(episode, range(10))
        resource.prlimit(process_of(recorder), resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        with pytest.raises(RecorderError, match="The disk is full"):
            record(episode, range(10, 20_000))
        number = episode.steps
        resource.prlimit(process_of(recorder), resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        record(episode, range(number, number + 100))
        episode.finish(observation(number + 100))
    check_steps(store.read(episode.result()), number + 100)


def test_interrupts_at_any_moment_lose_nothing(store: EpisodeStore, recorder: Recorder) -> None:
    """As Ctrl-C is: the steps whose call returned are there, in order, and those of interrupted calls once or not at all."""
    returned = []

    def interrupt(*_: object) -> None:
        raise TimeoutError

    def attempt(number: int) -> None:
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-6 * (number % 60) + 1e-6)
            episode.step({"state": np.full(4, number, np.float32)}, action(number))
            returned.append(number)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with recorder.episode() as episode:
            episode.step({"state": np.zeros(4, np.float32), "camera": picture(0)}, action(0))
            for number in range(1, 3000):
                with suppress(TimeoutError, RecorderFullError):
                    attempt(number)
            episode.finish({"state": np.full(4, 3000, np.float32)})
    finally:
        signal.signal(signal.SIGALRM, previous)
    numbers = store.read(episode.result()).observation["state"][:, 0].astype(int)
    assert (np.diff(numbers) > 0).all()
    assert set(returned) <= set(numbers.tolist())


def test_nothing_heavy_is_needed(tmp_path: Path) -> None:
    for name in ("torch", "tensorflow", "tensorflow_datasets", "rlds", "lightning"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not on this computer')\n")
    code = (
        "from pathlib import Path; from tests.datasets.record_script import *\n"
        f"store = EpisodeStore.create(Path({str(tmp_path / 'data')!r}), 'record', SCHEMA)\n"
        "with store.episode(task='lift') as episode:\n"
        "    [episode.step(observation(number), action(number), float(number)) for number in range(5)]\n"
        "    episode.finish(observation(5))\n"
        "assert store.read(episode.episode_id).transitions == 5\n"
    )
    paths = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[2])))
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": paths})


def test_the_process_leaves_the_loop_its_processor(store: EpisodeStore) -> None:
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("one processor")
    own = {min(before)}
    try:
        os.sched_setaffinity(0, own)
        with store.recorder() as recorder:
            assert not os.sched_getaffinity(process_of(recorder)) & own
            assert os.sched_getscheduler(process_of(recorder)) == os.SCHED_OTHER
            assert os.getpriority(os.PRIO_PROCESS, process_of(recorder)) > os.getpriority(os.PRIO_PROCESS, 0)
    finally:
        os.sched_setaffinity(0, before)


def test_nobody_may_record_where_nobody_may_write(store: EpisodeStore, tmp_path: Path) -> None:
    (store.path / ".journal").rename(tmp_path / "elsewhere")
    with pytest.raises(FlywheelError, match=r"\.journal"):
        store.recorder()

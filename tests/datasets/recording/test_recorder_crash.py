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
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from flywheel.bench.durability.calls import killed_before
from flywheel.core.episode import EpisodeMetadata
from flywheel.datasets.journal import StoreWarning
from flywheel.datasets.recording.link import Settings
from flywheel.datasets.recording.process import RecorderProcess
from flywheel.datasets.recording.recorder import Recorder, RecorderError, RecorderFullError
from flywheel.datasets.recording.ring import HEADER, Ring, create_memory
from flywheel.datasets.recording.spill import open_session, read_spill
from flywheel.datasets.recording.step_encoder import StepEncoder
from flywheel.datasets.recording.step_layout import BEGIN, FINISH, STEP, StepLayout, begin_json, json_bytes
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamagedError, frame
from flywheel.datasets.upkeep.verify import verify
from tests.datasets.recording.record_script import (
    SCHEMA,
    action,
    check_steps,
    kill_process_of,
    leftovers,
    observation,
    picture,
    process_of,
    record,
    step,
)

SCRIPT = Path(__file__).with_name("record_script.py")
Result = TypeVar("Result")


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
            with insist(partial(recorder.episode, episode_id=f"episode-{turn}")) as episode:
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


def insist(call: Callable[[], Result]) -> Result:
    """Call it until it does not say that the recorder's process died, which a late kill may tell the next episode only."""
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


@pytest.mark.filterwarnings("ignore::flywheel.datasets.journal.StoreWarning")
def test_a_recording_that_is_too_large_for_a_record_is_stored_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, spill, _ = killed_both(tmp_path, 40)
    monkeypatch.setattr("flywheel.datasets.recording.spill._MOST_BYTES", spill.stat().st_size)
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


def test_a_step_that_was_interrupted_once_it_was_recorded_is_counted(
    store: EpisodeStore, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = recorder._session._link.tell

    def tell_and_interrupt(head: int) -> None:
        tell(head)
        raise KeyboardInterrupt

    with recorder.episode() as episode:
        episode.step({"state": np.zeros(4, np.float32), "camera": picture(0)}, action(0))
        monkeypatch.setattr(recorder._session._link, "tell", tell_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            episode.step({"state": np.ones(4, np.float32), "camera": picture(1)}, action(1))
        monkeypatch.undo()
        assert episode.steps == 2
        episode.finish({"state": np.full(4, 2, np.float32)})
    assert store.read(episode.result()).observation["state"][:, 0].tolist() == [0, 1, 2]


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


def test_one_recording_that_cannot_be_stored_keeps_nobody_from_writing(
    store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, lock = open_session(store.path / ".journal")
    path = store.path / ".journal" / f"{name}-000000.spill"
    path.touch()
    os.close(lock)

    def fail(*_: object) -> None:
        raise UnicodeError("no text")

    monkeypatch.setattr("flywheel.datasets.recording.spill.store_spill", fail)
    with pytest.warns(StoreWarning, match="not recovered yet: no text"):
        store.writer().close()
    assert path.exists()

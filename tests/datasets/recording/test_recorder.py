from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.journal import StoreWarning
from flywheel.datasets.recording.recorder import Recorder, RecorderError, RecorderFullError
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep.verify import verify
from tests.datasets.recording.record_script import (
    SCHEMA,
    action,
    check_steps,
    fill,
    leftovers,
    observation,
    picture,
    process_of,
    record,
    step,
)


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


def test_nothing_heavy_is_needed(tmp_path: Path) -> None:
    for name in ("torch", "tensorflow", "tensorflow_datasets", "rlds", "lightning"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not on this computer')\n")
    code = (
        "from pathlib import Path; from tests.datasets.recording.record_script import *\n"
        f"store = EpisodeStore.create(Path({str(tmp_path / 'data')!r}), 'record', SCHEMA)\n"
        "with store.episode(task='lift') as episode:\n"
        "    [episode.step(observation(number), action(number), float(number)) for number in range(5)]\n"
        "    episode.finish(observation(5))\n"
        "assert store.read(episode.episode_id).transitions == 5\n"
    )
    paths = os.pathsep.join((str(tmp_path), str(Path(__file__).parents[3])))
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": paths})


def test_nobody_may_record_where_nobody_may_write(store: EpisodeStore, tmp_path: Path) -> None:
    (store.path / ".journal").rename(tmp_path / "elsewhere")
    with pytest.raises(FlywheelError, match=r"\.journal"):
        store.recorder()

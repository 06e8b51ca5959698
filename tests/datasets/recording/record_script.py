"""What tests record and how they check it; as a script a control loop to be killed: record_script.py ROOT STEPS [NAME]."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from flywheel.core.episode import Episode
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.recording.capture import with_capture_times
from flywheel.datasets.recording.recorder import EpisodeRecording, Recorder, RecorderFullError
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore

SCHEMA = Schema(
    with_capture_times(ObservationSpec({"state": ArraySpec((4,)), "camera": ArraySpec((24, 32, 3), "uint8")}), ["camera"]),
    ActionSpec((-1.0, -1.0), (1.0, 1.0), rate=1000.0),
    pictures="raw",
)
EVERY = 5
"""Steps per picture."""


def state(number: int) -> np.ndarray:
    return np.arange(4, dtype=np.float32) + number


def action(number: int) -> np.ndarray:
    return np.full(2, 1 / (1 + number), np.float32)


def picture(number: int) -> np.ndarray:
    return np.full((24, 32, 3), number % 251, np.uint8)


def observation(number: int) -> dict[str, np.ndarray]:
    """The camera is slower than the loop."""
    return {"state": state(number)} | ({"camera": picture(number)} if number % EVERY == 0 else {})


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


def main(root: Path, steps: int, whole: str, broken: str) -> None:
    """Record one whole episode, and then one of so many steps that never ends."""
    store = EpisodeStore.create(root, "record", SCHEMA)
    with store.recorder(ring_bytes=1 << 20) as recorder:
        print(process_of(recorder), flush=True)
        for name, length in ((whole, 20), (broken, steps)):
            with recorder.episode(task="lift", robot="arm", episode_id=name) as episode:
                for number in range(length):
                    episode.step(observation(number), action(number), float(number))
                    time.sleep(0.0005)
                if name == whole:
                    episode.finish(observation(length), success=True, terminal=True)
                    episode.result()
                else:
                    print("recorded", flush=True)
                    time.sleep(60)


if __name__ == "__main__":
    suffix = "".join(f"-{name}" for name in sys.argv[3:])
    main(Path(sys.argv[1]), int(sys.argv[2]), f"whole{suffix}", f"broken{suffix}")

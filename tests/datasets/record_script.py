"""A control loop to be killed, run as a script by test_recorder.py: record_script.py ROOT STEPS [NAME]."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.capture import with_capture_times
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


def main(root: Path, steps: int, whole: str, broken: str) -> None:
    """Record one whole episode, and then one of so many steps that never ends."""
    store = EpisodeStore.create(root, "record", SCHEMA)
    with store.recorder(ring_bytes=1 << 20) as recorder:
        print(recorder._session._link._process.pid, flush=True)
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

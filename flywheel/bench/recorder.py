"""python -m flywheel.bench.recorder: what recording adds to the jitter of a 1 kHz control loop.

The loop has absolute deadlines, one a millisecond: it sleeps until shortly before each and watches the clock from there on. What
is measured is how long after its deadline a tick's work is done. Bursts with and without recording take turns, so that what
else the machine does strikes all alike, and what recording adds is the difference within a turn.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel.bench.machine import describe
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.recording.capture import with_capture_times
from flywheel.datasets.recording.recorder import Recorder
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore

PERIOD_NS = 1_000_000
_WATCH_NS = 300_000
"""How long before a deadline sleeping ends and watching begins: the system wakes nobody to the microsecond."""
_CAMERAS = ("camera_front", "camera_wrist")
_CAMERA_TICKS = 33
"""30 Hz."""
_QUANTILES = (50.0, 99.0, 99.9)
Record = Callable[[Mapping[str, Any], npt.NDArray[np.float32]], None]
Micros = npt.NDArray[np.float64]


def schema(cameras: bool) -> Schema:
    """A 32-d state, and two cameras if they are wanted; 7-d actions."""
    arrays = {"state": ArraySpec((32,))} | {name: ArraySpec((84, 84, 3), "uint8") for name in _CAMERAS if cameras}
    observation = with_capture_times(ObservationSpec(arrays), _CAMERAS if cameras else ())
    return Schema(observation, ActionSpec((-1.0,) * 7, (1.0,) * 7, rate=1e9 / PERIOD_NS), pictures="jpeg")


def loop(ticks: int, cameras: bool, record: Record) -> tuple[Micros, Micros]:
    """How late each tick was done and how long its `record` took, in microseconds, (ticks,)."""
    state, action = np.zeros(32, np.float32), np.zeros(7, np.float32)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 84, 84, 3), np.uint8)
    late, took = np.zeros(ticks), np.zeros(ticks)
    clock = time.perf_counter_ns
    deadline = clock() + PERIOD_NS
    for tick in range(ticks):
        wait = deadline - clock() - _WATCH_NS
        if wait > 0:
            time.sleep(wait * 1e-9)
        while clock() < deadline:
            pass
        state += 0.001
        observation: dict[str, Any] = {"state": state}
        if cameras and tick % _CAMERA_TICKS == 0:
            observation |= {name: pictures[(tick + place) % 8] for place, name in enumerate(_CAMERAS)}
        start = clock()
        record(observation, action)
        done = clock()
        late[tick], took[tick] = (done - deadline) / 1e3, (done - start) / 1e3
        deadline = max(deadline + PERIOD_NS, done)  # a tick that is missed is not caught up in a hurry
    return late, took


def recorded(recorder: Recorder, ticks: int, cameras: bool) -> tuple[Micros, Micros]:
    """A burst that is recorded as one episode."""
    with recorder.episode(task="bench") as episode:
        late, took = loop(ticks, cameras, episode.step)
        last = {"state": np.zeros(32, np.float32)}
        episode.finish(last)
    episode.result()  # what is stored now does not disturb the next burst
    return late, took


def measure(folder: Path, rounds: int, seconds: float) -> dict[str, list[tuple[Micros, Micros]]]:
    """Bursts of every kind in turns, after one that warms up."""
    ticks = int(seconds * 1e9 / PERIOD_NS)
    stores = {name: EpisodeStore.create(folder, name, schema(name == "cameras")) for name in ("state", "cameras")}
    bursts: dict[str, list[tuple[Micros, Micros]]] = {"bare": [], "state": [], "cameras": []}
    with stores["state"].recorder() as state, stores["cameras"].recorder() as cameras:
        for number in range(rounds + 1):
            length = ticks if number else ticks // 10
            found = {
                "bare": loop(length, False, lambda observation, action: None),
                "state": recorded(state, length, False),
                "cameras": recorded(cameras, length, True),
            }
            if number:
                for name, burst in found.items():
                    bursts[name].append(burst)
    for store in stores.values():
        assert sum(row.length for row in store.rows()) == rounds * ticks + ticks // 10
    return bursts


def report(bursts: Mapping[str, list[tuple[Micros, Micros]]]) -> dict[str, Any]:
    """Quantiles in microseconds; each [median, lowest, highest] over the rounds."""
    bare = np.array([np.percentile(late, _QUANTILES) for late, _ in bursts["bare"]])
    found: dict[str, Any] = {"bare": {"late": _spread(bare)}}
    for name in ("state", "cameras"):
        late = np.array([np.percentile(late, _QUANTILES) for late, _ in bursts[name]])
        took = np.array([np.percentile(took, _QUANTILES) for _, took in bursts[name]])
        found[name] = {"late": _spread(late), "added": _spread(late - bare), "step": _spread(took)}
    return found


def _spread(rounds: Micros) -> dict[str, list[float]]:
    return {
        f"p{quantile:g}": [round(float(value), 1) for value in (np.median(column), column.min(), column.max())]
        for quantile, column in zip(_QUANTILES, rounds.T, strict=True)
    }


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each burst; a p99.9 is the tenth worst of 10,000 ticks")
    parser.add_argument("--realtime", action="store_true", help="give the loop real-time priority, as on a robot (needs root)")
    parser.add_argument("--folder", type=Path, help="on the disk to write to; by default a temporary one")
    arguments = parser.parse_args()
    if arguments.realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        bursts = measure(Path(folder), arguments.rounds, arguments.seconds)
    print(json.dumps({"machine": describe(), "microseconds [median, lowest, highest]": report(bursts)}, indent=1))


if __name__ == "__main__":
    main()

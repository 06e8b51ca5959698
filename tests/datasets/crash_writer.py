"""A writer to be killed, and the kill at every single call to the operating system. Run as a script by test_crash.py."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.verify import verify

SCHEMA = Schema(
    ObservationSpec({"state": ArraySpec((6,)), "count": ArraySpec((), "int32")}), ActionSpec((-1.0, -1.0), (1.0, 1.0))
)
_QUICK = 30
_CALLS = ("pwrite", "pwritev", "fdatasync", "fsync", "link", "unlink", "replace", "ftruncate", "truncate")


def make_episode(lane: int, number: int) -> Episode:
    """The one episode that has this lane and number."""
    rng = np.random.default_rng((lane, number))
    steps = int(rng.integers(2, 60))
    observations = [
        {"state": rng.normal(size=6).astype(np.float32), "count": rng.integers(0, 1000, dtype=np.int32)} for _ in range(steps)
    ]
    actions = list(rng.uniform(-1, 1, (steps - 1, 2)).astype(np.float32))
    metadata = EpisodeMetadata(episode_id=f"{lane}-{number:06d}", task="crash", seed=number)
    return Episode.from_transitions(
        observations, actions, [float(number)] * (steps - 1), terminal=bool(number % 2), metadata=metadata
    )


def write(root: Path, lane: int, number: int) -> None:
    """Append until killed, telling each acknowledged id on standard output; the first are quick, the others bound the store."""
    store = EpisodeStore.create(root, "crash", SCHEMA)
    os.write(1, b"opening\n")
    with store.writer(seal_episodes=5) as writer:
        for count in itertools.count():
            os.write(1, f"{writer.append(make_episode(lane, number + count))}\n".encode())
            time.sleep(0.01 if count > _QUICK else 0)


def sweep(root: Path) -> None:
    """On one store, kill a writer before its first call, the next one before its second, and so on, until one lives."""
    acknowledged: set[str] = set()
    kills = 0
    while _killed_at(root, kills + 1, acknowledged) != 0:
        kills += 1
        store = EpisodeStore.open(root)
        stored = {row.episode_id for row in store.rows()}
        assert acknowledged <= stored, (kills, acknowledged - stored)
        report = verify(store)
        assert report.sound, (kills, report.problems)
    print(kills, len(acknowledged))


def _killed_at(root: Path, call: int, acknowledged: set[str]) -> int:
    """Recover, append five episodes, seal, in a child that is killed before that call; returns the signal that ended it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _kill_before(call)
        with EpisodeStore.open(root).writer(seal_episodes=3) as writer:
            for number in range(5):
                os.write(writing, f"{writer.append(make_episode(call, number))}\n".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        acknowledged |= set(pipe.read().split())
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status


def _kill_before(call: int) -> None:
    left = call

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                if function in writes:  # a write may be cut anywhere
                    data = args[1] if function is writes[0] else b"".join(args[1])
                    writes[0](args[0], data[: len(data) // 2], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    writes = (os.pwrite, os.pwritev)
    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))


if __name__ == "__main__":
    if sys.argv[1] == "sweep":
        sweep(Path(sys.argv[2]))
    else:
        write(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

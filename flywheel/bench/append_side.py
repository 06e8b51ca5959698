"""Our side of the append benchmark, and the disk's: one process that appends when it is told to.

Arguments are a folder and what to do. Reads one number of seconds per line from standard input, appends episodes with two
cameras for so long, and answers with a line of episodes per second. ``png``, ``jpeg`` and ``raw`` append to a store, durably;
``file`` writes a file of an episode's raw bytes and syncs it. ``watch`` reads the number of an episode instead, waits until
it can read it from the store, and answers with the time on the system's monotonic clock.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import cast

from flywheel.bench.cameras import picture_episodes, picture_schema
from flywheel.core.episode import Episode
from flywheel.datasets.codec import encode_episode
from flywheel.datasets.schema import Pictures
from flywheel.datasets.store import EpisodeStore

_MOST = 32
"""Episodes in a burst: 270 MB raw, so that neither the disk nor the page cache is filled by the fastest."""


def main(folder: Path, kind: str) -> None:
    """Serve until standard input closes."""
    if kind == "watch":
        watch(EpisodeStore.open(folder))
    elif kind == "file":
        payload = encode_episode(next(picture_episodes()), picture_schema("raw"))
        serve(lambda number: _write_file(folder / f"file-{os.getpid()}-{number}", payload))
        for path in folder.glob(f"file-{os.getpid()}-*"):
            path.unlink()
    else:
        template = next(picture_episodes())
        with open_store(folder, kind).writer() as writer:
            serve(lambda number: writer.append(named(template, f"{os.getpid()}-{number}")))


def open_store(folder: Path, kind: str) -> EpisodeStore:
    """The store that keeps pictures in one way; any number of processes may have it."""
    return EpisodeStore.create(folder, f"append_{kind}", picture_schema(cast(Pictures, kind)))


def named(template: Episode, name: str) -> Episode:
    """The same episode as another one."""
    return replace(template, metadata=replace(template.metadata, episode_id=name))


def serve(append: Callable[[int], object]) -> None:
    """Bursts on command; the first append warms up."""
    numbers = count()
    append(next(numbers))
    for line in sys.stdin:
        start, done = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < float(line) and done < _MOST:
            append(next(numbers))
            done += 1
        print(done / elapsed, flush=True)


def watch(store: EpisodeStore) -> None:
    """Wait for the episodes whose numbers are asked for."""
    for line in sys.stdin:
        name = f"seen-{int(float(line))}"
        while not store.has(name):
            time.sleep(0.0005)
        store.read(name)
        print(time.monotonic(), flush=True)


def _write_file(path: Path, payload: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(descriptor, payload)
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

"""S7: a disk that is full at any byte: a sentence, everything acknowledged readable meanwhile, and on it goes with more room."""

from __future__ import annotations

import os
import resource
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

from flywheel.bench.durability.episodes import SCHEMA, check_content, make_episode
from flywheel.bench.durability.sweep import check_store
from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep.compact import compact

FULL_DISK = "The disk is full"


def fill(folder: Path, capacities: range) -> int:
    """Append and compact with no file allowed beyond so many bytes, for every capacity; returns how many refused something.

    The limit is the process's own (RLIMIT_FSIZE), which fails like a full disk does, in the middle of whichever write.
    """
    refused = 0
    for capacity in capacities:
        store = EpisodeStore.create(folder / f"{capacity}", "crash", SCHEMA)
        told, errors = _limited(capacity, store.path)
        check_store(store.path, set(told), sealed=False)
        assert all(FULL_DISK in error for error in errors), errors
        refused += bool(errors)
        with store.writer() as writer:
            writer.append(make_episode("1-1"))
        compact(store)
        check_store(store.path, {*told, "1-1"}, sealed=True)
    return refused


def _limited(capacity: int, path: Path) -> tuple[list[str], list[str]]:
    """In a child: append until ten are stored or refused, seal and compact; returns what was acknowledged, and the refusals."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        warnings.simplefilter("ignore")
        resource.setrlimit(resource.RLIMIT_FSIZE, (capacity, resource.RLIM_INFINITY))
        try:
            _work(path, lambda line: _tell(writing, line))
        except BaseException as error:
            _tell(writing, f"!{error!r}")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    return [line for line in lines if line[0] != "!"], [line for line in lines if line[0] == "!"]


def _tell(descriptor: int, line: str) -> None:
    os.write(descriptor, f"{line}\n".encode())


def _work(path: Path, tell: Callable[[str], None]) -> None:
    store = EpisodeStore.open(path)
    try:
        writer = store.writer(seal_episodes=3)
        for number in range(10):
            try:
                tell(writer.append(make_episode(f"0-{number}")))
            except FlywheelError as error:
                tell(f"!{error}")
        writer.close()
        compact(store)
    except FlywheelError as error:
        tell(f"!{error}")
    check_content(store, [])

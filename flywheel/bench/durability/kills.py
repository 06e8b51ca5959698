"""S1, S2, S4, S6: SIGKILL at random moments of four writers, with compaction and readers running all the while."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from flywheel.bench.durability.episodes import SCHEMA, check_content, make_episode
from flywheel.core.errors import FlywheelError
from flywheel.datasets.layout import Layout
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep.compact import compact
from flywheel.datasets.upkeep.verify import verify

_QUICK = 60
"""Episodes that a life writes as fast as it can; later ones wait, which bounds the store."""


@dataclass
class Child:
    """A forked process and what it says, a line at a time."""

    process: int
    pipe: IO[bytes]

    @classmethod
    def fork(cls, action: Callable[[Callable[[str], None]], None]) -> Child:
        """Run `action` in a child; it is given a function to tell lines with, and ends with status 3 if it raises."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            warnings.simplefilter("ignore")
            try:
                action(lambda line: _tell(writing, line))
            except BaseException:
                traceback.print_exc()
                os._exit(3)
            os._exit(0)
        os.close(writing)
        return cls(child, os.fdopen(reading, "rb"))

    def kill(self) -> list[str]:
        """SIGKILL; returns what it had told. Raises `AssertionError` if it had ended of itself by an error."""
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        with self.pipe:
            told = self.pipe.read().decode().split()
        status = os.waitpid(self.process, 0)[1]
        assert status in (0, signal.SIGKILL), f"a child failed with status {status}"
        return told


def _tell(descriptor: int, line: str) -> None:
    os.write(descriptor, f"{line}\n".encode())


@dataclass
class Outcome:
    """What a run of kills counted."""

    kills: int = 0
    acknowledged: int = 0
    tfds_reads: int = 0
    opens: int = 0
    """How often readers opened the store and read an episode while it was written, killed and compacted."""
    generations: int = 0
    recovery_seconds: list[float] = field(default_factory=list)


def run_kills(
    folder: Path, kills: int, *, lanes: int = 4, seed: int = 0, with_tfds: bool = True, per_store: int = 100
) -> Outcome:
    """Kill all writers and the compaction at a random moment, over and over; after each time, before any recovery, read.

    Plain TFDS reads the whole store and every episode that it lists is compared, our own reader compares everything that was
    acknowledged in that life; at the end of each store everything is compared again. Raises `AssertionError` for whatever is
    lost, doubled, torn or unreadable.
    """
    outcome, rng = Outcome(), random.Random(seed)
    reader = _start_tfds() if with_tfds else None
    for number in itertools.count():
        if outcome.kills >= kills:
            break
        _run_store(folder / f"{number}", min(per_store, kills - outcome.kills), lanes, rng, reader, outcome)
    if reader is not None and reader.stdin is not None:
        reader.stdin.close()
        reader.wait()
    return outcome


def _run_store(
    root: Path, kills: int, lanes: int, rng: random.Random, reader: subprocess.Popen[str] | None, outcome: Outcome
) -> None:
    store = EpisodeStore.create(root, "crash", SCHEMA)
    path, acknowledged, killed = store.path, [0] * lanes, 0
    readers = [Child.fork(lambda tell, seed=seed: _read(path, seed, tell)) for seed in (1, 2)]  # type: ignore[misc]
    while killed < kills:
        children = [
            Child.fork(lambda tell, lane=lane, first=acknowledged[lane]: _write(path, lane, first, tell))  # type: ignore[misc]
            for lane in range(lanes)
        ]
        merger = Child.fork(lambda tell: _compact(path))
        time.sleep(rng.uniform(0, 0.5))
        merger.kill()
        fresh = []
        for lane, child in enumerate(children):
            told = child.kill()
            assert told == [f"{lane}-{acknowledged[lane] + number}" for number in range(len(told))]
            acknowledged[lane] += len(told)
            fresh += told
        killed += lanes
        if reader is not None:
            outcome.tfds_reads += _check_tfds(reader, path)
        check_content(EpisodeStore.open(path), fresh)
    outcome.opens += sum(len(child.kill()) for child in readers)
    outcome.kills += killed
    outcome.acknowledged += sum(acknowledged)
    start = time.perf_counter()
    with store.writer():
        outcome.recovery_seconds.append(time.perf_counter() - start)
    _check_end(store, [f"{lane}-{number}" for lane in range(lanes) for number in range(acknowledged[lane])])
    outcome.generations += Layout(path).read_shards().generation


def _check_end(store: EpisodeStore, acknowledged: list[str]) -> None:
    check_content(store, acknowledged)
    report = verify(store)
    assert report.sound, report.problems
    check_content(store, [row.episode_id for row in store.rows()])


def _write(path: Path, lane: int, first: int, tell: Callable[[str], None]) -> None:
    """Append until killed; the first episode is the one that the last life had not acknowledged, stored or not."""
    with EpisodeStore.open(path).writer(seal_episodes=5) as writer:
        for count in itertools.count():
            tell(writer.append(make_episode(f"{lane}-{first + count}")))
            time.sleep(0.02 if count > _QUICK else 0)


def _compact(path: Path) -> None:
    while True:
        with suppress(FlywheelError):  # nothing is sealed yet
            compact(EpisodeStore.open(path), target_bytes=200_000, grace_seconds=20)
        time.sleep(0.02)


def _read(path: Path, seed: int, tell: Callable[[str], None]) -> None:
    """Open the store over and over; now and then a snapshot of long ago is read whole."""
    rng = random.Random(seed)
    old = EpisodeStore.open(path)
    snapshot = old.snapshot()
    for count in itertools.count():
        store = EpisodeStore.open(path)
        rows = store.rows()
        if rows:
            check_content(store, [rng.choice(rows).episode_id])
        tell(str(len(rows)))
        if count % 50 == 49:
            check_content(old, [entry.episode_id for entry in snapshot.entries[-50:]])
            assert [row.crc for row in old.resolve(snapshot)] == [entry.crc for entry in snapshot.entries]
            old, snapshot = store, store.snapshot()


def read_while_writing(folder: Path, opens: int, *, lanes: int = 4) -> tuple[int, int, float]:
    """S6: open and read the store so often while writers append and compaction runs; returns opens, episodes, seconds."""
    store = EpisodeStore.create(folder, "crash", SCHEMA)
    with store.writer() as writer:
        for number in range(20):
            writer.append(make_episode(f"9-{number}"))
    path, start, done = store.path, time.perf_counter(), 0
    writers = [Child.fork(lambda tell, lane=lane: _write_slowly(path, lane)) for lane in range(lanes)]  # type: ignore[misc]
    merger = Child.fork(lambda tell: _compact(path))
    readers = [Child.fork(lambda tell, seed=seed: _read(path, seed, tell)) for seed in (1, 2)]  # type: ignore[misc]
    while done < opens:
        for child in readers:
            line = child.pipe.readline()
            assert line, "a reader failed"
            done += 1
    for child in [*readers, *writers, merger]:
        child.kill()
    with store.writer():
        pass
    _check_end(store, [])
    return done, len(store.rows()), time.perf_counter() - start


def _write_slowly(path: Path, lane: int) -> None:
    with EpisodeStore.open(path).writer(seal_episodes=5) as writer:
        for number in itertools.count():
            writer.append(make_episode(f"{lane}-{number}"))
            time.sleep(0.5)


def _start_tfds() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flywheel.bench.durability.tfds_reader"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )


def _check_tfds(reader: subprocess.Popen[str], path: Path) -> int:
    """Let plain TFDS read everything that is listed, and compare; 0 if no shard was sealed yet, which TFDS cannot read."""
    if not Layout(path).read_shards().lengths:
        return 0
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write(f"{path}\n")
    reader.stdin.flush()
    answer = json.loads(reader.stdout.readline())
    assert "error" not in answer, answer
    assert answer
    for name, digest in answer.items():
        assert digest == _digest(name), name
    return 1


def _digest(name: str) -> str:
    episode = make_episode(name)
    arrays = (episode.observation["state"], episode.action, episode.reward)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

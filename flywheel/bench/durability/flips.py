"""S5: single-bit flips over everything that a store holds: every one noticed, the thing named, the rest readable."""

from __future__ import annotations

import os
import random
import warnings
from collections import Counter
from pathlib import Path

from flywheel.bench.durability.episodes import SCHEMA, check_content, make_episode
from flywheel.core.errors import FlywheelError
from flywheel.datasets.layout import Layout
from flywheel.datasets.lineage import PolicyRecord
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import Record, scan
from flywheel.datasets.upkeep.verify import verify

_RECORDS = 0.7
"""The part of the flips that hits shards and journals."""


def make_store(root: Path) -> tuple[Path, list[str]]:
    """A store with shards, a dead writer's journal, labels, a snapshot and a policy; returns it and its episodes."""
    store = EpisodeStore.create(root, "crash", SCHEMA)
    names = [f"0-{number}" for number in range(9)]
    for first in (0, 3):
        with store.writer() as writer:
            for name in names[first : first + 3]:
                writer.append(make_episode(name))
    store.label(names[:4], "success", True, by="detector-2", reason="seen again")
    snapshot = store.snapshot()
    store.lineage.keep_snapshot(snapshot)
    store.lineage.keep_policy(PolicyRecord(checkpoint="a" * 32, snapshot=snapshot.hash, algorithm="iql", updates=7))
    child = os.fork()
    if not child:
        writer = store.writer()
        for name in names[6:]:
            writer.append(make_episode(name))
        os._exit(0)
    os.waitpid(child, 0)
    return store.path, names


def flip_bits(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Flip one bit at a time, look, and flip it back; returns how many flips hit each kind of file.

    Raises `AssertionError` for a flip that goes unnoticed, is not named by its file, or costs more than the one record.
    """
    warnings.simplefilter("ignore")
    path, names = make_store(folder)
    rng, done = random.Random(seed), Counter[str]()
    records = [*sorted(path.glob("*.tfrecord-*")), *sorted((path / ".journal").iterdir())]
    meta = path / ".meta"
    lists = [path / "features.json", path / "dataset_info.json", meta / "schema.json", meta / "schema.copy.json"]
    lists += [meta / "labels.jsonl", *sorted((meta / "snapshots").iterdir()), *sorted((meta / "policies").iterdir())]
    for _ in range(count):
        file = rng.choice(records if rng.random() < _RECORDS else [*lists, meta / "index.sqlite"])
        content = file.read_bytes()
        bit = rng.randrange(8 * _held(file, file in records))
        _write(file, content[: bit // 8] + bytes((content[bit // 8] ^ 1 << bit % 8,)) + content[bit // 8 + 1 :])
        try:
            _look(path, file, names, file in records)
        except AssertionError as error:
            raise AssertionError(f"bit {bit} of {file.name}: {error}") from None
        finally:
            _write(file, content)
        done["shards and journals" if file in records else file.name if file in lists[:5] else file.parent.name] += 1
    check_content(EpisodeStore.open(path), names)
    assert verify(EpisodeStore.open(path)).sound
    return done


def _held(file: Path, holds_records: bool) -> int:
    """Bytes that hold something: what a writer has made ahead of its records holds nothing to be lost."""
    if not holds_records:
        return file.stat().st_size
    with file.open("rb") as opened:
        return max(item.end for item in scan(opened.fileno()) if isinstance(item, Record))


def _write(file: Path, content: bytes) -> None:
    """In place: a disk that flips a bit makes no new file."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.pwrite(descriptor, content, 0)
    finally:
        os.close(descriptor)


def _look(path: Path, file: Path, names: list[str], holds_records: bool) -> None:
    relative = file.relative_to(path).as_posix()
    if file == Layout(path).index:
        # It is derived: what counts is that no row is ever wrong.
        rows = EpisodeStore.open(path).rows()
        assert sorted(row.episode_id for row in rows) == sorted(names)
        assert all(row.seed == int(row.episode_id[2:]) and row.task == "crash" for row in rows)
        return
    try:
        store = EpisodeStore.open(path)
    except FlywheelError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert file.name in refusal, refusal
        return
    report = verify(store)
    assert not report.sound, "not noticed"
    assert all(problem.file == relative for problem in report.problems), report.problems
    assert report.episodes == len(names) - holds_records, report.episodes

"""S3, first half: a kill before every single call of appending, sealing, recovering, compacting and purging."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from flywheel.bench.durability.calls import killed_before
from flywheel.bench.durability.episodes import SCHEMA, check_content, check_listing, make_episode
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import Record, scan
from flywheel.datasets.upkeep.compact import compact, purge
from flywheel.datasets.upkeep.repair import repair
from flywheel.datasets.upkeep.verify import verify

Tell = Callable[[str], None]


def append(path: Path, tell: Tell) -> None:
    """Recover what a dead writer left, append seven episodes, seal three times."""
    with EpisodeStore.open(path).writer(seal_episodes=3) as writer:
        for number in range(7):
            tell(writer.append(make_episode(f"7-{number}")))


def merge(path: Path, tell: Tell) -> None:
    """Compact, remove the old generation, compact what was appended meanwhile."""
    store = EpisodeStore.open(path)
    compact(store, grace_seconds=0)
    append(path, tell)
    compact(store, target_bytes=20_000, grace_seconds=0)


def cleanse(path: Path, tell: Tell) -> None:
    """Purge deleted episodes, old bytes included."""
    purge(EpisodeStore.open(path), grace_seconds=0)


def mend(path: Path, tell: Tell) -> None:
    """Repair a store whose list is gone."""
    repair(path)


OPERATIONS: dict[str, Callable[[Path, Tell], None]] = {"append": append, "compact": merge, "purge": cleanse, "repair": mend}
DELETED = "0-1"


def make_base(root: Path, operation: str) -> tuple[Path, set[str]]:
    """A store of several shards and a dead writer's journal with a torn tail; returns it and what it acknowledged."""
    store = EpisodeStore.create(root, "crash", SCHEMA)
    names = [f"0-{number}" for number in range(12)]
    for first in range(0, 9, 3):
        with store.writer() as writer:
            for name in names[first : first + 3]:
                writer.append(make_episode(name))
    child = os.fork()
    if not child:
        writer = store.writer()
        for name in names[9:]:
            writer.append(make_episode(name))
        os._exit(0)
    os.waitpid(child, 0)
    (journal,) = (store.path / ".journal").iterdir()
    with journal.open("r+b") as file:
        file.seek(max(item.end for item in scan(file.fileno()) if isinstance(item, Record)))
        file.write(b"\x10\x00\x00\x00\x00\x00\x00\x00torn")
    if operation == "purge":
        store.label([DELETED], "deleted", True, by="test")
    if operation == "repair":
        (store.path / "dataset_info.json").unlink()
    return store.path, set(names)


def sweep(folder: Path, operation: str) -> int:
    """Kill the operation before its first call, before its second, and so on until it lives; returns the number of kills.

    After every kill, and before any recovery, the store is read; then the operation is run to its end and everything compared.
    Raises `AssertionError` for anything that is lost, doubled, torn or unreadable.
    """
    base, stored = make_base(folder / "base", operation)
    run, call = OPERATIONS[operation], 0
    while True:
        call += 1
        path = folder / f"{call}" / "1.0.0"
        shutil.copytree(base, path)
        killed, told = killed_before(call, lambda tell, path=path: run(path, tell))  # type: ignore[misc]
        expected = {*stored, *told} - ({DELETED} if operation == "purge" else set())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if operation != "repair" or (path / "dataset_info.json").exists():
                check_store(path, expected, sealed=False)
            run(path, lambda name: None)
            check_store(path, expected, sealed=True)
        shutil.rmtree(path.parent)
        if not killed:
            return call - 1


def check_store(path: Path, expected: set[str], *, sealed: bool) -> None:
    """Raise `AssertionError` unless a store is sound and holds these episodes, and, once `sealed`, TFDS reads them all."""
    listed = check_listing(path)
    store = EpisodeStore.open(path)
    check_content(store, sorted(expected))
    report = verify(store)
    assert report.sound, report.problems
    if sealed:
        with store.writer():
            pass
        listed = check_listing(path)
        assert expected <= set(listed), expected - set(listed)

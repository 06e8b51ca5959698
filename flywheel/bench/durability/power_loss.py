"""S3, second half: power loss. Every call is written down, and every legal state of the disk after a crash is built and read.

What a disk may hold after a power loss, as in ALICE (OSDI 2014) and CrashMonkey (OSDI 2018), in miniature: writes to a file
since its last fsync may each be there whole, half, in some sectors, as zeros, or not at all; names that were made, replaced or
removed since their folder's last fsync may each be so or not; both in any combination. That is less than ext4 and XFS promise.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flywheel.bench.durability.calls import stepping
from flywheel.bench.durability.disk import DERIVED, FOLDER, SECTORS, WAYS, Change, Disk
from flywheel.bench.durability.sweep import DELETED, OPERATIONS, check_store, make_base
from flywheel.datasets.store import EpisodeStore

_EXHAUSTIVE = 6
"""Up to so many unsynced changes, every combination is tried; beyond, each alone, each missing, and some drawn by chance."""


class Recorder:
    """Writes down every change under a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before, self._numbers = Disk.of(root)
        self.changes: list[Change] = []
        self._fresh = itertools.count(len(self._numbers))

    @contextmanager
    def recording(self) -> Iterator[Callable[[str], None]]:
        """Record while it is open; gives the function to acknowledge with."""
        with stepping(self._before):
            yield lambda name: self.changes.append(Change("told", text=name))

    def _before(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        record = getattr(self, f"_{name}", None)
        if record is not None:
            record(*args)

    def _open(self, path: Any, flags: int, mode: int = 0o777) -> None:
        relative = self._relative(path)
        if relative is None:
            return
        if flags & os.O_CREAT and not os.path.exists(path):
            file = next(self._fresh)
            self._pending_inode = (os.fspath(path), file)
            self._name(relative, file)
        elif flags & os.O_TRUNC:
            self.changes.append(Change("size", file=self._file(path)))

    def _name(self, relative: str, file: int | None) -> None:
        self.changes.append(Change("names", folder=os.path.dirname(relative), names=((relative, file),)))

    def _pwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        self._data(descriptor, bytes(data), offset)

    def _pwritev(self, descriptor: int, data: Any, offset: int) -> None:
        self._data(descriptor, b"".join(bytes(piece) for piece in data), offset)

    def _write(self, descriptor: int, data: bytes) -> None:
        self._data(descriptor, bytes(data), os.lseek(descriptor, 0, os.SEEK_CUR))

    def _data(self, descriptor: int, data: bytes, offset: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if self._relative(path) is not None:
            file, overwrites = self._file_of(descriptor), offset < os.fstat(descriptor).st_size
            self.changes.append(Change("data", file=file, offset=offset, data=data, overwrites=overwrites))

    def _ftruncate(self, descriptor: int, size: int) -> None:
        self.changes.append(Change("size", file=self._file_of(descriptor), offset=size))

    def _truncate(self, path: Any, size: int) -> None:
        self.changes.append(Change("size", file=self._file(path), offset=size))

    def _fsync(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")
        relative = self._relative(path)
        if relative is not None and os.path.isdir(path):
            self.changes.append(Change("sync", folder=relative, text="folder"))
        elif relative is not None:
            self.changes.append(Change("sync", file=self._file_of(descriptor)))

    _fdatasync = _fsync

    def _link(self, source: Any, target: Any) -> None:
        self._name(str(self._relative(target)), self._file(source))

    def _unlink(self, path: Any) -> None:
        if os.path.lexists(path) and self._relative(path) is not None:
            self._name(str(self._relative(path)), None)

    def _replace(self, source: Any, target: Any) -> None:
        old, new = str(self._relative(source)), str(self._relative(target))
        self.changes.append(Change("names", folder=os.path.dirname(new), names=((old, None), (new, self._file(source)))))

    _rename = _replace

    def _mkdir(self, path: Any, mode: int = 0o777) -> None:
        if not os.path.exists(path):
            self._name(str(self._relative(path)), FOLDER)

    def _rmdir(self, path: Any) -> None:
        self._name(str(self._relative(path)), None)

    def _relative(self, path: Any) -> str | None:
        try:
            relative = os.path.relpath(os.path.abspath(os.fspath(path)), self.root)
        except TypeError:
            return None
        return None if relative.startswith("..") or relative.endswith(DERIVED) else ("" if relative == "." else relative)

    _pending_inode: tuple[str, int] | None = None

    def _file(self, path: Any) -> int:
        return self._number(os.stat(path).st_ino)

    def _file_of(self, descriptor: int) -> int:
        return self._number(os.fstat(descriptor).st_ino)

    def _number(self, inode: int) -> int:
        self._settle()
        return self._numbers[inode]

    def _settle(self) -> None:
        """A new file has an inode only after the call that made it; an old one of that number is gone by then."""
        if self._pending_inode is not None:
            path, file = self._pending_inode
            self._numbers[os.stat(path).st_ino] = file
            self._pending_inode = None


def crash_states(recorder: Recorder, rng: random.Random, drawn: int = 4) -> Iterator[tuple[Disk, set[str]]]:
    """Every legal state of the disk after a power loss at any moment, each once, with what was acknowledged by then."""
    seen: set[int] = set()
    for stop in range(len(recorder.changes) + 1):
        happened = recorder.changes[:stop]
        told = {change.text for change in happened if change.kind == "told"}
        pending = _pending(happened)
        for choice in _choices(pending, rng, drawn):
            disk = recorder.before.copy()
            for number, change in enumerate(happened):
                how = choice.get(number, "whole") if number in pending else "whole"
                if how != "missing":
                    disk.apply(change, how)
            key = hash((disk.key(), frozenset(told)))
            if key not in seen:
                seen.add(key)
                yield disk, told


def _pending(happened: list[Change]) -> dict[int, Change]:
    """The changes that no sync has made durable."""
    pending: dict[int, Change] = {}
    for number, change in enumerate(happened):
        if change.kind == "sync":
            synced = [key for key, old in pending.items() if _is_synced(old, change)]
            for key in synced:
                del pending[key]
        elif change.kind != "told":
            pending[number] = change
    return pending


def _is_synced(change: Change, sync: Change) -> bool:
    if sync.text == "folder":
        return change.kind == "names" and change.folder == sync.folder
    return change.kind in ("data", "size") and change.file == sync.file


def _choices(pending: dict[int, Change], rng: random.Random, drawn: int) -> Iterator[dict[int, str]]:
    ways = {
        number: [*(WAYS if change.kind == "data" else WAYS[:2]), *(SECTORS if change.overwrites else ())]
        for number, change in pending.items()
    }
    if len(pending) <= _EXHAUSTIVE:
        for combination in itertools.product(*ways.values()):
            yield dict(zip(ways, combination, strict=True))
        return
    yield dict.fromkeys(ways, "whole")
    yield dict.fromkeys(ways, "missing")
    for number in ways:
        yield {number: "missing"}
        yield {other: "missing" for other in ways if other != number}
    for _ in range(drawn * len(ways)):
        yield {number: rng.choice(options) for number, options in ways.items()}


def lose_power(folder: Path, operation: str, seed: int = 0, limit: int = 0) -> int:
    """Record an operation, build every legal crash state, read each, let the next writer recover it, and read it again.

    Returns the number of states. Raises `AssertionError` for a state in which something acknowledged is lost, doubled or torn.
    A `limit` above 0 tries so many, drawn by chance.
    """
    base, stored = make_base(folder / "base", operation)
    recorder = Recorder(base)
    with recorder.recording() as tell:
        OPERATIONS[operation](base, tell)
    states = list(crash_states(recorder, random.Random(seed)))
    if limit and len(states) > limit:
        states = random.Random(seed).sample(states, limit)
    for number, (disk, told) in enumerate(states):
        path = folder / f"{number}" / "1.0.0"
        disk.build(path)
        expected = (stored | told) - ({DELETED} if operation == "purge" else set())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if operation != "repair" or (path / "dataset_info.json").exists():
                check_store(path, expected, sealed=False)
            OPERATIONS[operation](path, lambda name: None)
            check_store(path, expected, sealed=True)
            assert EpisodeStore.open(path).snapshot().entries
        shutil.rmtree(path.parent)
    return len(states)

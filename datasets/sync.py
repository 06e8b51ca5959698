"""Copying a store to another place, an object store for one, as far as it is sealed; done again, it adds what is new.

The order is that of sealing: shards first, what belongs to them next, and dataset_info.json, which lists them, last. So the
copy is a whole store at every moment, for TFDS, for `remote` and after a kill. Nothing is ever removed there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from flywheel.core.errors import FlywheelError
from flywheel.datasets.index import Fingerprint
from flywheel.datasets.layout import Layout, Shards
from flywheel.datasets.places import Place
from flywheel.datasets.sealed_json import TFDS, open_json
from flywheel.datasets.store import EpisodeStore

Progress = Callable[[int, int], None]
"""Called with (bytes copied, bytes in all)."""


@dataclass(frozen=True)
class Synced:
    """What a synchronisation did."""

    shards: int
    """Shards copied now."""
    bytes: int
    """Bytes of them."""
    there: int
    """Shards that were there already."""
    unsealed: int
    """Episodes that are still in a writer's journal, and therefore not copied."""


def sync(store: EpisodeStore, url: str, on_progress: Progress = lambda done, total: None) -> Synced:
    """Copy the sealed part of a store to a folder given by URL (``s3://bucket/lift``, ``sftp://host/lift``, or a local path).

    Raises `FlywheelError` if the place is the store itself, holds another store, or more than this one has; if it cannot be
    reached; and if fsspec or the package that the URL's protocol needs is not installed.
    """
    place, layout = Place.of(url), Layout(store.path)
    info, names = _sealed(layout)
    with place.telling():
        published = _published(place, layout)
        there = {name for name in names if _is_there(place, store.path / name, name, published)}
        missing = [name for name in names if name not in there]
        copied, total = 0, sum((store.path / name).stat().st_size for name in missing)
        on_progress(copied, total)
        for name in missing:
            place.upload(store.path / name, name)
            copied += (store.path / name).stat().st_size
            on_progress(copied, total)
        for name, data in metadata(layout):
            place.write(name, data)
        place.write(layout.info.name, info)
    return Synced(len(missing), copied, len(there), store.info().unsealed)


def _sealed(layout: Layout) -> tuple[bytes, list[str]]:
    """dataset_info.json and the shards that it lists: both of the same moment, while writers go on."""
    while True:
        info, shards = layout.info.read_bytes(), layout.read_shards()
        if layout.info.read_bytes() == info:
            return info, [shards.file_name(number) for number in range(len(shards.lengths))]


def _published(place: Place, layout: Layout) -> set[str]:
    """The shards that the copy lists; raises `FlywheelError` if what is there is no earlier state of this store."""
    if place.is_folder(layout.path):
        raise FlywheelError(f"{place.url} is the store itself; give another folder.")
    schema = layout.schema.relative_to(layout.path).as_posix()
    try:
        listed = Shards.from_json(open_json(place.read(layout.info.name), TFDS))
        same = place.read(schema) == layout.schema.read_bytes()
    except FileNotFoundError:
        return set()
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise FlywheelError(f"{place.url} holds another store or data set than {layout.path}; give a folder of its own.")
    shards, labels = layout.read_shards(), layout.labels
    here = (shards.generation, len(shards.lengths))
    if (listed.generation, len(listed.lengths)) > here or not _follows(place, labels.relative_to(layout.path).as_posix(), labels):
        raise FlywheelError(
            f"{place.url} holds episodes or labels that {layout.path} lacks, as if written there or copied from a later state; "
            "copying would hide them, so give a folder of its own."
        )
    return set(listed.names)


def _follows(place: Place, name: str, log: Path) -> bool:
    """Whether a log has all whole lines of its copy."""
    try:
        copied = place.read(name)
    except FileNotFoundError:
        return True
    ours = log.read_bytes() if log.exists() else b""
    return ours.startswith(copied[: copied.rfind(b"\n") + 1])


def _is_there(place: Place, shard: Path, name: str, published: set[str]) -> bool:
    """Whether a shard has been copied; raises `FlywheelError` if one is listed there with other content: shards never change."""
    ours, size = Fingerprint.of(shard, 0), place.size(name)
    same = ours is not None and ours.size == size and place.read(name, start=-4) == ours.last_crc.to_bytes(4, "little")
    if name in published and not same:
        raise FlywheelError(f"{place.url}/{name} has another content than {shard}; give this store a folder of its own.")
    return same  # what is not listed yet may be the half of an interrupted copy


def metadata(layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Labels, snapshots, policies, schema and index: everything but what is for a person at the machine that wrote it."""
    for path in sorted(layout.schema.parent.rglob("*")):
        private = path.is_relative_to(layout.damaged) or path.name.startswith(".") or path.name.startswith(layout.index.name)
        if path.is_file() and not private:
            yield path.relative_to(layout.path).as_posix(), path.read_bytes()
    if layout.index.is_file():
        yield layout.index.relative_to(layout.path).as_posix(), _index(layout.index)
    yield "features.json", (layout.path / "features.json").read_bytes()


def _index(path: Path) -> bytes:
    """The index as of one moment: its file may be in the middle of another process's transaction."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        return bytes(connection.serialize())

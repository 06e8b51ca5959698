"""Reading a store that lies elsewhere, as `sync` left it there: ``EpisodeStore.open("s3://bucket/lift")``.

The list of shards, the labels and the index are copied to this machine when the store is opened; episodes are fetched when they
are asked for, as byte ranges of their shards. So a snapshot of a few episodes costs those few, and training fetches each episode
once, into its own cache of columns. A store is read as it was when it was opened.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import content_hash
from flywheel.datasets.catalog import Catalog
from flywheel.datasets.index import EpisodeIndex, Fingerprint, IndexRow
from flywheel.datasets.layout import Layout
from flywheel.datasets.places import Place
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamagedError, parse_record

_SCHEMA = ".meta/schema.json"


def open_remote(url: str) -> EpisodeStore:
    """The store at a URL: its version folder, its data set folder, or a root that holds exactly one.

    Raises `FlywheelError` if there is none or more than one, and if the place cannot be reached.
    """
    place = Place.of(url)
    with place.telling():
        found = [name.removesuffix(_SCHEMA).rstrip("/") for name in place.sizes() if name.endswith(_SCHEMA)]
        if len(found) != 1:
            what = f"holds several stores ({', '.join(found)}); give the folder of one" if found else "holds no store"
            raise FlywheelError(f"{url} {what}; 'flywheel store sync' copies one there.")
        return RemoteStore(place.inside(found[0]))


class RemoteStore(EpisodeStore):
    """A store that is only read. `path` is the folder of this machine that has its metadata and, when trained on, its columns."""

    def __init__(self, place: Place) -> None:
        """Copy the metadata of the version folder at a place, and open it."""
        layout, sizes = Layout(_cache_folder(place)), place.sizes()
        for name in filter(_is_metadata, sizes):
            place.download(name, layout.path / name)
        catalog = _RemoteCatalog(place, layout, sizes)
        super().__init__(layout.path, layout.read_schema(), layout.read_shards().name, catalog)
        self._place, self._ends = place, catalog.ends

    def writer(self, *_: object, **__: object) -> NoReturn:
        """Raises `FlywheelError`: a copy is not written."""
        raise FlywheelError(f"{self._place.url} is a copy; write to the store that it was made of, and sync again.")

    def recorder(self, *_: object, **__: object) -> NoReturn:
        """Raises `FlywheelError`: a copy is not recorded into."""
        self.writer()

    def label(self, *_: object, **__: object) -> NoReturn:
        """Raises `FlywheelError`: a copy is not labelled."""
        self.writer()

    def undo(self, *_: object, **__: object) -> NoReturn:
        """Raises `FlywheelError`: a copy is not labelled."""
        self.writer()

    def _read(self, row: IndexRow) -> bytes:
        with self._place.telling():
            data = self._place.read(row.shard, row.offset, self._ends[row.shard, row.offset])
        record = parse_record(data, row.offset)
        if record.crc != row.crc:
            raise DamagedError(f"{self._place.url}/{row.shard}: the record at byte {row.offset} is not {row.episode_id}.")
        return record.payload


class _RemoteCatalog(Catalog):
    """The rows that the copied index has, as far as the shards have the sizes that it was made from."""

    def __init__(self, place: Place, layout: Layout, sizes: dict[str, int]) -> None:
        super().__init__(layout)
        self.ends: dict[tuple[str, int], int] = {}
        """Where what begins at an offset of a shard ends at the latest."""
        self._place, self._sizes = place, sizes
        self._indexed = EpisodeIndex(layout.index).fingerprints()

    def _fingerprint(self, name: str, records: int) -> Fingerprint | None:
        size = self._sizes.get(name)
        if size is None:
            return None
        known = self._indexed.get(name)
        if known is not None and known[:2] == (records, size):
            return known
        return Fingerprint(records, size, int.from_bytes(self._place.read(name, start=-4), "little"))

    def _take_sealed(self, name: str, fingerprint: Fingerprint, rows: list[IndexRow] | None) -> None:
        super()._take_sealed(name, fingerprint, rows)
        begins = sorted(row.offset for row in self._sealed[name][1])
        self.ends |= {(name, begin): end for begin, end in pairwise([*begins, fingerprint.size])}

    def _scan_shard(self, name: str) -> list[IndexRow]:
        """The rows of a shard that the index lacks, which is copied here as long as it takes to read it."""
        path = self._layout.path / name
        self._place.download(name, path)
        try:
            return super()._scan_shard(name)
        finally:
            path.unlink()


def _is_metadata(name: str) -> bool:
    return name.startswith(".meta/") or ("/" not in name and name.endswith(".json"))


def _cache_folder(place: Place) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "flywheel" / "stores" / content_hash(place.url.encode())

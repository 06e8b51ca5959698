"""Where things lie in a store's folder, the lists that name its shards, and the locks that guard them.

features.json, dataset_info.json      what TFDS reads; replaced only by rename
NAME-train.tfrecord-00000 ...         sealed shards, immutable; one that dataset_info.json does not list does not exist
.journal/<pid>-<random>.tfrecord      one open journal per writer, held by flock: a shard in the making
.meta/schema.json, .meta/index.sqlite our schema, and the index (derived)
.meta/labels.jsonl                    what was found out about episodes afterwards
.meta/snapshots/, .meta/policies/     what was trained on, and what came of it
.meta/damaged/                        journals that were damaged, for a person to look at
.lock, .append.lock                   held while a shard is added, and while an episode is checked and written
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.files import fsync_folder, write_atomically
from flywheel.datasets.schema import Schema

VERSION = "1.0.0"
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"
"""Without the number of shards, so that one is added without renaming any other."""
MOST_SHARDS = 99_999
"""From 100,000 on TFDS expects six digits in every shard's name."""
_SPLIT = "train"


@dataclass(frozen=True, slots=True)
class Shards:
    """What dataset_info.json says: how many records each sealed shard holds."""

    name: str
    lengths: tuple[int, ...] = ()
    total_bytes: int = 0

    def file_name(self, number: int) -> str:
        """The name of a shard's file."""
        return f"{self.name}-{_SPLIT}.tfrecord-{number:05d}"

    def add(self, length: int, size: int) -> Shards:
        """The same with one shard more; raises `FlywheelError` when there are as many as TFDS can name."""
        if len(self.lengths) >= MOST_SHARDS:
            raise FlywheelError(f"The store {self.name} has {MOST_SHARDS} shards, the most TFDS can name; start another root.")
        return replace(self, lengths=(*self.lengths, length), total_bytes=self.total_bytes + size)

    def to_json(self) -> dict[str, Any]:
        """The content of dataset_info.json; without a shard there is no split, as TFDS reads no empty one."""
        split = {
            "filepathTemplate": TEMPLATE,
            "name": _SPLIT,
            "numBytes": str(self.total_bytes),
            "shardLengths": [str(length) for length in self.lengths],
        }
        return {"fileFormat": "tfrecord", "name": self.name, "splits": [split] if self.lengths else [], "version": VERSION}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Shards:
        """Read what `to_json` wrote; raises `ValueError` or `KeyError` for anything else."""
        if not data["splits"]:
            return cls(data["name"])
        (split,) = data["splits"]
        shards = cls(data["name"], tuple(int(length) for length in split["shardLengths"]), int(split["numBytes"]))
        if shards.to_json() != data:
            raise ValueError("another layout")
        return shards


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one store."""

    path: Path

    @property
    def journals(self) -> Path:
        """The folder of the writers' journals."""
        return self.path / ".journal"

    @property
    def damaged(self) -> Path:
        """Where damaged journals are kept."""
        return self.path / ".meta" / "damaged"

    @property
    def index(self) -> Path:
        """The SQLite index."""
        return self.path / ".meta" / "index.sqlite"

    @property
    def labels(self) -> Path:
        """The log of labels."""
        return self.path / ".meta" / "labels.jsonl"

    @property
    def snapshots(self) -> Path:
        """The snapshots that were trained on."""
        return self.path / ".meta" / "snapshots"

    @property
    def policies(self) -> Path:
        """Where policies came from that were trained on them."""
        return self.path / ".meta" / "policies"

    @property
    def schema(self) -> Path:
        """Our schema; written last, so that a store with it is a complete one."""
        return self.path / ".meta" / "schema.json"

    @property
    def info(self) -> Path:
        """The list of shards: its replacement is the moment at which a shard begins to exist."""
        return self.path / "dataset_info.json"

    def locked(self) -> AbstractContextManager[None]:
        """Alone in adding shards, creating journals and recovering them."""
        return _locked(self.path / ".lock")

    def appending(self) -> AbstractContextManager[None]:
        """Alone in checking that an episode is new and writing it."""
        return _locked(self.path / ".append.lock")

    def read_shards(self) -> Shards:
        """The sealed shards; raises `FlywheelError` if dataset_info.json is missing or not of our layout."""
        try:
            return Shards.from_json(json.loads(self.info.read_bytes()))
        except FileNotFoundError:
            raise FlywheelError(f"{self.info} is missing; restore it from a copy of the store.") from None
        except (ValueError, KeyError, TypeError):
            raise FlywheelError(
                f"{self.info} is damaged or not Flywheel's; restore it, or read a foreign data set with flywheel.datasets.rlds."
            ) from None

    def write_shards(self, shards: Shards) -> None:
        """Publish the list of shards."""
        _write_json(self.info, shards.to_json())

    def read_schema(self) -> Schema:
        """The schema; raises `FlywheelError` if it is damaged or of a version that is not known here."""
        try:
            return Schema.from_json(json.loads(self.schema.read_bytes()))
        except SpecError:
            raise
        except (ValueError, KeyError, TypeError):
            raise FlywheelError(f"{self.schema} is damaged; restore it from a copy of the store.") from None

    def create(self, name: str, schema: Schema) -> None:
        """Make the store's files, unless another process just has; raises `FlywheelError` if the folder holds something else."""
        for folder in (self.journals, self.schema.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with self.locked():
            if self.schema.exists():
                return
            if self.info.exists() and self.read_shards().lengths:
                raise FlywheelError(f"{self.path} holds a data set that Flywheel did not make; choose another root or name.")
            _write_json(self.path / "features.json", schema.features_json())
            self.write_shards(Shards(name))
            _write_json(self.schema, schema.to_json())
            for folder in (self.path, self.path.parent, self.path.parent.parent):
                fsync_folder(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # Each call opens the file anew, so that two writers in one process exclude each other, too.
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())

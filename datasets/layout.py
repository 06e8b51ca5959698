"""Where things lie in a store's folder, the lists that name its shards, and the locks that guard them.

features.json, dataset_info.json      what TFDS reads; replaced only by rename
NAME-train.tfrecord-00000 ...         sealed shards, immutable; one that dataset_info.json does not list does not exist
gNNNN/NAME-train.tfrecord-00000 ...   the same after NNNN compactions; the generation before stays a while for open readers
.journal/<boot>-<pid>-<random>.tfrecord  one open journal per writer, held by flock: a shard in the making
.meta/schema.json, .meta/index.sqlite our schema, and the index (derived)
.meta/labels.jsonl                    what was found out about episodes afterwards
.meta/snapshots/, .meta/policies/     what was trained on, and what came of it
.meta/schema.copy.json                for repair; the schema is the one thing that cannot be made again from the rest
.meta/damaged/                        damaged bytes, for a person to look at
.meta/compaction.json, .meta/retired/ the plan of a compaction under way, and when each generation was followed by the next
.lock, .append.lock, .compact.lock    held while a shard is added, while an episode is checked and written, while compacting
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.files import fsync_folder, write_atomically
from flywheel.datasets.filesystem import check_writable, refusing
from flywheel.datasets.schema import Schema
from flywheel.datasets.sealed_json import TFDS, open_json, seal_json

VERSION = "1.0.0"
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"
"""Without the number of shards, so that one is added without renaming any other."""
MOST_SHARDS = 99_999
"""From 100,000 on TFDS expects six digits in every shard's name."""
MANY_SHARDS = 5_000
"""From here on TFDS takes long to open a store, and `flywheel store compact` is advised."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""What may name a store; it becomes part of file names."""
_SPLIT = "train"
_GENERATION = re.compile(r"(?:g(\d{4,9})/)?" + re.escape(TEMPLATE))


@dataclass(frozen=True, slots=True)
class Shards:
    """What dataset_info.json says: how many records each sealed shard holds."""

    name: str
    lengths: tuple[int, ...] = ()
    total_bytes: int = 0
    generation: int = 0
    """How often the store was compacted."""

    @property
    def folder(self) -> str:
        """What stands before the shards' names: nothing, or the generation's folder with a slash."""
        return f"g{self.generation:04d}/" if self.generation else ""

    @property
    def names(self) -> list[str]:
        """The files of all shards, relative to the store."""
        return [self.file_name(number) for number in range(len(self.lengths))]

    def file_name(self, number: int) -> str:
        """The name of a shard's file, relative to the store."""
        return f"{self.folder}{self.name}-{_SPLIT}.tfrecord-{number:05d}"

    def add(self, length: int, size: int) -> Shards:
        """The same with one shard more; raises `FlywheelError` when there are as many as TFDS can name."""
        if len(self.lengths) >= MOST_SHARDS:
            raise FlywheelError(
                f"The store {self.name} has {MOST_SHARDS} shards, the most TFDS can name; run 'flywheel store compact' on it."
            )
        return replace(self, lengths=(*self.lengths, length), total_bytes=self.total_bytes + size)

    def to_json(self) -> dict[str, Any]:
        """The content of dataset_info.json; without a shard there is no split, as TFDS reads no empty one."""
        split = {
            "filepathTemplate": self.folder + TEMPLATE,
            "name": _SPLIT,
            "numBytes": str(self.total_bytes),
            "shardLengths": [str(length) for length in self.lengths],
        }
        return {"fileFormat": "tfrecord", "name": self.name, "splits": [split] if self.lengths else [], "version": VERSION}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Shards:
        """Read what `to_json` wrote; raises `ValueError`, `KeyError` or `TypeError` for anything else."""
        shards = cls(data["name"])
        if data["splits"]:
            (split,) = data["splits"]
            found = _GENERATION.fullmatch(split["filepathTemplate"])
            if found is None:
                raise ValueError("another template")
            lengths = tuple(int(length) for length in split["shardLengths"])
            shards = cls(data["name"], lengths, int(split["numBytes"]), int(found[1] or 0))
        sound = NAME.fullmatch(shards.name) and len(shards.lengths) <= MOST_SHARDS and min(shards.lengths, default=1) > 0
        if not sound or shards.to_json() != data:
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
    def claims(self) -> Path:
        """The lock of appending, and which ids are being appended."""
        return self.path / ".append.lock"

    @property
    def unsynced(self) -> Path:
        """The lock of records that are written and not on the disk yet."""
        return self.path / ".sync.lock"

    @property
    def plan(self) -> Path:
        """What the compaction that is under way will make."""
        return self.path / ".meta" / "compaction.json"

    def generation_folder(self, generation: int) -> Path:
        """Where the shards of a generation are."""
        return self.path / Shards("", generation=generation).folder

    def generations(self) -> list[int]:
        """All generations that have files or a folder, listed or not."""
        folders = (path.name[1:] for path in self.path.glob("g[0-9]*"))
        return [0, *sorted(int(digits) for digits in folders if re.fullmatch(r"\d{4,9}", digits) and int(digits))]

    def generation_files(self, generation: int) -> list[Path]:
        """All files of a generation, listed or not."""
        return sorted(self.generation_folder(generation).glob("*.tfrecord-*" if not generation else "*"))

    @property
    def retired(self) -> Path:
        """One empty file per generation that was followed by another, made at that moment."""
        return self.path / ".meta" / "retired"

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
    def schema_copy(self) -> Path:
        """The same again, for repair."""
        return self.path / ".meta" / "schema.copy.json"

    @property
    def features(self) -> Path:
        """What TFDS knows of the schema."""
        return self.path / "features.json"

    @property
    def info(self) -> Path:
        """The list of shards: its replacement is the moment at which a shard begins to exist."""
        return self.path / "dataset_info.json"

    def locked(self) -> AbstractContextManager[None]:
        """Alone in adding shards, creating journals and recovering them; raises `FlywheelError` if the folder is read-only."""
        return _locked(self.path / ".lock")

    @contextmanager
    def compacting(self) -> Iterator[None]:
        """Alone in compacting or repairing; raises `FlywheelError` if another process is at it."""
        try:
            with _locked(self.path / ".compact.lock", fcntl.LOCK_NB):
                yield
        except BlockingIOError:
            raise FlywheelError(f"Another process is compacting or repairing {self.path}; wait until it is done.") from None

    def read_shards(self) -> Shards:
        """The sealed shards; raises `FlywheelError` if dataset_info.json is missing or not of our layout."""
        try:
            return Shards.from_json(open_json(self.info.read_bytes(), TFDS))
        except FileNotFoundError:
            raise FlywheelError(f"{self.info} is missing; 'flywheel store repair' makes it again from the shards.") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise FlywheelError(
                f"{self.info} is damaged or not Flywheel's; mend it with 'flywheel store repair', or read a foreign data set "
                "with flywheel.datasets.rlds."
            ) from None

    def write_shards(self, shards: Shards) -> None:
        """Publish the list of shards."""
        write_atomically(self.info, seal_json(shards.to_json(), TFDS))

    def read_schema(self) -> Schema:
        """The schema; raises `FlywheelError` if it is damaged or of a version that is not known here."""
        return read_schema(self.schema)

    def write_schema(self, schema: Schema) -> None:
        """Write the schema, its copy, and what TFDS reads of it."""
        write_atomically(self.features, features_bytes(schema))
        for path in (self.schema_copy, self.schema):
            write_atomically(path, seal_json(schema.to_json()))

    def create(self, name: str, schema: Schema) -> None:
        """Make the store's files, unless another process just has; raises `FlywheelError` if the folder holds something else."""
        if self.schema.exists():
            return
        with refusing(self.path):
            for folder in (self.journals, self.schema.parent):
                folder.mkdir(parents=True, exist_ok=True)
        check_writable(self.path)
        with self.locked(), refusing(self.path):
            if self.schema.exists():
                return
            if self.info.exists() and self.read_shards().lengths:
                raise FlywheelError(f"{self.path} holds a data set that Flywheel did not make; choose another root or name.")
            self.write_shards(Shards(name))
            self.write_schema(schema)
            for folder in (self.path, self.path.parent, self.path.parent.parent):
                fsync_folder(folder)

    def check_contained(self) -> None:
        """Raise `FlywheelError` if anything in the store is a symbolic link: a hostile one would lead reads and writes astray."""
        folders = [self.path, self.journals, self.schema.parent, self.damaged, self.retired, *self.path.glob("g[0-9]*/")]
        for folder in folders:
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    link = next((entry.path for entry in entries if entry.is_symlink()), None)
                if link is not None:
                    raise FlywheelError(f"{link} is a symbolic link, which no store has; remove it, or copy what it points to.")


def read_schema(path: Path) -> Schema:
    """The schema in a file; raises `FlywheelError` if it is damaged or of a version that is not known here."""
    try:
        data = open_json(path.read_bytes())
        schema = Schema.from_json(data)
        if data.keys() - schema.to_json().keys():
            raise ValueError("a field that no schema has")
        schema.features_json()
        return schema
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FlywheelError(f"{path} is missing or damaged; mend it with 'flywheel store repair'.") from None


def features_bytes(schema: Schema) -> bytes:
    """The content of features.json, byte for byte."""
    return (json.dumps(schema.features_json(), indent=1) + "\n").encode()


@contextmanager
def _locked(path: Path, flags: int = 0) -> Iterator[None]:
    # Each call opens the file anew, so that two writers in one process exclude each other, too.
    with refusing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(descriptor)

"""Making the best of a damaged store: what can be read is kept and listed, what cannot is moved aside, nothing is deleted."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.files import fsync_folder
from flywheel.datasets.catalog import Catalog
from flywheel.datasets.codec import decode_episode
from flywheel.datasets.filesystem import boot_id, check_writable, refusing
from flywheel.datasets.index import index_row
from flywheel.datasets.journal import keep, recover_journal, write_records
from flywheel.datasets.layout import NAME, VERSION, Layout, Shards, features_bytes, read_schema
from flywheel.datasets.lineage import load_policy_record
from flywheel.datasets.snapshot import load_registered
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamagedError, Record, scan
from flywheel.datasets.upkeep.generation import rewrite
from flywheel.datasets.upkeep.plan import Group, Plan
from flywheel.datasets.upkeep.verify import verify

_SHARD = re.compile(r"(?P<name>.+)-train\.tfrecord-(?P<number>\d{5})")
Say = Callable[[str], None]


def repair(path: Path, say: Say = lambda sentence: None) -> EpisodeStore:
    """Mend a store and open it: schema, lists, index and lineage are made again, damaged records and files are moved aside.

    Damaged bytes are kept in .meta/damaged under their file's name; an episode whose record is among them is lost unless a
    person can do something with them. Journals are sealed also where another host began them, so nobody may write elsewhere
    meanwhile; writers and readers on this host go on. `say` is told each thing that is done. Raises `FlywheelError` where
    nothing can be done: neither the schema nor its copy is readable, a record is of another schema, or the disk refuses.
    """
    layout = _find(Path(path))
    layout.check_contained()
    check_writable(layout.path)
    with layout.compacting(), refusing(layout.path):
        _mend_schema(layout, say)
        _mend_list(layout, say)
        _take_over(layout, say)
        store = EpisodeStore.open(layout.path)
        _mend_shards(store, layout, say)
        _mend_index(layout, say)
        _mend_lineage(layout, say)
        _remove_temporary(layout)
    return store


def _find(path: Path) -> Layout:
    candidates = [path, path / VERSION, *sorted(path.glob(f"*/{VERSION}"))]
    found = [folder for folder in candidates if (folder / ".meta").is_dir()]
    if len(found) != 1:
        raise FlywheelError(f"There {'is no store' if not found else 'are several stores'} at {path}; give the folder of one.")
    return Layout(found[0])


def _mend_schema(layout: Layout, say: Say) -> None:
    paths = (layout.schema, layout.schema_copy)
    readable = {}
    for path in paths:
        try:
            readable[path] = read_schema(path)
        except SpecError:
            raise
        except FlywheelError:
            continue
    if not readable:
        raise FlywheelError(f"{layout.schema} and its copy are both damaged; restore one of them from a copy of the store.")
    schema = readable.get(layout.schema) or readable[layout.schema_copy]
    sound = layout.features.exists() and layout.features.read_bytes() == features_bytes(schema)
    if len(readable) == len(paths) and readable[layout.schema_copy].to_json() == schema.to_json() and sound:
        return
    for path in (*paths, layout.features):
        if path.exists() and (path not in readable):
            _keep(layout, path)
    layout.write_schema(schema)
    say("Wrote schema.json, its copy and features.json again.")


def _mend_list(layout: Layout, say: Say) -> None:
    """List again the shards that follow each other from 0 on; episodes that are nowhere else are taken from all other files."""
    try:
        layout.read_shards()
        return
    except FlywheelError:
        pass
    if layout.info.exists():
        _keep(layout, layout.info)
    with layout.locked():
        shards = _rebuilt(layout)
        layout.write_shards(shards)
        others = [path for generation in layout.generations() for path in layout.generation_files(generation)]
        listed = {layout.path / name for name in shards.names}
        say(f"Made dataset_info.json again: {sum(shards.lengths):,} episodes in {len(shards.lengths):,} shards.")
        _adopt(layout, [path for path in others if path not in listed], say)


def _rebuilt(layout: Layout) -> Shards:
    """The longest row of shards with at least one whole record each, in the newest generation that has any."""
    best = Shards(_name(layout))
    for generation in layout.generations():
        shards = Shards(best.name, generation=generation)
        while (path := layout.path / shards.file_name(len(shards.lengths))).exists() and (count := _count(path)):
            shards = shards.add(count, path.stat().st_size)
        best = shards if shards.lengths else best
    return best


def _name(layout: Layout) -> str:
    for generation in layout.generations():
        for path in layout.generation_files(generation):
            found = _SHARD.fullmatch(path.name)
            if found and NAME.fullmatch(found["name"]):
                return found["name"]
    name = layout.path.resolve().parent.name
    if not NAME.fullmatch(name):
        raise FlywheelError(f"{layout.info} is damaged and no shard tells the store's name; put it into a folder NAME/{VERSION}.")
    return name


def _count(path: Path) -> int:
    return sum(1 for _ in _records(path))


def _records(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        yield from (item for item in scan(file.fileno()) if isinstance(item, Record))


def _adopt(layout: Layout, paths: list[Path], say: Say) -> None:
    """Seal the episodes of some files that the store has nowhere else. Call it under the store's lock."""
    catalog = Catalog(layout)
    catalog.refresh()
    known = set(catalog.rows)
    found: dict[str, bytes] = {}
    for path in paths:
        for record in _records(path):
            try:
                episode_id = index_row(record, "").episode_id
            except DamagedError:
                continue
            if episode_id not in known:
                found.setdefault(episode_id, record.payload)
    if found:
        journal = layout.journals / f"{boot_id()}-{os.getpid()}-{secrets.token_hex(8)}.tfrecord"
        write_records(journal, found.values())
        fsync_folder(layout.journals)
        recover_journal(layout, journal)
        say(f"Found {len(found):,} episodes in files that no list named, and sealed them.")


def _take_over(layout: Layout, say: Say) -> None:
    with layout.locked():
        for path in sorted(layout.journals.glob("*.tfrecord")):
            recover_journal(layout, path)
            if not path.exists():
                say(f"Sealed the journal {path.name}, which nobody was writing.")
        shards = layout.read_shards()
        listed = {layout.path / name for name in shards.names}
        strays = [
            path for path in layout.generation_files(shards.generation) if _SHARD.fullmatch(path.name) and path not in listed
        ]
        _adopt(layout, strays, say)
        for path in (path for path in strays if path.exists() and path not in _listed(layout)):
            _keep(layout, path)
            path.unlink()
            say(f"Moved {path.name}, which no list names, to .meta/damaged.")


def _listed(layout: Layout) -> set[Path]:
    return {layout.path / name for name in layout.read_shards().names}


def _mend_shards(store: EpisodeStore, layout: Layout, say: Say) -> None:
    """Write the whole records of damaged shards anew; the damaged file is kept as it is."""
    damaged = {problem.file for problem in verify(store).problems}

    def choose(shards: Shards, linked: frozenset[int]) -> Plan | None:
        groups = tuple(
            Group((number,), copies=name in damaged and number not in linked) for number, name in enumerate(shards.names)
        )
        for group in (group for group in groups if group.copies):
            path = layout.path / shards.file_name(group.shards[0])
            if path.exists():
                _keep(layout, path)
        return Plan(shards, groups, accepts_losses=True) if any(group.copies for group in groups) else None

    catalog = Catalog(layout)
    catalog.refresh()

    def reject(record: Record, shard: str) -> str:
        try:
            decode_episode(record.payload, store.schema).validate(store.schema.observation, store.schema.action)
            row = index_row(record, shard)
        except FlywheelError as error:
            return f"The record at byte {record.offset} is no episode of this store: {error}"
        first = catalog.rows[row.episode_id]
        is_first = (first.shard, first.offset) == (shard, record.offset)
        return "" if is_first else f"The record at byte {record.offset} is the episode {row.episode_id} of {first.shard} again."

    done = rewrite(layout, choose, reject=reject)
    for sentence in done.damaged:
        say(f"Left out and kept in .meta/damaged: {sentence}")


def _mend_index(layout: Layout, say: Say) -> None:
    store = EpisodeStore.open(layout.path)
    if any(problem.file == layout.index.relative_to(layout.path).as_posix() for problem in verify(store).problems):
        layout.index.unlink(missing_ok=True)
        say("Made the index again.")
    catalog = Catalog(layout)
    catalog.refresh()
    catalog.save_index()


def _mend_lineage(layout: Layout, say: Say) -> None:
    checks: list[tuple[Path, Callable[[Path], object]]] = [
        *((path, load_registered) for path in layout.snapshots.glob("*.json")),
        *((path, load_policy_record) for path in layout.policies.glob("*.json")),
    ]
    for path, load in sorted(checks, key=lambda check: check[0]):
        try:
            load(path)
        except SpecError as newer:
            say(f"Left alone: {newer}")
        except FlywheelError:
            _keep(layout, path)
            path.unlink()
            say(f"Moved the damaged {path.relative_to(layout.path)} to .meta/damaged.")


def _remove_temporary(layout: Layout) -> None:
    """What was being written when its writer died; whoever writes such a file here and now holds the lock."""
    with layout.locked():
        for folder in (layout.path, layout.schema.parent, layout.journals, layout.snapshots, layout.policies):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)


def _keep(layout: Layout, path: Path) -> None:
    name = path.relative_to(layout.path).as_posix().replace("/", "-")
    number = sum(1 for _ in layout.damaged.glob(f"{name}*")) if layout.damaged.is_dir() else 0
    keep(path, layout.damaged / (f"{name}~{number}" if number else name))

"""Reading everything that a store holds, to find what is damaged. Writes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.datasets.codec import decode_episode
from flywheel.datasets.index import EpisodeIndex, Fingerprint, IndexRow, index_row
from flywheel.datasets.labels import parse_label, scan_labels
from flywheel.datasets.layout import Layout, Shards, features_bytes, read_schema
from flywheel.datasets.lineage import load_policy_record
from flywheel.datasets.recording.spill import abandoned_spills
from flywheel.datasets.schema import Schema
from flywheel.datasets.snapshot import load_registered
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import Damage, scan

Progress = Callable[[int, int], None]
"""Called with (files read, files in all)."""


class Problem(NamedTuple):
    """Something that is wrong, and where."""

    file: str
    """Relative to the store."""
    what: str


@dataclass
class Report:
    """What `verify` found."""

    episodes: int = 0
    shards: int = 0
    journals: int = 0
    problems: list[Problem] = field(default_factory=list)
    """Data or metadata that are damaged; `flywheel store repair` makes the best of them."""
    leftovers: list[Problem] = field(default_factory=list)
    """What a kill, a compaction or a repair has left behind: harmless, and taken care of in time."""

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems


def verify(store: EpisodeStore, on_progress: Progress = lambda done, total: None) -> Report:
    """Check every record and its CRCs, shard, journal, index row, label, snapshot, policy and list, and find every orphan.

    Raises `FlywheelError` if dataset_info.json cannot be read at all.
    """
    report, layout = Report(), Layout(store.path)
    journals = sorted(layout.journals.glob("*.tfrecord"))  # before the list of shards, as one may be sealed meanwhile
    shards = layout.read_shards()
    total = len(shards.names) + len(journals)
    seen: dict[str, str] = {}
    indexed = EpisodeIndex(layout.index).fingerprints()
    for number, (name, expected) in enumerate(zip(shards.names, shards.lengths, strict=True)):
        on_progress(number, total)
        rows = _check_shard(report, store, name, expected, seen)
        if rows is not None and name in indexed:
            report.problems += _check_index(layout, name, indexed[name], rows)
    for number, path in enumerate(journals, start=len(shards.names)):
        on_progress(number, total)
        _check_journal(report, store, path, seen)
    report.problems += [*_check_lists(layout, store.schema), *_check_labels(report, layout, seen), *_check_lineage(layout)]
    report.leftovers += _orphans(layout, shards)
    report.episodes, report.shards, report.journals = len(seen), len(shards.names), len(journals)
    on_progress(total, total)
    return report


def _check_shard(report: Report, store: EpisodeStore, name: str, expected: int, seen: dict[str, str]) -> list[IndexRow] | None:
    """The rows of a sound shard."""
    path = store.path / name
    if not path.is_file():
        report.problems.append(Problem(name, f"The shard is listed with {expected} episodes but missing."))
        return None
    problems, rows, whole = [], [], 0
    for item in _read(path, name, store.schema):
        whole += not isinstance(item, Damage)
        if isinstance(item, IndexRow):
            rows.append(item)
            if item.episode_id in seen:
                problems.append(Problem(name, f"Episode {item.episode_id} is in {seen[item.episode_id]} already."))
            seen.setdefault(item.episode_id, name)
        else:
            problems.append(Problem(name, item.reason if isinstance(item, Damage) else item))
    if whole != expected:
        problems.append(Problem(name, f"It holds {whole} whole records, and {expected} are listed."))
    report.problems += problems
    return None if problems else rows


def _check_journal(report: Report, store: EpisodeStore, path: Path, seen: dict[str, str]) -> None:
    name = path.relative_to(store.path).as_posix()
    try:
        for item in _read(path, name, store.schema):
            if isinstance(item, IndexRow):
                seen[item.episode_id] = name
            elif isinstance(item, Damage) and item.torn:
                what = f"An episode that nobody was told is stored ends it, from byte {item.offset} on."
                report.leftovers += [] if item.blank else [Problem(name, what)]
            else:
                report.problems.append(Problem(name, item.reason if isinstance(item, Damage) else item))
    except FileNotFoundError:
        pass  # sealed meanwhile


def _read(path: Path, name: str, schema: Schema) -> Iterator[IndexRow | Damage | str]:
    """The row of every sound episode in a file, what is damaged, and in words what is whole but no episode of the schema."""
    with path.open("rb") as file:
        for item in scan(file.fileno()):
            if isinstance(item, Damage):
                yield item
                continue
            try:
                decode_episode(item.payload, schema).validate(schema.observation, schema.action)
                yield index_row(item, name)
            except FlywheelError as error:
                yield f"The record at byte {item.offset} is no episode of this store: {error}"


def _check_index(layout: Layout, name: str, indexed: Fingerprint, rows: list[IndexRow]) -> list[Problem]:
    if indexed != Fingerprint.of(layout.path / name, len(rows)):
        return []  # of another shard of this name, and therefore not used
    if EpisodeIndex(layout.index).load({name: indexed}).get(name) == rows:
        return []
    return [Problem(".meta/index.sqlite", f"Its rows of {name} are damaged or wrong; 'flywheel store repair' makes it again.")]


def _check_lists(layout: Layout, schema: Schema) -> Iterator[Problem]:
    try:
        sound = layout.features.read_bytes() == features_bytes(schema)
    except OSError:
        sound = False
    if not sound:
        yield Problem("features.json", "It is missing, damaged or not what the schema says.")
    try:
        sound = read_schema(layout.schema_copy).to_json() == schema.to_json()
    except FlywheelError:
        sound = False
    if not sound:
        yield Problem(".meta/schema.copy.json", "The copy of the schema is missing, damaged or another one.")


def _check_labels(report: Report, layout: Layout, seen: dict[str, str]) -> Iterator[Problem]:
    name = layout.labels.relative_to(layout.path).as_posix()
    try:
        data = layout.labels.read_bytes()
    except FileNotFoundError:
        return
    for item in scan_labels(data):
        if isinstance(item, Damage):
            yield Problem(name, item.reason)
            continue
        try:
            label = parse_label(item)
        except ValueError as error:
            yield Problem(name, f"A label cannot be read: {error}.")
            continue
        if label.episode_id not in seen:
            report.leftovers.append(Problem(name, f"It labels {label.episode_id}, which the store does not hold (any more)."))


def _check_lineage(layout: Layout) -> Iterator[Problem]:
    for path in sorted(layout.snapshots.glob("*.json")):
        try:
            load_registered(path)
        except SpecError as error:  # a newer format, which is no damage
            yield Problem(path.relative_to(layout.path).as_posix(), f"The snapshot cannot be checked: {error}")
        except FlywheelError:
            yield Problem(path.relative_to(layout.path).as_posix(), "The snapshot is damaged, or not the one of its name.")
    for path in sorted(layout.policies.glob("*.json")):
        try:
            load_policy_record(path)
        except FlywheelError:
            yield Problem(path.relative_to(layout.path).as_posix(), "The record of a policy is damaged.")


def _orphans(layout: Layout, shards: Shards) -> Iterator[Problem]:
    listed = set(shards.names)
    for generation in layout.generations():
        names = [path.relative_to(layout.path).as_posix() for path in layout.generation_files(generation)]
        where = layout.generation_folder(generation).name if generation else shards.name
        if generation < shards.generation and names:
            yield Problem(
                where, f"{len(names)} shards of an old generation, kept for its readers; a later compaction removes them."
            )
        elif generation > shards.generation:
            yield Problem(where, "A compaction that was not ended; the next one goes on with it.")
        else:
            yield from (
                Problem(name, "No list names this shard; the next one replaces it.") for name in names if name not in listed
            )
    folders = (layout.path, layout.schema.parent, layout.journals, layout.snapshots, layout.policies)
    for path in sorted(path for folder in folders for path in folder.glob(".*.tmp")):
        yield Problem(os.path.relpath(path, layout.path), "A file that was being written when its writer died.")
    for path in abandoned_spills(layout.journals):
        yield Problem(os.path.relpath(path, layout.path), "Steps of a recording that was cut off; the next writer stores them.")
    for path in sorted(layout.damaged.glob("*")):
        yield Problem(os.path.relpath(path, layout.path), "Damaged bytes, kept for a person to look at.")

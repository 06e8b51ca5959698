"""Reading everything that a store holds, to find what is damaged. Writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from flywheel.core.errors import FlywheelError
from flywheel.datasets.codec import decode_episode
from flywheel.datasets.index import EpisodeIndex, Fingerprint, IndexRow, index_row
from flywheel.datasets.layout import Layout
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import Damage, Record, scan

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
    """Data or metadata that are damaged."""
    leftovers: list[Problem] = field(default_factory=list)
    """What a kill has left behind: harmless, and taken care of when the next writer opens."""

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems


def verify(store: EpisodeStore, on_progress: Progress = lambda done, total: None) -> Report:
    """Check every CRC and record of shards and journals, the shards' lengths, the index and TFDS's files.

    Raises `FlywheelError` if dataset_info.json cannot be read at all.
    """
    report, layout = Report(), Layout(store.path)
    journals = sorted(layout.journals.glob("*.tfrecord"))  # before the list of shards, as one may be sealed meanwhile
    shards = layout.read_shards()
    names = [shards.file_name(number) for number in range(len(shards.lengths))]
    indexed = _indexed(layout, dict(zip(names, shards.lengths, strict=True)))
    seen: dict[str, str] = {}
    for number, name in enumerate(names):
        on_progress(number, len(names) + len(journals))
        rows = _check_shard(report, store, name, shards.lengths[number])
        for row in rows:
            if row.episode_id in seen:
                report.problems.append(Problem(name, f"Episode {row.episode_id} is in {seen[row.episode_id]} already."))
            seen.setdefault(row.episode_id, name)
        if indexed.get(name, rows) != rows:
            report.problems.append(Problem(name, "The index says something else; remove .meta/index.sqlite, it is made again."))
    for number, path in enumerate(journals, start=len(names)):
        on_progress(number, len(names) + len(journals))
        seen |= {row.episode_id: row.shard for row in _check_journal(report, store, path)}
    _check_features(report, store, layout)
    report.leftovers += _orphans(layout, set(names))
    report.episodes, report.shards, report.journals = len(seen), len(names), len(journals)
    on_progress(len(names) + len(journals), len(names) + len(journals))
    return report


def _check_shard(report: Report, store: EpisodeStore, name: str, expected: int) -> list[IndexRow]:
    path = store.path / name
    if not path.is_file():
        report.problems.append(Problem(name, f"The shard is listed with {expected} episodes but missing."))
        return []
    items = _items(path)
    records = [item for item in items if isinstance(item, Record)]
    report.problems += [Problem(name, item.reason) for item in items if isinstance(item, Damage)]
    if len(records) != expected:
        report.problems.append(Problem(name, f"It holds {len(records)} whole records, and {expected} are listed."))
    return list(_rows(report, store, name, records))


def _check_journal(report: Report, store: EpisodeStore, path: Path) -> list[IndexRow]:
    name = path.relative_to(store.path).as_posix()
    try:
        items = _items(path)
    except FileNotFoundError:
        return []  # sealed meanwhile
    if items and isinstance(items[-1], Damage):
        torn = items.pop()
        report.leftovers.append(Problem(name, f"An episode that nobody was told is stored ends it, from byte {torn.offset} on."))
    report.problems += [Problem(name, item.reason) for item in items if isinstance(item, Damage)]
    return list(_rows(report, store, name, [item for item in items if isinstance(item, Record)]))


def _items(path: Path) -> list[Record | Damage]:
    with path.open("rb") as file:
        return list(scan(file.fileno()))


def _rows(report: Report, store: EpisodeStore, name: str, records: list[Record]) -> Iterator[IndexRow]:
    for record in records:
        try:
            decode_episode(record.payload, store.schema).validate(store.schema.observation, store.schema.action)
            yield index_row(record, name)
        except FlywheelError as error:  # damaged, or not of the schema
            report.problems.append(Problem(name, f"The record at byte {record.offset} is no episode of this store: {error}"))


def _indexed(layout: Layout, lengths: dict[str, int]) -> dict[str, list[IndexRow]]:
    found = {name: Fingerprint.of(layout.path / name, length) for name, length in lengths.items()}
    return EpisodeIndex(layout.index).load({name: mark for name, mark in found.items() if mark is not None})


def _check_features(report: Report, store: EpisodeStore, layout: Layout) -> None:
    try:
        features = json.loads((layout.path / "features.json").read_bytes())
    except (OSError, ValueError):
        features = None
    if features != store.schema.features_json():
        report.problems.append(Problem("features.json", "It is missing, damaged or not what the schema says."))


def _orphans(layout: Layout, listed: set[str]) -> Iterator[Problem]:
    for path in sorted(layout.path.glob("*.tfrecord-*")):
        if path.name not in listed:
            yield Problem(path.name, "No list names this shard; the next one replaces it.")
    for path in sorted([*layout.path.glob(".*.tmp"), *layout.path.glob(".meta/.*.tmp"), *layout.journals.glob(".*.tmp")]):
        yield Problem(path.relative_to(layout.path).as_posix(), "A file that was being written when its writer died.")
    for path in sorted(layout.damaged.glob("*")):
        yield Problem(path.relative_to(layout.path).as_posix(), "A damaged journal, kept for a person to look at.")

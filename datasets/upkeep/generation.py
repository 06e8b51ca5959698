"""Writing a store's shards anew, as the next generation, while others append and read.

A plan says which shards of the generation before go into each shard of the next: a large one is linked, small ones are copied
one behind the other. Copies are made without a lock, as hidden parts in the next generation's folder. Then, under the store's
lock, everything is linked to its final name, shards that were sealed meanwhile included, and the replacement of
dataset_info.json is the commit. Readers that have the old generation open, plain TFDS included, go on in it.

A kill leaves the plan and the parts that were done; the next call goes on from there. No record is ever only in the new
generation before the commit, and no shard that a reader may know is touched.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from flywheel.core.errors import FlywheelError
from flywheel.core.files import fsync_folder, write_atomically
from flywheel.datasets.catalog import Catalog
from flywheel.datasets.filesystem import refusing
from flywheel.datasets.index import EpisodeIndex, Fingerprint, IndexRow, Shard, index_row
from flywheel.datasets.journal import recover, write_records
from flywheel.datasets.layout import Layout, Shards
from flywheel.datasets.tfrecord import Damage, DamagedError, DamageWarning, Record, scan
from flywheel.datasets.upkeep.plan import Plan, load_plan, save_plan
from flywheel.datasets.upkeep.retire import mark_retired

Progress = Callable[[int, int], None]
"""Called with (shards done, shards in all)."""
Reject = Callable[[Record, str], str]


@dataclass
class Rewrite:
    """What was done."""

    generation: int
    """The generation that is listed now."""
    before: int
    """The number of shards before."""
    after: int
    copied: int = 0
    """Bytes that were copied; the rest was linked."""
    dropped: int = 0
    """Episodes that were left out on purpose."""
    damaged: list[str] = field(default_factory=list)
    """What could not be read, a sentence each; its bytes are kept in .meta/damaged."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A shard of the next generation: where its bytes are, and what it holds."""

    source: Path
    rows: list[IndexRow]
    records: int


def rewrite(
    layout: Layout,
    choose: Callable[[Shards, frozenset[int]], Plan | None],
    confirm: Callable[[], None] = lambda: None,
    reject: Reject = lambda record, shard: "",
    on_progress: Progress = lambda done, total: None,
    *,
    resumes: bool = False,
) -> Rewrite:
    """Write the next generation as `choose` plans it; call it under `Layout.compacting`.

    Args:
        layout: The store.
        choose: Given the shards, and the numbers of those that must be linked, returns the plan, or None for nothing to do.
        confirm: Called under the store's lock just before the commit; whatever it raises undoes everything.
        reject: Given a whole record that is copied and its shard, says why it is set aside like a damaged one; empty if not.
        on_progress: Called with (shards done, shards in all).
        resumes: Whether to go on with the plan that a kill has left instead: right for another compaction alone.

    Raises `FlywheelError` where the disk refuses, where a shard is missing or cut off and the plan does not accept that, and
    where nothing would be left. The store is as it was then.
    """
    with refusing(layout.path):
        _tidy(layout)
        shards, linked = _stand(layout)
        plan = load_plan(layout.plan)
        if plan is None or not resumes or not plan.fits(shards):
            clear(layout)
            plan = choose(shards, linked)
            if plan is None:
                return Rewrite(shards.generation, len(shards.lengths), len(shards.lengths))
            save_plan(layout.plan, plan)
        layout.generation_folder(plan.generation).mkdir(exist_ok=True)
        fsync_folder(layout.path)
        done = Rewrite(plan.generation, len(shards.lengths), 0)
        made = list(_make(layout, plan, done, reject, on_progress))
        if not made:
            clear(layout)
            raise FlywheelError(f"Nothing would be left of {layout.path}; remove the folder if that is what you want.")
        _commit(layout, plan, made, done, confirm)
        layout.plan.unlink()
        _tidy(layout)
    return done


def _stand(layout: Layout) -> tuple[Shards, frozenset[int]]:
    """The shards, after recovery; and which of them are a living writer's journal, too, whom only the file tells so."""
    with layout.locked():
        recover(layout)
        # A journal's name that a power loss brings back is known by its shard's file, and a copy is another file.
        fsync_folder(layout.journals)
        shards = layout.read_shards()
        journals = set()
        for path in layout.journals.glob("*.tfrecord"):
            with suppress(FileNotFoundError):
                journals.add(path.stat().st_ino)
        names = [layout.path / name for name in shards.names]
        linked = (number for number, path in enumerate(names) if path.exists() and path.stat().st_ino in journals)
        return shards, frozenset(linked)


def clear(layout: Layout) -> None:
    """Forget a plan that does not fit any more, and the parts and names that nobody lists."""
    generation = layout.read_shards().generation
    layout.plan.unlink(missing_ok=True)
    for unlisted in layout.generations():
        if unlisted > generation:
            for path in layout.generation_files(unlisted):
                path.unlink()
            layout.generation_folder(unlisted).rmdir()


def _make(layout: Layout, plan: Plan, done: Rewrite, reject: Reject, on_progress: Progress) -> Iterator[_Made]:
    """The shards of the next generation; those that would be empty are left out."""
    catalog = Catalog(layout)
    catalog.refresh()
    sealed = catalog.sealed
    for number, group in enumerate(plan.groups):
        on_progress(number, len(plan.groups))
        names = [plan.source.file_name(shard) for shard in group.shards]
        if not group.copies:
            yield _linked(layout, sealed, names[0])
            continue
        part = layout.generation_folder(plan.generation) / f".part-{number:05d}"
        if not part.exists():
            write_records(part, _payloads(layout, plan, group.shards, done, reject))
            done.copied += part.stat().st_size
        made = _read_part(part)
        if made.records:
            yield made
    on_progress(len(plan.groups), len(plan.groups))


def _linked(layout: Layout, sealed: Mapping[str, Shard], name: str) -> _Made:
    if name not in sealed:
        raise FlywheelError(_missing(layout.path / name))
    fingerprint, rows = sealed[name]
    return _Made(layout.path / name, list(rows), fingerprint.records)


def _missing(path: Path) -> str:
    return f"{path} is listed but missing; restore it from a copy, or go on without: 'flywheel store repair'."


def _payloads(layout: Layout, plan: Plan, numbers: tuple[int, ...], done: Rewrite, reject: Reject) -> Iterator[bytes]:
    for number in numbers:
        path, expected = layout.path / plan.source.file_name(number), plan.source.lengths[number]
        found = damaged = 0
        for item in _items(path, plan.accepts_losses):
            if isinstance(item, Damage):
                damaged += 1
                _set_aside(layout, path, item, done)
                continue
            found += 1
            if reason := reject(item, plan.source.file_name(number)):
                _set_aside(layout, path, Damage(item.offset, item.end, reason), done)
            elif _is_dropped(item, plan.drop):
                done.dropped += 1
            else:
                yield item.payload
        if found < expected and not damaged:
            done.damaged.append(f"{path} holds {found} whole records, and {expected} are listed.")
            if not plan.accepts_losses:
                raise FlywheelError(f"{done.damaged[-1]} Restore it from a copy, or go on without: 'flywheel store repair'.")


def _items(path: Path, may_be_missing: bool) -> Iterator[Record | Damage]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        if may_be_missing:
            return
        raise FlywheelError(_missing(path)) from None
    try:
        yield from scan(descriptor)
    finally:
        os.close(descriptor)


def _is_dropped(record: Record, drop: frozenset[str]) -> bool:
    if not drop:
        return False
    with suppress(DamagedError):  # a record that is no episode is carried along as it is
        return index_row(record, "").episode_id in drop
    return False


def _set_aside(layout: Layout, path: Path, damage: Damage, done: Rewrite) -> None:
    name = f"{path.relative_to(layout.path).as_posix().replace('/', '-')}-{damage.offset}"
    with path.open("rb") as file:
        file.seek(damage.offset)
        write_atomically(layout.damaged / name, file.read(damage.end - damage.offset))
    fsync_folder(layout.damaged.parent)
    done.damaged.append(f"{path}: {damage.reason}")
    warnings.warn(f"{path}: {damage.reason} Its bytes are kept as {layout.damaged / name}.", DamageWarning, stacklevel=2)


def _read_part(part: Path) -> _Made:
    """A finished part, read back once more: what is on the disk is what was meant."""
    rows, records = [], 0
    for item in _items(part, may_be_missing=False):
        if isinstance(item, Damage):
            part.unlink()
            raise FlywheelError(f"{part} was not written as it should be ({item.reason}); check the disk and run it again.")
        records += 1
        with suppress(DamagedError):
            rows.append(index_row(item, ""))
    return _Made(part, rows, records)


def _commit(layout: Layout, plan: Plan, made: list[_Made], done: Rewrite, confirm: Callable[[], None]) -> None:
    following = Shards(plan.source.name, generation=plan.generation)
    # Readers look shards up in the index; without it, each of them would read the whole store again.
    EpisodeIndex(layout.index).save(_indexed(following, made))
    with layout.locked():
        recover(layout)
        try:
            confirm()
        except BaseException:
            clear(layout)
            raise
        late = _sealed_meanwhile(layout, plan)
        made = [*made, *late]
        done.before, done.after = len(layout.read_shards().lengths), len(made)
        for number, shard in enumerate(made):
            name = layout.path / following.file_name(number)
            name.unlink(missing_ok=True)
            os.link(shard.source, name)
            following = following.add(shard.records, shard.source.stat().st_size)
        fsync_folder(layout.generation_folder(plan.generation))
        EpisodeIndex(layout.index).save(_indexed(following, made, len(made) - len(late)))
        layout.write_shards(following)


def _sealed_meanwhile(layout: Layout, plan: Plan) -> list[_Made]:
    catalog = Catalog(layout)
    catalog.refresh()
    sealed, first = catalog.sealed, len(plan.source.lengths)
    return [_linked(layout, sealed, name) for name in catalog.shards.names[first:]]


def _indexed(shards: Shards, made: list[_Made], first: int = 0) -> dict[str, Shard]:
    found: dict[str, Shard] = {}
    for number, shard in enumerate(made[first:], first):
        name = shards.file_name(number)
        fingerprint = Fingerprint.of(shard.source, shard.records)
        if fingerprint is not None:
            found[name] = (fingerprint, [replace(row, shard=name) for row in shard.rows])
    return found


def _tidy(layout: Layout) -> None:
    """What is to be done after a commit; where a kill prevented it, the next call does it."""
    mark_retired(layout)
    for part in layout.generation_folder(layout.read_shards().generation).glob(".part-*"):
        part.unlink()

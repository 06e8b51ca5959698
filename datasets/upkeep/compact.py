"""Small shards into large ones, and deleted episodes off the disk, while any number of processes write and read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flywheel.core.errors import FlywheelError
from flywheel.datasets.catalog import Catalog
from flywheel.datasets.filesystem import check_writable
from flywheel.datasets.layout import Layout, Shards
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep.generation import Progress, Rewrite, rewrite
from flywheel.datasets.upkeep.plan import Group, Plan, merge_groups
from flywheel.datasets.upkeep.retire import remove_retired

TARGET_BYTES = 256 << 20
GRACE_SECONDS = 86_400.0
"""How long an old generation stays for the readers that have it open: a day, in which most training runs end."""
_MOST = 1_000
"""Shards are made larger than asked for rather than much more numerous: at most four times as many come out."""


@dataclass(frozen=True)
class Compaction:
    """What was done, and which old generations were removed from the disk."""

    rewrite: Rewrite
    removed: tuple[int, ...]


def compact(
    store: EpisodeStore,
    *,
    target_bytes: int = TARGET_BYTES,
    grace_seconds: float = GRACE_SECONDS,
    on_progress: Progress = lambda done, total: None,
) -> Compaction:
    """Merge neighbouring shards of less than half of `target_bytes`, so that far fewer than 5,000 are left.

    No episode is hidden for a moment, order and snapshots stay as they are, and readers that have the old shards open go on
    reading them: they stay on the disk until `compact` is called `grace_seconds` later. Every CRC is checked in copying; a
    damaged record's bytes are kept in .meta/damaged and named with a `DamageWarning`, and the rest is compacted. A kill at any
    moment costs nothing, and the next call goes on. Raises `FlywheelError` if another process is at it, if a shard is missing,
    and if the disk refuses.
    """
    layout = Layout(store.path)
    _check(target_bytes, "target_bytes")
    check_writable(layout.path)

    def choose(shards: Shards, linked: frozenset[int]) -> Plan | None:
        sizes = _sizes(layout, shards)
        groups = merge_groups(sizes, max(target_bytes, sum(sizes) // _MOST), linked)
        return Plan(shards, groups) if any(group.copies for group in groups) else None

    with layout.compacting():
        removed = remove_retired(layout, grace_seconds)
        return Compaction(rewrite(layout, choose, on_progress=on_progress, resumes=True), tuple(removed))


def purge(
    store: EpisodeStore, *, grace_seconds: float = GRACE_SECONDS, on_progress: Progress = lambda done, total: None
) -> Compaction:
    """Take the episodes that are labelled as deleted off the disk, for good.

    Their bytes go when the old generation goes: with the first `compact` or `purge` that comes `grace_seconds` later, and at
    once where that is 0, which breaks plain TFDS readers that have it open. Raises `FlywheelError` for an episode that a
    registered snapshot still names, saying which (its policies could never be trained again), and as `compact` does.
    """
    layout = Layout(store.path)
    check_writable(layout.path)
    doomed = {row.episode_id: row for row in store.rows(deleted=True) if row.deleted}
    _check_unused(store, doomed)

    def choose(shards: Shards, linked: frozenset[int]) -> Plan | None:
        catalog = Catalog(layout)
        catalog.refresh()
        # Not the catalog's rows: they know one place of an episode, and in a damaged store it may stand in two.
        hit = {name for name, (_, rows) in catalog.sealed.items() if any(row.episode_id in doomed for row in rows)}
        groups = tuple(Group((number,), copies=name in hit and number not in linked) for number, name in enumerate(shards.names))
        return Plan(shards, groups, frozenset(doomed)) if any(group.copies for group in groups) else None

    def confirm() -> None:
        current = {row.episode_id: row for row in store.rows(deleted=True) if row.deleted}
        if doomed.keys() - current.keys():
            name = min(doomed.keys() - current.keys())
            raise FlywheelError(f"Episode '{name}' was restored meanwhile; nothing was purged, run it again.")
        _check_unused(store, doomed)

    with layout.compacting():
        done = rewrite(layout, choose, confirm, on_progress=on_progress)
        return Compaction(done, tuple(remove_retired(layout, grace_seconds)))


def _check_unused(store: EpisodeStore, doomed: Iterable[str]) -> None:
    """Raise `FlywheelError` if a registered snapshot, and with it the policies that came of it, needs one of the episodes."""
    wanted = set(doomed)
    policies = store.lineage.policies()
    for name in store.lineage.snapshots():
        snapshot = store.lineage.snapshot(name)
        named = sorted(wanted & {entry.episode_id for entry in snapshot.entries}) if snapshot else []
        if named:
            learned = sorted(policy.checkpoint[:12] for policy in policies.values() if policy.snapshot == name)
            of = f" (policy {', '.join(learned)} came of it)" if learned else ""
            raise FlywheelError(
                f"Episode '{named[0]}'{f' and {len(named) - 1} more' if len(named) > 1 else ''} cannot be purged: snapshot "
                f"{name[:12]}{of} names it; restore its label, or remove {store.path}/.meta/snapshots/{name}.json first."
            )


def _sizes(layout: Layout, shards: Shards) -> list[int]:
    """The size of every shard's file; one that is missing is found when it is copied."""
    return [path.stat().st_size if (path := layout.path / name).exists() else 0 for name in shards.names]


def _check(value: int, name: str) -> None:
    if value < 1:
        raise FlywheelError(f"{name} is {value}; it must be above zero.")

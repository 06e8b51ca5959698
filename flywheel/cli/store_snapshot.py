"""flywheel store snapshot and diff: fix a set of episodes by its content, and see what has changed between two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from flywheel.cli.console import console, say
from flywheel.cli.store_common import StorePath, make_table
from flywheel.core.errors import FlywheelError
from flywheel.datasets.snapshot import SNAPSHOT_FILE, Snapshot
from flywheel.datasets.store import EpisodeStore

_SHOWN = 20


def snapshot(path: StorePath, where: str = "") -> None:
    """Fix the episodes of a store as they are labelled now: print the hash that names them, and keep the list in the store.

    Args:
        path: The store's folder, or a root that holds one store.
        where: Take the episodes for which this holds, as in 'flywheel store query', instead of all.
    """
    store = EpisodeStore.open(path)
    made = store.snapshot(where or None)
    if not made.entries:
        raise FlywheelError(f"No episode of {store.path} is left to make a snapshot of.")
    kept = store.lineage.keep_snapshot(made)
    say(f"{made.hash}  {len(made):,} episodes, kept as {kept}")


def diff(
    path: StorePath,
    before: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BEFORE")],
    after: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AFTER")] = "now",
) -> None:
    """Show which episodes were added, removed or labelled anew between two snapshots.

    Args:
        path: The store's folder, or a root that holds one store.
        before: A snapshot: its hash or the beginning of it, its file, the run folder that learned from it, or now.
        after: The other snapshot.
    """
    store = EpisodeStore.open(path)
    one, other = find_snapshot(store, before), find_snapshot(store, after)
    change = one.difference(other)
    table = make_table("", "episodes >", "which")
    for name, ids in zip(("added", "removed", "relabelled"), change, strict=True):
        few = ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
        table.add_row(name, f"{len(ids):,}", few)
    say(f"{one.hash[:12]} ({len(one):,} episodes) to {other.hash[:12]} ({len(other):,} episodes)")
    console.print(table)


def find_snapshot(store: EpisodeStore, name: str) -> Snapshot:
    """The snapshot of a hash or its beginning, of a file or a run folder, or the store as it is now.

    Raises `FlywheelError` if there is none.
    """
    path = Path(name)
    if name == "now":
        return store.snapshot()
    if path.is_dir():
        return Snapshot.load(path / SNAPSHOT_FILE)
    if path.is_file():
        return Snapshot.load(path)
    found = [known for known in store.lineage.snapshots() if name and known.startswith(name)]
    snapshot = store.lineage.snapshot(found[0]) if len(found) == 1 else None
    if snapshot is None:
        what = f"{len(found)} snapshots begin with" if found else "There is no snapshot"
        raise FlywheelError(f"{what} '{name}' in {store.path}; give a hash, a snapshot's file, a run folder, or now.")
    return snapshot

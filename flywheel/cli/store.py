"""flywheel store: look into a store of episodes, ask it, and label what is in it."""

from __future__ import annotations

from rich.markup import escape

from flywheel.cli.console import console, progress
from flywheel.cli.store_beam import convert, stats
from flywheel.cli.store_common import StorePath, episode_table, make_table
from flywheel.cli.store_compact import compact, purge, repair
from flywheel.cli.store_info import info
from flywheel.cli.store_label import history, label
from flywheel.cli.store_query import query
from flywheel.cli.store_show import show, view
from flywheel.cli.store_snapshot import diff, snapshot
from flywheel.cli.store_sync import sync
from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep.verify import verify as verify_store


def ls(path: StorePath, limit: int = 50) -> None:
    """List the episodes of a store, the latest last.

    Args:
        path: The store's folder, or a root that holds one store.
        limit: How many to list, counted from the latest; 0 lists all.
    """
    if limit < 0:
        raise FlywheelError(f"--limit is {limit}; give 0 for all episodes or a number above it.")
    rows = sorted(EpisodeStore.open(path).rows(), key=lambda row: row.started_at_ns)
    shown = rows[-limit:] if limit else rows
    console.print(episode_table(shown))
    if len(shown) < len(rows):
        console.print(f"The latest {len(shown):,} of {len(rows):,} episodes; --limit 0 lists all.")


def verify(path: StorePath) -> None:
    """Read everything in a store and check every CRC, record, length and index row; exits with 1 if something is damaged.

    Args:
        path: The store's folder, or a root that holds one store.
    """
    store = EpisodeStore.open(path)
    with progress("Verifying", "files") as on_progress:
        report = verify_store(store, on_progress)
    for title, found in (("damaged", report.problems), ("left behind by a kill, harmless", report.leftovers)):
        if found:
            table = make_table("file", title)
            for problem in found:
                table.add_row(escape(problem.file), escape(problem.what))
            console.print(table)
    held = f"{report.episodes:,} episodes in {report.shards:,} shards and {report.journals:,} journals"
    if not report.sound:
        console.print(f"[bold red]{len(report.problems):,} problems[/bold red]; {held} are readable.")
        raise SystemExit(1)
    console.print(f"[bold green]Sound[/bold green]: {held}.")


SUBCOMMANDS = {
    "info": info,
    "ls": ls,
    "show": show,
    "view": view,
    "query": query,
    "label": label,
    "history": history,
    "snapshot": snapshot,
    "diff": diff,
    "verify": verify,
    "compact": compact,
    "purge": purge,
    "repair": repair,
    "sync": sync,
    "stats": stats,
    "convert": convert,
}

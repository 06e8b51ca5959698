"""flywheel store info: a store in numbers, and how it grows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from flywheel.cli.console import console
from flywheel.cli.store_common import StorePath, make_table, size_text
from flywheel.datasets.index import IndexRow
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.store_info import StoreInfo
from flywheel.rollout.statistics import wilson

_DAYS, _BAR = 14, 30
"""How many of the latest days are listed, and the letters of the longest bar."""


def info(path: StorePath) -> None:
    """Show what a store holds: episodes, hours, success by task and agent, disk use, growth per day, and an episode's arrays.

    Args:
        path: The store's folder, or a root that holds one store.
    """
    store = EpisodeStore.open(path)
    about, rate = store.info(), store.schema.action.rate
    console.print(f"[bold]{store.name}[/bold]  {escape(str(store.path))}")
    unsealed = f", {about.unsealed:,} of them in journals" if about.unsealed else ""
    hours = f", {about.steps / rate / 3600:,.2f} hours at {rate:g} Hz" if rate else ""
    console.print(
        f"{about.episodes:,} episodes{unsealed}; {about.steps:,} steps{hours}; {about.shards:,} shards; "
        f"{size_text(about.bytes)} of episodes, {size_text(_disk_use(store.path))} on the disk with index and training cache; "
        f"snapshot {store.snapshot().hash[:12]}"
    )
    if about.groups:
        console.print(_groups_table(about))
        console.print(_growth_table(store.rows(), rate))
    console.print(_schema_table(store.schema))


def _disk_use(folder: Path) -> int:
    """The bytes of all files below a folder, one that has several names counted once."""
    found = {status.st_ino: status.st_size for path in folder.rglob("*") if (status := path.lstat()) and path.is_file()}
    return sum(found.values())


def _groups_table(about: StoreInfo) -> Table:
    table = make_table("task", "agent", "episodes >", "successes >", "rate >", "95 % interval >")
    for group in about.groups:
        low, high = wilson(group.successes, group.episodes)
        rate = f"{group.successes / group.episodes:.0%}"
        names = (escape(group.task), escape(group.agent_id))
        table.add_row(*names, f"{group.episodes:,}", f"{group.successes:,}", rate, f"{low:.0%} to {high:.0%}")
    return table


def _growth_table(rows: Sequence[IndexRow], rate: float) -> Table:
    """The latest days on which episodes were recorded, each with a bar as long as it has episodes."""
    days: dict[date, list[IndexRow]] = defaultdict(list)
    for row in rows:
        if row.started_at_ns:
            days[datetime.fromtimestamp(row.started_at_ns / 1e9, tz=UTC).astimezone().date()].append(row)
    latest = sorted(days)[-_DAYS:]
    most = max((len(days[day]) for day in latest), default=1)
    table = make_table("day", "episodes >", "hours >" if rate else "steps >", "")
    for day in latest:
        steps = sum(row.length for row in days[day])
        length = f"{steps / rate / 3600:,.2f}" if rate else f"{steps:,}"
        table.add_row(day.isoformat(), f"{len(days[day]):,}", length, "█" * max(1, round(_BAR * len(days[day]) / most)))
    return table


def _schema_table(schema: Schema) -> Table:
    table = make_table("array", "shape", "dtype", "unit")
    for key, spec in sorted(schema.observation.arrays.items()):
        table.add_row(f"observation {key}", str(spec.shape), spec.dtype, escape(spec.unit))
    action = schema.action
    table.add_row("action", f"({action.dim},)", "float32", f"{action.controller}, {action.mode}, {action.rate:g} Hz")
    return table

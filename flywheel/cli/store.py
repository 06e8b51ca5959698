"""flywheel store: look into a store of episodes without changing it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.markup import escape
from rich.table import Table

from flywheel.cli.console import console, progress
from flywheel.core.episode import EpisodeMetadata
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.index import IndexRow
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.verify import verify as verify_store

StorePath = Annotated[Path, tyro.conf.Positional]
"""A store's folder, or a root that holds one store."""


def info(path: StorePath) -> None:
    """Show how many episodes a store holds, of which tasks and agents, how many succeeded, and what an episode consists of.

    Args:
        path: The store's folder, or a root that holds one store.
    """
    store = EpisodeStore.open(path)
    about = store.info()
    console.print(f"[bold]{store.name}[/bold]  {escape(str(store.path))}")
    unsealed = f", {about.unsealed:,} of them in journals" if about.unsealed else ""
    console.print(
        f"{about.episodes:,} episodes{unsealed}; {about.steps:,} steps; {about.shards:,} shards; {_size(about.bytes)}; "
        f"snapshot {store.snapshot().hash[:12]}"
    )
    if about.groups:
        table = _table("task", "agent", "episodes >", "successes >", "rate >")
        for group in about.groups:
            rate = f"{group.successes / group.episodes:.0%}"
            table.add_row(group.task, group.agent_id, f"{group.episodes:,}", f"{group.successes:,}", rate)
        console.print(table)
    console.print(_schema_table(store.schema))


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
    table = _table("episode", "started", "task", "robot", "agent", "steps >", "return >", "success", "checkpoint")
    for row in shown:
        success = "yes" if row.success else "no"
        checkpoint = row.policy_checkpoint[:8]
        cells = (row.episode_id, _time(row.started_at_ns), row.task, row.robot, row.agent_id)
        table.add_row(*map(escape, cells), f"{row.length:,}", f"{row.episode_return:.2f}", success, checkpoint)
    console.print(table)
    if len(shown) < len(rows):
        console.print(f"The latest {len(shown):,} of {len(rows):,} episodes; --limit 0 lists all.")


def show(path: StorePath, episode: Annotated[str, tyro.conf.Positional]) -> None:
    """Show one episode: its metadata and the range of every array.

    Args:
        path: The store's folder, or a root that holds one store.
        episode: The episode's id, or the beginning of it if only one begins so.
    """
    store = EpisodeStore.open(path)
    row = _find(store, episode)
    found = store.read(row.episode_id)
    table = _table("field", "value")
    for item in fields(EpisodeMetadata):
        value = getattr(row, item.name)
        if value != item.default:
            table.add_row(item.name, escape(_time(value) if item.name == "started_at_ns" else str(value)))
    table.add_row("steps", f"{row.length:,}")
    table.add_row("return", f"{row.episode_return:.4g}")
    table.add_row("ended", "in a terminal state" if found.is_terminal[-1] else "by truncation")
    table.add_row("record", f"{escape(row.shard)}, byte {row.offset:,}")
    console.print(table)
    arrays = _table("array", "shape", "lowest >", "mean >", "highest >")
    for name, values in _arrays(found.observation, found.action, found.reward):
        numbers = (f"{number:.4g}" for number in (values.min(), values.mean(dtype=np.float64), values.max()))
        arrays.add_row(name, str(values.shape), *numbers)
    console.print(arrays)


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
            table = _table("file", title)
            for problem in found:
                table.add_row(escape(problem.file), escape(problem.what))
            console.print(table)
    held = f"{report.episodes:,} episodes in {report.shards:,} shards and {report.journals:,} journals"
    if not report.sound:
        console.print(f"[bold red]{len(report.problems):,} problems[/bold red]; {held} are readable.")
        raise SystemExit(1)
    console.print(f"[bold green]Sound[/bold green]: {held}.")


SUBCOMMANDS = {"info": info, "ls": ls, "show": show, "verify": verify}


def _find(store: EpisodeStore, name: str) -> IndexRow:
    rows = {row.episode_id: row for row in store.rows()}
    if name in rows:
        return rows[name]
    beginning = [key for key in rows if name and key.startswith(name)]
    if len(beginning) == 1:
        return rows[beginning[0]]
    if beginning:
        few = ", ".join(sorted(beginning)[:3])
        raise FlywheelError(f"{len(beginning)} episodes begin with '{name}' ({few}, ...); give more of the id.")
    near = difflib.get_close_matches(name, rows, n=1, cutoff=0.5)
    hint = f" did you mean '{near[0]}'?" if near else ""
    raise FlywheelError(f"There is no episode '{name}';{hint} 'flywheel store ls {store.path}' lists them.")


def _arrays(observation: dict[str, Array], action: Array, reward: Array) -> Iterator[tuple[str, Array]]:
    """The arrays of an episode by name; action and reward without the last step, where they are undefined."""
    for key, values in sorted(observation.items()):
        yield f"observation {key}", values
    yield "action", action[:-1]
    yield "reward", reward[:-1]


def _schema_table(schema: Schema) -> Table:
    table = _table("array", "shape", "dtype", "unit")
    for key, spec in sorted(schema.observation.arrays.items()):
        table.add_row(f"observation {key}", str(spec.shape), spec.dtype, escape(spec.unit))
    action = schema.action
    table.add_row("action", f"({action.dim},)", "float32", f"{action.controller}, {action.mode}, {action.rate:g} Hz")
    return table


def _table(*columns: str) -> Table:
    """A table with these headings; those that end in '>' are numbers, set to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        name = column.removesuffix(" >")
        # The first column names the thing, and a name that is folded cannot be copied.
        table.add_column(name, justify="right" if name != column else "left", overflow="fold", no_wrap=number == 0)
    return table


def _time(nanoseconds: int) -> str:
    if not nanoseconds:
        return ""
    return datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _size(count: int) -> str:
    size, units = float(count), ["B", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:,.1f} {units[0]}" if units[0] != "B" else f"{count} B"

"""flywheel store: look into a store of episodes, ask it, and label what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated

import numpy as np
import tyro
from rich.markup import escape
from rich.table import Table

from flywheel.cli.console import console, progress
from flywheel.cli.store_common import StorePath, by_id, episode_table, find_episode, make_table, size_text, time_text
from flywheel.cli.store_label import history, label
from flywheel.cli.store_query import query
from flywheel.cli.store_snapshot import diff, snapshot
from flywheel.core.episode import EpisodeMetadata
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.verify import verify as verify_store


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
        f"{about.episodes:,} episodes{unsealed}; {about.steps:,} steps; {about.shards:,} shards; {size_text(about.bytes)}; "
        f"snapshot {store.snapshot().hash[:12]}"
    )
    if about.groups:
        table = make_table("task", "agent", "episodes >", "successes >", "rate >")
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
    console.print(episode_table(shown))
    if len(shown) < len(rows):
        console.print(f"The latest {len(shown):,} of {len(rows):,} episodes; --limit 0 lists all.")


def show(path: StorePath, episode: Annotated[str, tyro.conf.Positional]) -> None:
    """Show one episode: its metadata and the range of every array.

    Args:
        path: The store's folder, or a root that holds one store.
        episode: The episode's id, or the beginning of it if only one begins so.
    """
    store = EpisodeStore.open(path)
    row = find_episode(by_id(store.rows()), episode)
    found = store.read(row.episode_id)
    table = make_table("field", "value")
    for item in fields(EpisodeMetadata):
        value = getattr(row, item.name)
        if value != item.default:
            table.add_row(item.name, escape(time_text(value) if item.name == "started_at_ns" else str(value)))
    table.add_row("steps", f"{row.length:,}")
    table.add_row("return", f"{row.episode_return:.4g}")
    table.add_row("ended", "in a terminal state" if found.is_terminal[-1] else "by truncation")
    table.add_row("record", f"{escape(row.shard)}, byte {row.offset:,}")
    console.print(table)
    arrays = make_table("array", "shape", "lowest >", "mean >", "highest >")
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
    "query": query,
    "label": label,
    "history": history,
    "snapshot": snapshot,
    "diff": diff,
    "verify": verify,
}


def _arrays(observation: dict[str, Array], action: Array, reward: Array) -> Iterator[tuple[str, Array]]:
    """The arrays of an episode by name; action and reward without the last step, where they are undefined."""
    for key, values in sorted(observation.items()):
        yield f"observation {key}", values
    yield "action", action[:-1]
    yield "reward", reward[:-1]


def _schema_table(schema: Schema) -> Table:
    table = make_table("array", "shape", "dtype", "unit")
    for key, spec in sorted(schema.observation.arrays.items()):
        table.add_row(f"observation {key}", str(spec.shape), spec.dtype, escape(spec.unit))
    action = schema.action
    table.add_row("action", f"({action.dim},)", "float32", f"{action.controller}, {action.mode}, {action.rate:g} Hz")
    return table

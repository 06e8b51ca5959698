"""What the subcommands of flywheel store share: their first argument, finding an episode by its beginning, tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape
from rich.table import Table

from flywheel.core.errors import FlywheelError
from flywheel.core.registry import nearest
from flywheel.datasets.index import IndexRow

StorePath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
"""A store's folder, or a root that holds one store."""
_MOST_COMPARED = 5_000
"""Ids among which a mistyped one is looked for; more of them take seconds."""


def by_id(rows: Sequence[IndexRow]) -> dict[str, IndexRow]:
    """The rows by their episodes' ids."""
    return {row.episode_id: row for row in rows}


def find_episode(rows: Mapping[str, IndexRow], name: str) -> IndexRow:
    """The row of an id, or of the only id that begins so; raises `FlywheelError` if there is none, or are several."""
    if name in rows:
        return rows[name]
    beginning = [key for key in rows if name and key.startswith(name)]
    if len(beginning) == 1:
        return rows[beginning[0]]
    if beginning:
        few = ", ".join(sorted(beginning)[:3])
        raise FlywheelError(f"{len(beginning)} episodes begin with '{name}' ({few}, ...); give more of the id.")
    hint = nearest(name, tuple(rows)) if len(rows) <= _MOST_COMPARED else ""
    raise FlywheelError(f"There is no episode '{name}';{hint} 'flywheel store ls' lists them.")


def episode_table(rows: Iterable[IndexRow]) -> Table:
    """A table of episodes with what one looks for first."""
    table = make_table("episode", "started", "task", "robot", "agent", "steps >", "return >", "success", "checkpoint")
    for row in rows:
        success = ("yes" if row.success else "no") + (", invalid" if row.invalid else "")
        cells = (row.episode_id, time_text(row.started_at_ns), row.task, row.robot, row.agent_id)
        table.add_row(*map(escape, cells), f"{row.length:,}", f"{row.episode_return:.2f}", success, row.policy_checkpoint[:8])
    return table


def make_table(*columns: str) -> Table:
    """A table with these headings; those that end in '>' are numbers, set to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        name = column.removesuffix(" >")
        # The first column names the thing, and a name that is folded cannot be copied.
        table.add_column(name, justify="right" if name != column else "left", overflow="fold", no_wrap=number == 0)
    return table


def time_text(nanoseconds: int) -> str:
    """A time since 1970 on the clock of this place; empty for 0, which is unknown."""
    if not nanoseconds:
        return ""
    return datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size_text(count: int) -> str:
    """A number of bytes in the unit that suits it."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:,.1f} {units[0]}" if units[0] != "B" else f"{count} B"

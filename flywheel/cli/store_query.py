"""flywheel store query: the episodes of a store for which an SQL expression holds."""

from __future__ import annotations

import csv as csv_format
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from flywheel.cli.console import console
from flywheel.cli.store_common import StorePath, episode_table
from flywheel.core.errors import FlywheelError
from flywheel.datasets.index import IndexRow
from flywheel.datasets.query import COLUMNS, select
from flywheel.datasets.store import EpisodeStore


def query(
    path: StorePath,
    expression: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPRESSION")],
    ids: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    csv: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    deleted: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """List the episodes for which an SQL expression holds: flywheel store query data "task = 'lift' and success".

    The columns are episode, task, robot, agent, success, invalid, length, return, started (UTC), policy, snapshot, detector,
    experiment, operator, seed, source, robot_id, calibration, controller, environment, software, safety, code, trimmed and
    labelled. A policy is found by the beginning of its hash with: policy glob '3fa8*'. The same expression trains on these
    episodes: flywheel train bc --data.where "...".

    Args:
        path: The store's folder, or a root that holds one store.
        expression: What must hold, over the columns above.
        ids: Print the ids alone, one per line.
        csv: Print all columns as CSV.
        deleted: Look at deleted episodes alone.
    """
    if ids and csv:
        raise FlywheelError("Give --ids or --csv, not both.")
    store = EpisodeStore.open(path)
    known = [row for row in store.rows(deleted=deleted) if row.deleted == deleted]
    rows = select(known, expression)
    if ids:
        sys.stdout.writelines(f"{row.episode_id}\n" for row in rows)
    elif csv:
        _write_csv(rows)
    else:
        console.print(episode_table(sorted(rows, key=lambda row: row.started_at_ns)))
        console.print(f"{len(rows):,} of {len(known):,} {'deleted ' if deleted else ''}episodes.")


def _write_csv(rows: Sequence[IndexRow]) -> None:
    writer = csv_format.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = (column(row) for column in COLUMNS.values())
        writer.writerow(int(value) if isinstance(value, bool) else value for value in values)

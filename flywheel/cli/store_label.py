"""flywheel store label and history: revise what is known of an episode, and see who said what."""

from __future__ import annotations

import getpass
import os
import re
from typing import Annotated, Literal

import tyro
from rich.markup import escape

from flywheel.cli.console import console, say
from flywheel.cli.store_common import StorePath, by_id, find_episode, make_table, time_text
from flywheel.core.errors import FlywheelError
from flywheel.datasets.index import IndexRow, Trim
from flywheel.datasets.labels import Value
from flywheel.datasets.query import select
from flywheel.datasets.store import EpisodeStore

_PART = re.compile(r"(\d*):(\d*)")


def label(
    path: StorePath,
    episodes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="EPISODE ...")] = (),
    success: Literal["yes", "no"] | None = None,
    task: str | None = None,
    trim: str | None = None,
    undo: Literal["success", "invalid", "deleted", "trim", "task"] | None = None,
    invalid: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    valid: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    delete: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    restore: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    where: str = "",
    by: str = "",
    reason: str = "",
) -> None:
    """Label episodes; every label is kept and can be undone, and no record is ever changed or removed.

    Args:
        path: The store's folder, or a root that holds one store.
        episodes: Which ones: ids, or beginnings that only one id has.
        success: Whether they reached what the task asks.
        task: What they really show.
        trim: The steps that count, as first:last + 1 (10:50, 10: or :50).
        undo: Take the newest label of this field back.
        invalid: Leave them out of training.
        valid: Take them in again.
        delete: Leave them out of everything.
        restore: Bring deleted ones back.
        where: Label the episodes for which this holds, as in 'flywheel store query', instead of naming them.
        by: Who or what says so; your user name if not given.
        reason: Why.
    """
    store = EpisodeStore.open(path)
    rows = _chosen(store, episodes, where)
    changes = _changes(success, task, invalid, valid, delete, restore)
    asked = bool(changes) + (trim is not None) + (undo is not None)
    if not asked or (asked > 1 and undo is not None):
        raise FlywheelError(
            "Say what to label: --success, --task, --trim, --invalid, --valid, --delete or --restore; or --undo alone."
        )
    by = by or user_name()
    ids = [row.episode_id for row in rows]
    if undo is not None:
        store.undo(ids, undo, by=by, reason=reason)
    if trim is not None:
        for (start, stop), part in _parts(store, rows, trim).items():
            store.label(part, "trim", (start, stop), by=by, reason=reason)
    for field, value in changes.items():
        store.label(ids, field, value, by=by, reason=reason)
    say(f"{len(ids):,} labelled in {store.path}; 'flywheel store history' shows what was said of one, --undo takes it back.")


def history(path: StorePath, episode: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EPISODE")]) -> None:
    """Show what was recorded of an episode, and every label since: what, by whom, when and why.

    Args:
        path: The store's folder, or a root that holds one store.
        episode: The episode's id, or the beginning of it if only one begins so.
    """
    store = EpisodeStore.open(path)
    row = find_episode(by_id(store.rows(deleted=True)), episode)
    recorded = store.raw(row.episode_id)
    table = make_table("field", "value", "by", "when", "reason")
    about = recorded.metadata
    when = time_text(about.started_at_ns)
    for field, value, by in (
        ("success", _text(about.success), about.success_detector),
        ("invalid", _text(about.invalid), ""),
        ("task", about.task, ""),
        ("steps", f"{recorded.transitions:,}", ""),
    ):
        table.add_row(field, escape(value), escape(by or about.operator or about.agent_id), when, "recorded")
    for item in store.history(row.episode_id):
        reason = f"undo; {item.reason}".removesuffix("; ") if item.undo else item.reason
        table.add_row(item.field, escape(_text(item.value)), escape(item.by), time_text(item.at_ns), escape(reason))
    say(f"{row.episode_id}{' (deleted)' if row.deleted else ''}")
    console.print(table)


def user_name() -> str:
    """The user's name; where the system has none, as in a container that runs as a bare number, that number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _chosen(store: EpisodeStore, episodes: tuple[str, ...], where: str) -> list[IndexRow]:
    if bool(episodes) == bool(where):
        raise FlywheelError("Say which episodes to label: by their ids, or with --where.")
    rows = store.rows(deleted=True)
    if not where:
        known = by_id(rows)
        return [find_episode(known, name) for name in episodes]
    found = select(rows, where)
    if not found:
        raise FlywheelError(f"No episode of {store.path} has {where}; 'flywheel store query' shows what does.")
    return found


def _changes(
    success: str | None, task: str | None, invalid: bool, valid: bool, delete: bool, restore: bool
) -> dict[str, bool | str]:
    if (invalid and valid) or (delete and restore):
        raise FlywheelError("An episode cannot be both: give --invalid or --valid, --delete or --restore.")
    changes: dict[str, bool | str] = {}
    if success is not None:
        changes["success"] = success == "yes"
    if task is not None:
        changes["task"] = task
    if invalid or valid:
        changes["invalid"] = invalid
    if delete or restore:
        changes["deleted"] = delete
    return changes


def _parts(store: EpisodeStore, rows: list[IndexRow], trim: str) -> dict[tuple[int, int], list[str]]:
    """Which episodes are trimmed to which part, as an open end is another number for each; all of them have that part."""
    part = _PART.fullmatch(trim)
    if part is None:
        raise FlywheelError(f"--trim is '{trim}'; give the first step and the one behind the last, like 10:50, 10: or :50.")
    parts: dict[tuple[int, int], list[str]] = {}
    for row in rows:
        length = row.length if row.trim is None else store.raw(row.episode_id).transitions
        start, stop = int(part[1] or 0), int(part[2] or length)
        if not start < stop <= length:
            raise FlywheelError(
                f"Episode '{row.episode_id}' has {length} steps; a trim is a part of 0:{length}, not {start}:{stop}. "
                "No label was changed."
            )
        parts.setdefault((start, stop), []).append(row.episode_id)
    return parts


def _text(value: Value) -> str:
    if isinstance(value, Trim):
        return f"{value.start}:{value.stop}"
    if value is None:
        return "as recorded"
    return value if isinstance(value, str) else "yes" if value else "no"

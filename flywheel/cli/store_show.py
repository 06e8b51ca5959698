"""flywheel store show and view: one episode in numbers and pictures, or several beside each other in a viewer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.markup import escape
from rich.table import Table

from flywheel.cli.console import console, say
from flywheel.cli.store_common import StorePath, by_id, find_episode, make_table, time_text
from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.index import IndexRow
from flywheel.datasets.store import EpisodeStore


def show(
    path: StorePath, episode: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EPISODE")], strip: Path | None = None
) -> None:
    """Show one episode: its metadata, the range of every array, and a strip of its frames over its curves.

    Args:
        path: The store's folder, or a root that holds one store.
        episode: The episode's id, or the beginning of it if only one begins so.
        strip: Where to draw the strip, a PNG; strips/EPISODE.png where it is not said.
    """
    from flywheel.report.strip import write_strip  # matplotlib takes a second to import

    store = EpisodeStore.open(path)
    row = find_episode(by_id(store.rows()), episode)
    found = store.read(row.episode_id)
    console.print(_facts_table(row, found))
    console.print(_arrays_table(found))
    picture = strip or Path("strips") / f"{_file_name(row.episode_id)}.png"
    write_strip(picture, found, store.schema.action)
    say(f"{picture} shows it.")


def view(
    path: StorePath,
    episodes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="EPISODE ...")],
    output: Path = Path("episodes.rrd"),
    web: bool = False,
    window: bool = True,
) -> None:
    """Open episodes in Rerun's viewer, several over each other from their beginnings.

    Args:
        path: The store's folder, or a root that holds one store.
        episodes: The episodes' ids, or their beginnings.
        output: The recording that is written, for the viewer and for later.
        web: Show it in the browser.
        window: Open the viewer; without it the file alone is written.
    """
    from flywheel.report.viewer import write_recording  # rerun is an extra

    if not episodes:
        raise FlywheelError("Give the episodes to view, by id; 'flywheel store ls' lists them.")
    store = EpisodeStore.open(path)
    rows = by_id(store.rows())
    chosen = [find_episode(rows, name) for name in episodes]
    write_recording(output, [store.read(row.episode_id) for row in chosen], store.schema.action)
    say(f"{output} holds {len(chosen)} episodes; 'rerun {output}' opens it.")
    if web or window:
        subprocess.run([sys.executable, "-m", "rerun", str(output), *(["--web-viewer"] if web else [])], check=False)


def _file_name(episode_id: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in episode_id).lstrip(".")


def _facts_table(row: IndexRow, episode: Episode) -> Table:
    table = make_table("field", "value")
    for item in fields(EpisodeMetadata):
        value = getattr(row, item.name)
        if value != item.default:
            table.add_row(item.name, escape(time_text(value) if item.name == "started_at_ns" else str(value)))
    table.add_row("steps", f"{episode.transitions:,}")
    table.add_row("return", f"{episode.episode_return:.4g}")
    table.add_row("ended", "in a terminal state" if episode.is_terminal[-1] else "by truncation")
    table.add_row("record", f"{escape(row.shard)}, byte {row.offset:,}")
    return table


def _arrays_table(episode: Episode) -> Table:
    table = make_table("array", "shape", "lowest >", "mean >", "highest >")
    for name, values in _arrays(episode):
        numbers = (f"{number:.4g}" for number in (values.min(), values.mean(dtype=np.float64), values.max()))
        table.add_row(name, str(values.shape), *numbers)
    return table


def _arrays(episode: Episode) -> Iterator[tuple[str, Array]]:
    """The arrays of an episode by name; action and reward without the last step, where they are undefined."""
    for key, values in sorted(episode.observation.items()):
        yield f"observation {key}", values
    yield "action", episode.action[:-1]
    yield "reward", episode.reward[:-1]

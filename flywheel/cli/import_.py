"""flywheel import SOURCE --store ROOT --name NAME: append a foreign data set to a store; run again, it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.markup import escape
from rich.table import Table

from flywheel.cli.console import console, parse_config, progress, say
from flywheel.datasets.importers.base import Source, import_episodes
from flywheel.datasets.importers.detect import open_source
from flywheel.datasets.importers.mapping import load_mapping
from flywheel.datasets.schema import Pictures


@dataclass(frozen=True)
class ImportConfig:
    """What to import and where to."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A file or folder: RLDS/TFDS, robomimic, robosuite, LeRobot, Minari, D4RL, OGBench or npz."""
    name: str
    """The data set's name in the store; made if it is not there."""
    store: Path = Path("data")
    """The folder of data sets."""
    kind: Literal["", "rlds", "robomimic", "robosuite", "lerobot", "minari", "d4rl", "ogbench", "npz"] = ""
    """The source's format; found out where it is empty."""
    mapping: str = ""
    """Which of its fields become what: a YAML file (see datasets/importers/mapping.py), or mt_opt or oxe, which are built in."""
    pictures: Pictures = "png"
    """How a new store keeps pictures: png (exact), jpeg (small and lossy) or raw."""
    dry_run: bool = False
    """Show what would be imported and write nothing."""


def run(arguments: list[str]) -> None:
    """Import with a progress bar, then say what the store gained."""
    config = parse_config(ImportConfig, arguments, "flywheel import", __doc__)
    source = open_source(config.source, config.kind, load_mapping(config.mapping))
    if config.dry_run:
        _show(source, config)
        return
    with progress(f"Importing {config.source.name}", "episodes") as report:
        result = import_episodes(source, config.store, config.name, report, pictures=config.pictures)
    there = f", {result.skipped:,} were there already" if result.skipped else ""
    empty = f", {result.empty:,} had no transition" if result.empty else ""
    say(f"Stored {result.stored:,} episodes{there}{empty}; {result.steps:,} steps, in {result.store.path}")


def _show(source: Source, config: ImportConfig) -> None:
    schema = source.schema()
    say(f"{config.source} ({source.kind}): {len(source):,} episodes would go into {config.store / config.name}")
    table = Table("array", "shape", "dtype", "unit", box=None, header_style="bold", pad_edge=False)
    for key, spec in sorted(schema.observation.arrays.items()):
        table.add_row(f"observation {escape(key)}", str(spec.shape), spec.dtype, escape(spec.unit))
    action = schema.action
    table.add_row("action", f"({action.dim},)", "float32", escape(f"{action.controller}, {action.mode}, {action.rate:g} Hz"))
    console.print(table)
    say("action lowest:  " + " ".join(f"{number:.4g}" for number in action.low))
    say("action highest: " + " ".join(f"{number:.4g}" for number in action.high))

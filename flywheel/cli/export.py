"""flywheel export STORE FOLDER --format FORMAT: write the episodes of a store for other programs to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from flywheel.cli.console import parse_config, progress, say
from flywheel.core.errors import FlywheelError
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore


@dataclass(frozen=True)
class ExportConfig:
    """What to export, where to, and in which form."""

    store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """The store's folder, or a root that holds one store."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Where to write; new or empty."""
    format: Literal["rlds", "lerobot", "robomimic", "minari"]
    """rlds: TFDS shards, as Open X-Embodiment. lerobot: LeRobot v3.0. robomimic: one HDF5 file. minari: Minari's HDF5."""
    where: str = ""
    """Only the episodes for which this holds, as in 'flywheel store query': "task = 'lift' and success"."""
    snapshot: Path | None = None
    """The episodes of a snapshot, for example of a run's snapshot.json, as they were labelled then."""
    shard_mb: float = 256.0
    """rlds: how large a shard becomes, in MB."""
    video: bool = False
    """lerobot: keep pictures as H.264 video, which is small and lossy, instead of PNG."""
    fps: float | None = None
    """lerobot: the frames per second, where the store does not tell the control rate."""


def run(arguments: list[str]) -> None:
    """Export with a progress bar, then say where it is."""
    config = parse_config(ExportConfig, arguments, "flywheel export", __doc__)
    store = EpisodeStore.open(config.store)
    snapshot = _chosen(store, config)
    export = _exporter(config)
    with progress(f"Exporting {store.name}", "episodes") as report:
        path = export(store, snapshot, config.folder, on_progress=report)
    say(f"Wrote {len(snapshot):,} episodes, snapshot {snapshot.hash[:12]}, as {config.format} to {path}")


def _chosen(store: EpisodeStore, config: ExportConfig) -> Snapshot:
    if config.snapshot is None:
        return store.snapshot(config.where or None)
    if config.where:
        raise FlywheelError("--where chooses among the episodes of now and --snapshot names those of then; give one of them.")
    return Snapshot.load(config.snapshot)


def _exporter(config: ExportConfig) -> Callable[..., Path]:
    theirs = {"shard_mb": "rlds", "video": "lerobot", "fps": "lerobot"}
    for option, form in theirs.items():
        if form != config.format and getattr(config, option) != getattr(ExportConfig, option):
            raise FlywheelError(f"--{option.replace('_', '-')} is for --format {form}; {config.format} does not know it.")
    options: dict[str, Any] = {}
    if config.format == "rlds":
        options = {"shard_mb": config.shard_mb}
    elif config.format == "lerobot":
        options = {"video": config.video, "fps": config.fps}
    export: Callable[..., Path] = import_module(f"flywheel.datasets.exporters.{config.format}").export
    return partial(export, **options)

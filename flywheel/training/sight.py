"""What of an observation the networks see: how much of the state, and which cameras. Refused before anything is read."""

from __future__ import annotations

from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array, ObservationSpec
from flywheel.datasets.colors import usual_pictures
from flywheel.datasets.columns import Columns
from flywheel.datasets.schema import Schema
from flywheel.training.recipe import DataConfig
from flywheel.training.sources import Source


def layout(data: DataConfig, schema: Schema) -> ObservationSpec:
    """All of the state, and the pictures that are seen."""
    keys = (*schema.observation.state_keys, *data.pictures)
    return ObservationSpec({key: schema.observation.arrays[key] for key in keys})


def check_sight(data: DataConfig, schema: Schema, algorithm: str) -> None:
    """Raises `FlywheelError` for cameras and observations that the store lacks, and where nothing would be left to see."""
    _check_known("camera", data.pictures, schema.picture_keys)
    _check_known("observation of the state", data.hide, schema.observation.state_keys)
    if unseen := sorted(set(data.goal_pictures) - set(data.pictures)):
        raise FlywheelError(f"The goal is to be shown by {unseen}, which the networks do not see; name them under pictures too.")
    if len(set(data.pictures)) < len(data.pictures):
        raise FlywheelError(f"A camera is named twice in {data.pictures}; name each once.")
    if data.hide and data.also:
        raise FlywheelError("Several stores are learned from with all of their state; leave hide out, or --data.also.")
    if not data.pictures and set(data.hide) >= set(schema.observation.state_keys):
        raise FlywheelError(f"Nothing is left for {algorithm} to see; hide less, or name cameras (--data.pictures).")


def look(data: DataConfig, columns: Columns) -> dict[str, Array]:
    """What the cameras usually show; raises `FlywheelError` for episodes in which red and blue are exchanged."""
    return {} if data.any_colors else usual_pictures(columns)


def drawn_by(source: Source) -> tuple[str, ...]:
    """What simulated and drew the episodes that are learned from, as their metadata have it, each once."""
    learned = {entry.episode_id for entry in source.snapshot.entries}
    return tuple(sorted({row.software for row in source.store.rows() if row.episode_id in learned and row.software}))


def _check_known(what: str, asked: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in asked:
        if name not in known:
            raise FlywheelError(registry.unknown(what, name, known))

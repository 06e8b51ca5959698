"""What of an observation the networks see: how much of the state, and which cameras. Refused before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from zipfile import BadZipFile

import numpy as np

from flywheel.algorithms.base import Algorithm
from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array, ObservationSpec
from flywheel.datasets.colors import check_alike, usual_pictures
from flywheel.datasets.schema import Schema
from flywheel.training.recipe import DataConfig
from flywheel.training.sources import Source

_AHEAD = ("hierarchical", "actionable_ahead")
"""Relabelled so, what lies ahead is looked at as if it were now."""


def layout(data: DataConfig, schema: Schema) -> ObservationSpec:
    """All of the state, and the pictures that are seen."""
    keys = (*schema.observation.state_keys, *data.pictures)
    return ObservationSpec({key: schema.observation.arrays[key] for key in keys})


def check_sight(data: DataConfig, schema: Schema, algorithm: type[Algorithm]) -> None:
    """Raises `FlywheelError` for cameras and observations that the store lacks, and where nothing would be left to see."""
    _check_known("camera", data.pictures, schema.picture_keys)
    _check_known("observation of the state", data.hide, schema.observation.state_keys)
    if unseen := sorted(set(data.goal_pictures) - set(data.pictures)):
        raise FlywheelError(f"The goal is to be shown by {unseen}, which the networks do not see; name them under pictures too.")
    if len(set(data.pictures)) < len(data.pictures):
        raise FlywheelError(f"A camera is named twice in {data.pictures}; name each once.")
    if data.frames < 1 or (data.frames > 1 and not data.pictures):
        raise FlywheelError(
            "frames counts the pictures that are seen at once: at least 1, and 1 without cameras (--data.pictures)."
        )
    if data.frames > 1 and algorithm.relabel in _AHEAD:
        raise FlywheelError(f"{algorithm.name} looks at single pictures of what lies ahead; leave frames at 1.")
    if data.hide and data.also:
        raise FlywheelError("Several stores are learned from with all of their state; leave hide out, or --data.also.")
    if not data.pictures and set(data.hide) >= set(schema.observation.state_keys):
        raise FlywheelError(f"Nothing is left for {algorithm.name} to see; hide less, or name cameras (--data.pictures).")


def look(data: DataConfig, sources: Sequence[Source]) -> dict[str, Array]:
    """What the first store's cameras usually show; raises `FlywheelError` where red and blue are exchanged in any store."""
    if data.any_colors:
        return {}
    usual, *others = (usual_pictures(source.columns) for source in sources)
    for other, source in zip(others, sources[1:], strict=True):
        check_alike(usual, other, source.store.path)
    return usual


def read_language(data: DataConfig) -> Array | None:
    """What says each task in words, (tasks, L) float32; raises `FlywheelError` for a file that does not."""
    if data.language is None:
        return None
    try:
        with np.load(data.language, allow_pickle=False) as file:
            found = {task: np.asarray(file[task], np.float32) for task in data.tasks if task in file}
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        raise FlywheelError(f"{data.language} is no readable npz file ({error}); give one with an array per task.") from None
    if missing := [task for task in data.tasks if task not in found]:
        raise FlywheelError(f"{data.language} does not say {', '.join(missing)} in words; add an array of that name.")
    shapes = {value.shape for value in found.values()}
    if (
        len(shapes) > 1
        or len(next(iter(shapes))) != 1
        or not all(value.size and np.isfinite(value).all() for value in found.values())
    ):
        raise FlywheelError(f"{data.language} must hold a vector of finite numbers for each task, all of one length.")
    return np.stack([found[task] for task in data.tasks])


def drawn_by(source: Source) -> tuple[str, ...]:
    """What simulated and drew the episodes that are learned from, as their metadata have it, each once."""
    learned = {entry.episode_id for entry in source.snapshot.entries}
    return tuple(sorted({row.software for row in source.store.rows() if row.episode_id in learned and row.software}))


def _check_known(what: str, asked: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in asked:
        if name not in known:
            raise FlywheelError(registry.unknown(what, name, known))

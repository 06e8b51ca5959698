"""A store with every sort of array that the formats have in common, ends of both sorts and two tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.schema import Pictures, Schema
from flywheel.datasets.store import EpisodeStore

ARRAYS = {
    "joints": ArraySpec((3,), unit="rad"),
    "grip": ArraySpec(()),
    "precise": ArraySpec((2,), "float64"),
    "counts": ArraySpec((2,), "int32"),
    "grid": ArraySpec((2, 3)),
    "touch": ArraySpec((2,), "bool"),
}
CAMERA = ArraySpec((64, 96, 3), "uint8")
ACTION = ActionSpec(low=(-1.0, -0.5), high=(1.0, 0.5), controller="joint", scale=(0.1, 0.2), rate=10.0)


def episode(number: int, *, camera: bool) -> Episode:
    """Of 5 + number transitions; the odd ones succeed and end of themselves."""
    rng = np.random.default_rng(number)
    steps = 6 + number
    observations = [
        {key: (rng.normal(size=spec.shape) * 9).astype(spec.dtype) for key, spec in ARRAYS.items()} for _ in range(steps)
    ]
    if camera:
        for step, observation in enumerate(observations):
            observation["camera"] = picture(number, step)
    actions = [rng.uniform((-1, -0.5), (1, 0.5)).astype(np.float32) for _ in range(steps - 1)]
    success = number % 2 == 1
    metadata = EpisodeMetadata(
        episode_id=f"episode-{number}", task=f"task {number % 2}", robot="panda", seed=number, success=success
    )
    return Episode.from_transitions(
        observations, actions, list(np.arange(steps - 1) + 10.0 * number), terminal=success, metadata=metadata
    )


def picture(number: int, step: int) -> np.ndarray:
    """Smooth, as video loses what is not, and different in every frame, so that a shift shows."""
    rows, columns = np.mgrid[: CAMERA.shape[0], : CAMERA.shape[1]]
    return np.stack([rows * 2, columns, rows * 0 + 16 * step + 8 * number], axis=-1).astype(np.uint8)


def make_store(root: Path, *, camera: bool, count: int = 4, pictures: Pictures = "png") -> EpisodeStore:
    """A store called ``arm``."""
    arrays = ARRAYS | ({"camera": CAMERA} if camera else {})
    store = EpisodeStore.create(root, "arm", Schema(ObservationSpec(arrays), ACTION, pictures=pictures))
    with store.writer() as writer:
        for number in range(count):
            writer.append(episode(number, camera=camera))
    return store

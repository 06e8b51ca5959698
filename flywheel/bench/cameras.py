"""Synthetic episodes with cameras, as large and as hard to compress as a simulator's; without torch, for robot computers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import ActionSpec, Array, ArraySpec, ObservationSpec
from flywheel.datasets.schema import Pictures, Schema

CAMERAS = ("agentview", "wrist")
SIZE, HORIZON = 84, 200
"""Of a picture, in pixels, and of an episode, in transitions: 8.5 MB raw."""


def picture_schema(pictures: Pictures = "jpeg") -> Schema:
    """A state, an action and two cameras."""
    cameras = {camera: ArraySpec((SIZE, SIZE, 3), "uint8") for camera in CAMERAS}
    return Schema(
        observation=ObservationSpec({"state": ArraySpec((32,)), **cameras}),
        action=ActionSpec(low=(-1.0,) * 7, high=(1.0,) * 7),
        pictures=pictures,
    )


def picture_episodes(seed: int = 0) -> Iterator[Episode]:
    """Episodes without end: a textured table on which a block moves, as large in JPEG as a simulator's pictures are."""
    rng = np.random.default_rng(seed)
    number = 0
    while True:
        steps = [
            {"state": state, **{camera: _scene(rng.integers(1 << 30), step) for camera in CAMERAS}}
            for step, state in enumerate(rng.standard_normal((HORIZON + 1, 32), np.float32))
        ]
        yield Episode.from_transitions(
            steps,
            list(rng.uniform(-1, 1, (HORIZON, 7)).astype(np.float32)),
            [0.0] * HORIZON,
            terminal=False,
            metadata=EpisodeMetadata(episode_id=f"pictures-{seed}-{number:05d}", task="bench"),
        )
        number += 1


def _scene(seed: int, step: int) -> Array:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    waves = rng.uniform(5, 20, (3, 2))
    picture = np.stack([120 + 50 * np.sin(x / a + step / 30) + 30 * np.cos(y / b) for a, b in waves], axis=-1)
    top, left = rng.integers(0, SIZE - 30, 2)
    picture[top : top + 24, left : left + 24] = rng.uniform(0, 255, 3)
    return np.asarray((picture + rng.normal(0, 2.0, picture.shape)).clip(0, 255), np.uint8)

"""Red and blue exchanged: what OpenCV's cameras do to a policy that learned from others. Told by what a camera usually shows.

How much redder than blue the parts of a picture are is compared with the median of what the camera shows, as it is and with the
two exchanged. Of a fixed scene the wrong order is several times as far away (of robosuite's Lift, 2.6 to 7 times: all of 656
pictures are told); of scenes that have nothing in common both are alike far, and nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array

if TYPE_CHECKING:  # it imports torch
    from flywheel.datasets.columns import Columns

_SIDE = 4
"""Parts in a row and in a column."""
_MOST = 512
"""Episodes that are looked at, evenly spread."""
_FEWEST = 8
"""Without so many there is nothing usual."""
_NEARER = 0.5
"""Exchanged it must be nearer than this share of its distance as it is."""


def usual_pictures(columns: Columns) -> dict[str, Array]:
    """How red what each camera of three colours shows at first usually is: the median `redness`, (4, 4) float32.

    Raises `FlywheelError` for episodes in which a camera's red and blue are exchanged.
    """
    episodes = np.unique(np.linspace(0, len(columns.table) - 1, min(len(columns.table), _MOST)).astype(np.int64))
    if len(episodes) < _FEWEST:
        return {}
    usual = {}
    for key, frames in columns.arrays.items():
        if frames.maps.spec.shape[-1:] == (3,) and len(frames.maps.spec.shape) == 3:
            pictures = frames.gather(columns.table.start[episodes]).permute(0, 2, 3, 1).numpy()
            seen = np.stack([redness(picture) for picture in pictures])
            usual[key] = np.median(seen, axis=0).astype(np.float32)
            wrong = [columns.table.episode_id[episodes[n]] for n, found in enumerate(seen) if is_exchanged(found, usual[key])]
            if wrong:
                raise FlywheelError(
                    f"The camera '{key}' seems to show blue for red in {len(wrong)} of {len(episodes)} episodes, as in "
                    f"{wrong[0]}; label them invalid (flywheel store label), log them as RGB, or set --data.any-colors."
                )
    return usual


def check_colors(observation: Mapping[str, Array], usual: Mapping[str, Array]) -> None:
    """Raises `FlywheelError` where a camera's picture has red and blue exchanged."""
    for key, expected in usual.items():
        if is_exchanged(redness(observation[key]), expected):
            raise FlywheelError(f"The camera '{key}' seems to show blue for red; give RGB pictures (OpenCV's are BGR).")


def redness(picture: Array) -> Array:
    """How much redder than blue the (4, 4) parts of a picture (H, W, 3) are: (4, 4) float32, in [-255, 255]."""
    difference = picture[..., 0].astype(np.float32) - picture[..., 2]
    parts = [np.array_split(rows, _SIDE, axis=1) for rows in np.array_split(difference, _SIDE, axis=0)]
    return np.array([[part.mean() for part in row] for row in parts], np.float32)


def is_exchanged(seen: Array, usual: Array) -> bool:
    """Whether a picture's redness is much nearer to the usual one with red and blue exchanged."""
    return bool(np.linalg.norm(-seen - usual) < _NEARER * np.linalg.norm(seen - usual))

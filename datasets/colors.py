"""Red and blue exchanged: what OpenCV's cameras do to a policy that learned from others. Told by what a camera usually shows.

How much redder than blue the parts of a picture are is compared with the median of what the camera shows, as it is and with the
two exchanged. Of a fixed scene the wrong order is several times as far away (of robosuite's Lift, 2.6 to 7 times: all of 656
pictures are told); of scenes that have nothing in common both are alike far, and nothing is said. Nor is it where few parts have
any colour: a red object in a grey scene may well be exchanged for a blue one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
FEWEST = 8
"""Episodes; without so many there is nothing usual."""
_COLORED, _PARTS = 4.0, 8
"""How red or blue at least (of 255) how many parts must usually be."""
_NEARER = 0.4
"""Exchanged it must be nearer than this share of its distance as it is."""


def usual_pictures(columns: Columns) -> dict[str, Array]:
    """How red what each camera of three colours shows at first usually is: the median `redness`, (4, 4) float32.

    Raises `FlywheelError` for episodes in which a camera's red and blue are exchanged.
    """
    episodes = np.unique(np.linspace(0, len(columns.table) - 1, min(len(columns.table), _MOST)).astype(np.int64))
    if len(episodes) < FEWEST:
        return {}
    usual = {}
    for key, frames in columns.arrays.items():
        if frames.maps.spec.shape[-1:] == (3,) and len(frames.maps.spec.shape) == 3:
            pictures = frames.gather(columns.table.start[episodes]).permute(0, 2, 3, 1).numpy()
            usual[key] = usual_redness(key, pictures, [columns.table.episode_id[number] for number in episodes])
    return usual


def usual_redness(camera: str, pictures: Array, episode_ids: Sequence[str]) -> Array:
    """The median `redness` of one picture of each of some episodes, (N, H, W, 3); raises as `usual_pictures` does."""
    seen = np.stack([redness(picture) for picture in pictures])
    usual: Array = np.median(seen, axis=0).astype(np.float32)
    wrong = [name for name, found in zip(episode_ids, seen, strict=True) if is_exchanged(found, usual)]
    if wrong:
        raise FlywheelError(
            f"The camera '{camera}' seems to show blue for red in {len(wrong)} of {len(seen)} episodes, as in {wrong[0]}; label "
            "them invalid (flywheel store label), log them as RGB, or set any-colors."
        )
    return usual


def check_alike(usual: Mapping[str, Array], other: Mapping[str, Array], store: object) -> None:
    """Raises `FlywheelError` where what a camera usually shows in another store has red and blue exchanged."""
    for key in usual.keys() & other.keys():
        if is_exchanged(other[key], usual[key]):
            raise FlywheelError(
                f"The camera '{key}' of {store} seems to show blue for red, beside the first store; log it as RGB, or set "
                "any-colors."
            )


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
    if np.count_nonzero(np.abs(usual) > _COLORED) < _PARTS:
        return False
    return bool(np.linalg.norm(-seen - usual) < _NEARER * np.linalg.norm(seen - usual))

"""Encoded pictures of foreign files, decoded with Pillow: only PNG and JPEG, and only of the size that is declared."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.importers.files import need, reading

_MOST_PIXELS = 1 << 26
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def decode_pictures(path: Path, what: str, encoded: Sequence[bytes], shape: tuple[int, ...]) -> Array:
    """(T, *shape) uint8; `shape` is (H, W) or (H, W, 1|3|4). Raises `FlywheelError` for anything else than such pictures."""
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in _MODES:
        raise FlywheelError(f"{path}: {what} is encoded as pictures, and its shape {shape} is none of a picture.")
    frames = [_decode(path, what, data, shape, _MODES[channels]) for data in encoded]
    return np.stack(frames) if frames else np.zeros((0, *shape), np.uint8)


def picture_shape(path: Path, what: str, encoded: Sequence[bytes], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The declared shape, with height and width from the first picture where they are declared as -1."""
    if -1 not in shape[:2] or not encoded:
        return shape
    with reading(path, what), need("PIL.Image").open(io.BytesIO(encoded[0]), formats=("PNG", "JPEG")) as picture:
        if picture.width * picture.height > _MOST_PIXELS:
            raise FlywheelError(f"{path}: {what} holds a picture of {picture.width} x {picture.height} pixels, too many.")
        return (picture.height, picture.width, *shape[2:])


def _decode(path: Path, what: str, data: bytes, shape: tuple[int, ...], mode: str) -> Array:
    with reading(path, what), need("PIL.Image").open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
        # The size is known before the pixels are decoded, so a small file cannot ask for much memory.
        if picture.size != (shape[1], shape[0]) or picture.mode != mode:
            raise FlywheelError(
                f"{path}: {what} holds a picture {picture.size[::-1]} of mode {picture.mode}, not {shape} of mode {mode}."
            )
        return np.asarray(picture, np.uint8).reshape(shape)

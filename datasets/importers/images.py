"""Encoded pictures of foreign files: only PNG and JPEG, and only of the size that is declared."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.importers.files import reading
from flywheel.datasets.pictures import decode_many

_CHANNELS = (1, 3, 4)


def decode_pictures(path: Path, what: str, encoded: Sequence[bytes], shape: tuple[int, ...]) -> Array:
    """(T, *shape) uint8; `shape` is (H, W) or (H, W, 1|3|4), with -1 for a height and width that the first picture tells.

    Raises `FlywheelError` for anything else than such pictures.
    """
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in _CHANNELS):
        raise FlywheelError(f"{path}: {what} is encoded as pictures, and its shape {shape} is none of a picture.")
    with reading(path, what):
        size = _size(encoded[0]) if -1 in shape[:2] and encoded else shape[:2]
        pictures = decode_many(encoded, (*size, *(shape[2:] or (1,))))
        return pictures.reshape(len(encoded), *size, *shape[2:])


def _size(data: bytes) -> tuple[int, int]:
    # Pillow warns of, and then refuses, a picture of more than 89 million pixels.
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
        return picture.height, picture.width

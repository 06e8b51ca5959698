"""Arrays and pictures as LeRobot's parquet columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from flywheel.core.specs import Array
from flywheel.datasets.importers.files import need
from flywheel.datasets.pictures import encode_many


def arrow() -> Any:
    """The module pyarrow; raises `FlywheelError` if it is missing."""
    return need("pyarrow")


def parquet() -> Any:
    """The module pyarrow.parquet; raises `FlywheelError` if it is missing."""
    return need("pyarrow.parquet")


def array_column(values: Array) -> Any:
    """(T, *shape) as HuggingFace's `datasets` lays it out: numbers, vectors of fixed size, and lists of lists for more axes."""
    column = arrow().array(values.reshape(-1))
    sizes = values.shape[1:]
    if sizes in ((), (1,)):
        return column
    if len(sizes) == 1:
        return arrow().FixedSizeListArray.from_arrays(column, sizes[0])
    for size in reversed(sizes):
        column = arrow().ListArray.from_arrays(np.arange(0, len(column) + 1, size, dtype=np.int32), column)
    return column


def picture_column(frames: Array) -> Any:
    """(T, H, W, C) uint8 as PNG, in HuggingFace's Image feature."""
    names = [f"frame-{number:06d}.png" for number in range(len(frames))]
    encoded = arrow().array(encode_many(frames, "png"), arrow().binary())
    return arrow().StructArray.from_arrays([encoded, arrow().array(names, arrow().string())], ["bytes", "path"])

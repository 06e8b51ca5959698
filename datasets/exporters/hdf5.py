"""What the two HDF5 formats share."""

from __future__ import annotations

from typing import Any

from flywheel.core.specs import Array


def write_array(group: Any, name: str, values: Array) -> None:
    """Write a data set, (T, *shape), into an h5py group; pictures are compressed, losslessly.

    A frame is a chunk of its own, as random frames are what is read.
    """
    picture = values.ndim == 4 and values.dtype == "uint8"
    options = {"chunks": (1, *values.shape[1:]), "compression": "gzip", "compression_opts": 1} if picture else {}
    group.create_dataset(name, data=values, **options)

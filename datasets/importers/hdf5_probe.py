"""Look at everything in an HDF5 file that has crashed its library when damaged. Run as a script, so that only it crashes."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from typing import Any

h5py: Any = importlib.import_module("h5py")


def _look(name: str, item: Any) -> None:
    for key in item.attrs:
        with suppress(Exception):
            item.attrs[key]
    if isinstance(item, h5py.Dataset):
        with suppress(Exception):
            if item.dtype.hasobject and 16 * item.size <= 2048 * item.id.get_storage_size():
                item[()]


# An exception is no crash: the importer meets it, too, and makes a sentence of it.
with suppress(Exception), h5py.File(sys.argv[1], "r") as file:
    _look("", file)
    file.visititems(_look)

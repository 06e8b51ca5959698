"""Foreign files, never trusted: content hashes, paths that stay inside, and one sentence for whatever goes wrong in reading."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError

LARGEST_RATIO = 1100
"""Deflate makes at most 1,032 bytes of one; a file that promises more than this times its size lies or is a bomb."""
_LARGEST_JSON = 64 << 20


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; raises `FlywheelError` if it cannot be read."""
    with reading(path, "its content"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(root: Path, path: Path) -> Path:
    """`path` if it lies in `root` also after every link is followed; raises `FlywheelError` otherwise."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise FlywheelError(f"{path} leads out of {root} and is not read; copy what it points to into the folder.")
    return path


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts demo_10 behind demo_9."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(1, int(part), "") if part.isascii() and part.isdigit() else (0, 0, part) for part in parts]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises `FlywheelError` if there is none, or one of more than 64 MiB."""
    with reading(path, "its JSON"):
        if path.stat().st_size > _LARGEST_JSON:
            raise FlywheelError(f"{path} is larger than {_LARGEST_JSON >> 20} MiB and is not read.")
        value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise FlywheelError(f"{path} is no JSON object.")
    return value


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Tell whatever a reading library raises as a `FlywheelError` that names file and field.

    On damaged files h5py, zlib, pyarrow and Pillow raise nearly every exception there is, so nothing less than all will do.
    """
    try:
        yield
    except FlywheelError as error:
        if str(path) in str(error):
            raise
        raise FlywheelError(f"{path}: {what}: {error}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FlywheelError(f"{path}: {what} cannot be read ({reason}); the file is damaged or of another kind.") from None


def need(module: str, extra: str = "import") -> Any:
    """Import an optional library; raises `FlywheelError` naming the extra if it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        package = module.partition(".")[0]
        raise FlywheelError(f"This needs the package '{package}': pip install 'flywheel-robotics[{extra}]'.") from None


def check_size(path: Path, what: str, promised: int, held: int) -> None:
    """Refuse an array whose declared size its bytes on disk cannot hold, before memory is asked for."""
    if promised > LARGEST_RATIO * held + 4096:
        raise FlywheelError(f"{path}: {what} promises {promised:,} bytes and holds {held:,}; the file is damaged or hostile.")


def check_dtype(path: Path, what: str, dtype: np.dtype[Any]) -> None:
    """Refuse what is no plain number: objects, records, times."""
    if dtype.hasobject or dtype.kind not in "biufSU":
        raise FlywheelError(f"{path}: {what} holds {dtype}, which is not read; only numbers and texts are.")

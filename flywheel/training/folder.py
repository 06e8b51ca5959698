"""A run's folder belongs to one process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flywheel.core.errors import FlywheelError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and keep others out inside; raises `FlywheelError` where another process is there, or it is a store."""
    if (folder / "features.json").exists():
        raise FlywheelError(f"{folder} is a store of episodes; give the run a folder of its own (--output).")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FlywheelError(f"Another process is training in {folder}; wait for it, or give another --output.") from None
        yield

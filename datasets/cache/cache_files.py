"""Writing to files that are derived from a store: a full disk is told in one sentence and costs nothing but time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flywheel.core.errors import FlywheelError


def append(path: Path, data: bytes) -> None:
    """Add to the end of a file, durably; raises `FlywheelError` if the disk is full."""
    with _told_when_full(path, len(data)), path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())


def write_at(path: Path, offset: int, data: bytes) -> None:
    """Write into a file that is there, not durably yet; raises `FlywheelError` if the disk is full."""
    with _told_when_full(path, len(data)), path.open("r+b", buffering=0) as file:
        file.seek(offset)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


@contextmanager
def _told_when_full(path: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FlywheelError(
            f"The disk is full: the training cache {path.parent} needs {size:,} more bytes in {path.name}; free some "
            "space and start again, and it goes on where it was."
        ) from None

"""What every exporter does: read the episodes of a snapshot in its order, and make a folder that is there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.core.files import fsync_folder
from flywheel.core.lineage import code_version
from flywheel.datasets.index import IndexRow
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore

Progress = Callable[[int, int], None]
"""Called with (episodes written, episodes in all)."""


@dataclass(frozen=True)
class Export:
    """What is exported: the episodes of a snapshot as they were labelled in it, in its order."""

    store: EpisodeStore
    snapshot: Snapshot
    on_progress: Progress = lambda done, total: None

    def episodes(self) -> Iterator[Episode]:
        """Every episode, one in memory at a time.

        Raises `DamagedError` for a damaged one: what is exported under the snapshot's hash must be all of the snapshot.
        """
        for done, row in enumerate(self.rows, start=1):
            yield self.store.read_as(row)
            self.on_progress(done, len(self.rows))

    @cached_property
    def rows(self) -> list[IndexRow]:
        """The rows of the episodes, labelled as they were in the snapshot."""
        return self.store.resolve(self.snapshot)

    def provenance(self) -> dict[str, Any]:
        """What goes into the format's free-form place. It has no time, so that one snapshot is always exported alike."""
        return {
            "store": self.store.name,
            "snapshot": self.snapshot.hash,
            "episodes": len(self.snapshot),
            "code_version": code_version(),
            "schema": self.store.schema.to_json(),
        }


@contextmanager
def published(export: Export, folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to write into, which takes its name at the end; after an error nothing is left.

    Raises `FlywheelError` for a snapshot without episodes and a folder that holds something. What a kill leaves behind is
    hidden, and the next export to the same folder removes it.
    """
    folder = Path(os.path.abspath(folder))
    if not export.snapshot.entries:
        raise FlywheelError(f"No episode of {export.store.path} was chosen; there is nothing to export.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FlywheelError(f"{folder} holds something already; export into a folder that is new or empty.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.exporting")
    with _alone(temporary, folder):
        try:
            yield temporary
            _sync(temporary)
            _take_name(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def _alone(temporary: Path, folder: Path) -> Iterator[None]:
    """An empty temporary folder, held by a lock that dies with the process."""
    temporary.mkdir(exist_ok=True)
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in temporary.iterdir():  # of an export that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    except BlockingIOError:
        raise FlywheelError(f"Another process is exporting to {folder}; wait for it or choose another folder.") from None
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """Make every file and folder durable."""
    for root, _, files in os.walk(folder):
        for name in files:
            descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_folder(Path(root))


def _take_name(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FlywheelError(f"{folder} was filled while it was exported to; export into another folder.") from None
        raise
    fsync_folder(folder.parent)

"""What the worker processes of these tests do; spawned processes cannot import from test modules."""

from __future__ import annotations

import errno
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flywheel.core.errors import FlywheelError
from flywheel.datasets.tfrecord import DamageWarning


@dataclass(frozen=True)
class Double:
    @contextmanager
    def open(self) -> Iterator[Callable[[int], tuple[int, int, str]]]:
        yield lambda seed: (2 * seed, os.getpid(), os.environ.get("OMP_NUM_THREADS", ""))


@dataclass(frozen=True)
class Fail:
    """Fails at seed 3 in one of four ways."""

    how: str

    @contextmanager
    def open(self) -> Iterator[Callable[[int], int]]:
        def work(seed: int) -> int:
            if seed == 3 and self.how == "mistake":
                raise FlywheelError("The disk is full; make room.")
            if seed == 3 and self.how == "disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a-file")
            if seed == 3 and self.how == "bug":
                raise ZeroDivisionError("a bug")
            if seed == 3 and self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            return seed

        yield work


@dataclass(frozen=True)
class Slow:
    """Says in files when it works and when it has closed."""

    folder: Path

    @contextmanager
    def open(self) -> Iterator[Callable[[int], int]]:
        def work(seed: int) -> int:
            (self.folder / f"working-{os.getpid()}").touch()
            time.sleep(0.05)
            return seed

        try:
            yield work
        finally:
            (self.folder / f"closed-{os.getpid()}").touch()


@dataclass(frozen=True)
class Warn:
    @contextmanager
    def open(self) -> Iterator[Callable[[int], int]]:
        def work(seed: int) -> int:
            warnings.warn(f"Record {seed} is damaged.", DamageWarning, stacklevel=1)
            return seed

        yield work

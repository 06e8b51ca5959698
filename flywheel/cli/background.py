"""A training in a process of its own, while this one goes on: how far it is, and what becomes of it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from flywheel.cli.console import Report
from flywheel.core.errors import FlywheelError
from flywheel.rollout.workers import deaf_to_interrupts, pass_on, serving
from flywheel.training.train import TrainConfig, train

_GLANCE = 0.2
"""Seconds between two looks at how far a training is."""


class BackgroundTraining:
    """A training that has been started; make one with `in_background`."""

    def __init__(self, name: str, config: TrainConfig) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._updates = context.RawArray("q", [0, config.updates])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_train, args=(theirs, config, self._updates), daemon=True)
        with deaf_to_interrupts():
            self._process.start()
        theirs.close()

    def wait(self, on_progress: Report) -> float:
        """Wait until it is done, and return the seconds that it took; `on_progress` counts its updates.

        Raises what the training raised, and `FlywheelError` if it was killed.
        """
        while True:
            while not self._pipe.poll(_GLANCE):
                on_progress(*self._updates)
            try:
                kind, value = message = self._pipe.recv()
            except (EOFError, ConnectionError):
                self._process.join()
                raise FlywheelError(
                    f"The training '{self.name}' was killed (exit code {self._process.exitcode}; out of memory?); start the demo "
                    "again and it goes on."
                ) from None
            pass_on(message)
            if kind == "result":
                on_progress(*self._updates)
                return float(value)

    def end(self) -> None:
        """Kill it if it still runs: started again, it resumes from its last checkpoint as if nothing had happened."""
        self._process.kill()
        self._process.join()


@contextmanager
def in_background(name: str, config: TrainConfig) -> Iterator[BackgroundTraining]:
    """Within, the training runs beside what this process does; it ends with it, after an error or Ctrl-C too."""
    training = BackgroundTraining(name, config)
    try:
        yield training
    finally:
        training.end()


def _train(pipe: Connection, config: TrainConfig, updates: Any) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    started = time.monotonic()

    def report(done: int, total: int) -> None:
        updates[:] = done, total
        if not parent.is_alive():
            raise SystemExit(1)

    with serving(pipe):
        train(config, report)
        updates[0] = config.updates
        pipe.send(("result", time.monotonic() - started))

"""Episodes in parallel processes: each process opens the job once, then is handed one seed at a time.

Every process has a pipe of its own, so that one that is killed at any moment leaves no shared lock behind and is noticed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Literal, Protocol, TypeVar

from flywheel.core.errors import FlywheelError

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Message = tuple[Literal["ready", "result", "done", "warning", "mistake", "error"], Any]

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PATIENCE = 30.0
"""Seconds that a process gets to finish its episode and close its files."""


class Job(Protocol[R_co]):
    """What a process does; it must be picklable."""

    def open(self) -> AbstractContextManager[Callable[[int], R_co]]:
        """Prepare whatever an episode needs; yields the function from a seed to its result."""


def run_job(job: Job[R], seeds: Sequence[int], processes: int) -> Generator[R, None, None]:
    """The result of every seed, in the order in which they finish; one process means this one.

    Closing the generator, or Ctrl-C, lets the processes finish their episodes and end. Raises the `FlywheelError` or `OSError`
    that a process met, and `FlywheelError` when a process dies.
    """
    if processes == 1:
        with job.open() as work:
            yield from map(work, seeds)
        return
    waiting = deque(seeds)
    workers: dict[Connection, SpawnProcess] = {}
    try:
        with _single_threaded(), deaf_to_interrupts():
            workers.update(_start(job) for _ in range(min(processes, len(seeds))))
        active = set(workers)
        while active:
            for pipe in wait(list(active)):
                assert isinstance(pipe, Connection)
                kind, value = _receive(pipe, workers[pipe])
                if kind == "done":
                    active.remove(pipe)
                if kind in ("done", "warning"):
                    continue
                pipe.send(waiting.popleft() if waiting else None)
                if kind == "result":
                    yield value
    finally:
        _end(workers)


def _start(job: Job[R]) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, job), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _receive(pipe: Connection, process: SpawnProcess) -> Message:
    try:
        message: Message = pipe.recv()
    except (EOFError, ConnectionError):
        process.join(_PATIENCE)
        raise FlywheelError(
            f"A worker process died with exit code {process.exitcode} (out of memory?); what it had stored is kept, run it again."
        ) from None
    pass_on(message)
    return message


def pass_on(message: Message) -> None:
    """Warn of what a process warned of, and raise what it met."""
    kind, value = message
    if kind == "warning":
        warnings.warn(value, stacklevel=2)
    if kind == "mistake":
        raise value
    if kind == "error":
        raise RuntimeError(f"A worker process failed:\n{value}")


def _end(workers: dict[Connection, SpawnProcess]) -> None:
    # A process that reads a closed pipe finishes its episode, closes its files and ends.
    for pipe in workers:
        pipe.close()
    for process in workers.values():
        process.join(_PATIENCE)
        if process.is_alive():
            process.terminate()


def _serve(pipe: Connection, job: Job[R]) -> None:
    with serving(pipe):
        with job.open() as work:
            pipe.send(("ready", None))
            while (seed := pipe.recv()) is not None:
                pipe.send(("result", work(seed)))
        pipe.send(("done", None))


@contextmanager
def serving(pipe: Connection) -> Iterator[None]:
    """What a process does goes in here: the parent is told of warnings, mistakes and bugs, and decides when to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    warnings.showwarning = lambda message, *_, **__: _tell(pipe, ("warning", message))
    try:
        yield
    except (EOFError, ConnectionError):
        return  # the parent has closed the pipe, or is gone
    except (FlywheelError, OSError) as error:
        _tell(pipe, ("mistake", error))
    except Exception:
        _tell(pipe, ("error", traceback.format_exc()))


def _tell(pipe: Connection, message: Message) -> None:
    # When all processes meet the same mistake, the parent ends at the first that tells it.
    with suppress(ConnectionError):
        pipe.send(message)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Processes started within use one thread each: many processes with many threads are slower than one."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes started within inherit a blocked Ctrl-C, so that it cannot tear them while they still import; ours waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

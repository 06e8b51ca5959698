"""What a `Recorder` stands on: frames into the ring, word to and from the recorder's process, and its new start after a kill."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from flywheel.core.errors import FlywheelError
from flywheel.datasets.journal import StoreWarning
from flywheel.datasets.layout import Layout
from flywheel.datasets.recording.link import Link, Settings
from flywheel.datasets.recording.ring import HEADER, Ring, create_memory
from flywheel.datasets.recording.spill import open_session
from flywheel.datasets.recording.step_encoder import StepEncoder
from flywheel.datasets.recording.step_layout import StepLayout

if TYPE_CHECKING:
    from flywheel.datasets.store import EpisodeStore

_ROOM_SECONDS = 10.0
"""How long the beginning and the end of an episode wait for room; a step never waits."""
_LEAST_STEPS = 16
_PAGE = 4096
_MOST_DEATHS = 5
"""How often the process is started again while one thing is waited for: what kills it will go on doing so."""


class RecorderError(FlywheelError):
    """The recorder's process is dead or could not do its work; raised by the next call, whose step was not recorded."""


class RecorderFullError(RecorderError):
    """There was no room for a step. It was not recorded, and may be tried again."""


@dataclass(slots=True)
class Outcome:
    """What became of an episode."""

    episode_id: str
    steps: int = 0
    """The transitions that are stored."""
    is_done: bool = False
    error: str = ""


class Session:
    """One recorder's memory and process."""

    def __init__(self, store: EpisodeStore, ring_bytes: int, seal_episodes: int) -> None:
        self.layout = StepLayout(store.schema)
        if ring_bytes < _LEAST_STEPS * self.layout.largest:
            raise FlywheelError(
                f"A recorder's memory of {ring_bytes} bytes is too small: a step has up to {self.layout.largest}, and "
                f"{_LEAST_STEPS} of them must fit; make ring_bytes larger."
            )
        self.outcomes: list[Outcome] = []
        self.rate = store.schema.action.rate
        with ExitStack() as held:
            memory = create_memory(-(-ring_bytes // _PAGE) * _PAGE)
            held.callback(os.close, memory)
            name, lock = open_session(Layout(store.path).journals)
            held.callback(os.close, lock)
            self.ring = Ring(memory)
            self._link = Link(Settings(str(store.path), name, lock, memory, seal_episodes, os.getpid()))
            self._held = held.pop_all()
        self._number = self._raised = 0
        self._is_ready = False
        self.is_closed = False
        _sessions.add(self)
        self._link.start(0)
        try:
            self.wait(lambda: self._is_ready, None)
        except BaseException:
            self.release()
            raise

    def check(self) -> None:
        """Raise what the recorder's process has to complain about, once; costs next to nothing where there is nothing."""
        if self.ring.errors != self._raised:
            self.hear()

    def hear(self) -> None:
        """Take in what the recorder's process has said, and raise what it complains about."""
        self._hear(0.0)

    def put(self, kind: int, length: int, *, step: StepEncoder | None = None, end: bytes = b"", small: bool = False) -> None:
        """Write a frame of that length, with or without a step, and tell the recorder's process.

        Raises `RecorderFullError` if there is no room, and `RecorderError` if the process is dead, which is then started again.
        The order makes an interrupt at any moment harmless: until the head is committed, there is no frame.
        """
        if self.is_closed:
            raise FlywheelError("The recorder is closed, or was made before a fork; open one in each process that records.")
        ring = self.ring
        offset = ring.reserve(length, small=small)
        if offset < 0:
            raise self._full()
        self._number = number = self._number + 1
        if step is None:
            HEADER.pack_into(ring.memory, offset, length, kind, number)
            ring.memory[offset + HEADER.size : offset + length] = end
        else:
            step.write(ring, offset, length, kind, number, end)
        before = ring.head
        head = ring.following(offset, length)
        ring.commit(head)
        try:
            self._link.tell(head)
        except BrokenPipeError:
            ring.commit(before)
            raise self._revive() from None

    def wait_for_room(self, length: int) -> None:
        """Wait until a frame of that length fits; raises `RecorderFullError` if it does not in a while."""
        deadline = time.monotonic() + _ROOM_SECONDS
        while self.ring.reserve(length) < 0:
            self.check()
            if time.monotonic() > deadline:
                raise self._full()
            time.sleep(0.005)

    def wait(self, is_done: Callable[[], bool], timeout: float | None) -> None:
        """Hear until something is so; raises `RecorderError` for what is complained about meanwhile, and `TimeoutError`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        deaths = 0
        while not is_done():
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("The recorder has not stored everything yet.")
            self._hear(0.1)
            if self._link.is_over and not is_done():
                error = self._revive()
                deaths += 1
                if deaths == _MOST_DEATHS:
                    raise error
                warnings.warn(str(error), StoreWarning, stacklevel=4)

    def close(self) -> None:
        """Let the process store everything and end; raises `RecorderError` if it could not.

        Where steps are nowhere but in the memory, as the disk is full, nothing is let go of, and this may be called again.
        """
        if self.is_closed:
            return
        for attempt in range(2):
            if attempt or self._link.is_over:  # it was killed
                self._link.start(self.ring.head)
            self._link.hang_up()
            while not self._link.is_over:
                with suppress(RecorderError):  # what it says of an episode is remembered
                    self._hear(0.5)
            if not self._link.wait() and not self.ring.used:
                break
        if self.ring.used:
            raise RecorderError("The disk has no room for the last steps, which are in memory alone; free some, and close again.")
        self.release()
        self._check_done()

    def _check_done(self) -> None:
        for outcome in self.outcomes:
            if not outcome.is_done:
                raise RecorderError(
                    f"Episode '{outcome.episode_id}' is not stored yet: {outcome.error or 'The recorder died.'} Its steps "
                    "are safe, and whoever opens a writer next stores them."
                )
            if outcome.error:
                raise RecorderError(f"Episode '{outcome.episode_id}' could not be stored: {outcome.error}")

    def _hear(self, seconds: float) -> None:
        errors = []
        for answer in self._link.hear(seconds):
            self._is_ready = self._is_ready or "ready" in answer
            if "warning" in answer:
                warnings.warn(answer["warning"], StoreWarning, stacklevel=4)
            if "error" in answer:
                self._raised += 1
                errors.append(answer["error"])
            if "episode" in answer:
                self._take_outcome(answer)
        if errors:
            raise RecorderError(errors[0])

    def _take_outcome(self, answer: dict[str, Any]) -> None:
        outcome = self.outcomes[answer["episode"]]
        outcome.steps = answer.get("steps", 0)
        outcome.error = answer.get("error", "")
        outcome.is_done = not outcome.error or answer["final"]

    def _revive(self) -> RecorderError:
        """Start the process again, which goes on where it died; returns what is to be told of it, raises if it cannot start."""
        with suppress(RecorderError):
            self._hear(0.0)
        was_ready, self._is_ready = self._is_ready, False
        status = self._link.wait()
        if not was_ready and status >= 0:
            raise RecorderError(f"The recorder's process cannot start ({_ending(status)}); what it printed tells why.")
        self._raised = self.ring.errors  # what it has not said died with it
        self._link.start(self.ring.head)
        return RecorderError(
            f"The recorder's process died ({_ending(status)}) and was started again; every step so far is safe, but this one was "
            "not recorded and may be tried again."
        )

    def _full(self) -> RecorderFullError:
        steps = self.ring.size // self.layout.largest
        seconds = f", {steps / self.rate:.1f} s of them," if self.rate else ""
        return RecorderFullError(
            f"The recorder is full: its {self.ring.size >> 20} MiB hold {steps} steps{seconds} and the disk does not keep up. "
            "This step was not recorded; try it again, or give the recorder more memory (ring_bytes)."
        )

    def release(self) -> None:
        """Let go of everything without a word; the process stores what it has, and ends."""
        self.is_closed = True
        self._link.close()
        self._held.close()


_sessions: WeakSet[Session] = WeakSet()


def _release_in_child() -> None:
    """A forked process must neither record into its parent's memory nor hold its pipe open."""
    for session in _sessions:
        session.release()


os.register_at_fork(after_in_child=_release_in_child)


def _ending(status: int) -> str:
    if status < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"

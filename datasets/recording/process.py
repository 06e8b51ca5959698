"""The process beside a control loop that takes steps out of the ring, spills them to the disk, and stores what is finished.

`Recorder` starts it; it needs neither torch nor TensorFlow. It ends when the control process closes its pipe or dies: what was
recorded until then is stored first.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import sys
import threading
import time
import warnings
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.datasets.journal import StoreWarning
from flywheel.datasets.layout import Layout
from flywheel.datasets.recording.link import Settings
from flywheel.datasets.recording.recorded import Recording
from flywheel.datasets.recording.ring import HEADER, Frame, Ring
from flywheel.datasets.recording.spill import Spill, end_session, session_spills, set_aside, store_spill
from flywheel.datasets.recording.step_layout import BREAK, FINISH
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamagedError
from flywheel.datasets.writer import EpisodeWriter

_REST_SECONDS = 0.005
"""Between two looks at the ring: steps come in one by one, and waking up for each would disturb the loop that makes them."""
_SYNC_SECONDS = 1.0
"""How old a step may be that a power loss takes."""
_RETRY_SECONDS = 1.0
_LAST_SECONDS = 10.0
"""How long to wait for room on the disk when nothing follows."""
_BATCH_BYTES = 4 << 20
_NICENESS = 5
"""It gives way to the control loop; the ring is there to wait."""


class Answers:
    """What is told to the control process, in order, from any thread, without ever waiting for it to listen."""

    def __init__(self, descriptor: int, ring: Ring) -> None:
        self._descriptor, self._ring, self._lock = descriptor, ring, threading.Lock()
        self._lines: deque[bytes] = deque()
        os.set_blocking(descriptor, False)

    def tell(self, **content: Any) -> None:
        """Send a message, or queue it."""
        self._lines.append(json.dumps(content).encode() + b"\n")
        self.send()

    def error(self, error: Exception, **content: Any) -> None:
        """Send an error, which the control loop's next call raises."""
        known = isinstance(error, FlywheelError)
        self.tell(error=str(error) if known else f"The recorder's process met an error of its own ({error!r}).", **content)
        self._ring.count_error()

    def send(self) -> None:
        """Send what is queued, as far as the pipe takes it."""
        with self._lock, suppress(BlockingIOError, BrokenPipeError):
            while self._lines:
                sent = os.write(self._descriptor, self._lines[0])
                line = self._lines.popleft()
                if sent < len(line):
                    self._lines.appendleft(line[sent:])

    def send_all(self, seconds: float) -> None:
        """Send everything, for at most so long."""
        deadline = time.monotonic() + seconds
        while self._lines and time.monotonic() < deadline:
            select.select([], [self._descriptor], [], 0.1)
            self.send()


class Storer(threading.Thread):
    """Appends finished spills, while the next episode is taken in."""

    def __init__(self, store: EpisodeStore, writer: EpisodeWriter, answers: Answers) -> None:
        super().__init__(name="store", daemon=True)
        self._layout, self._schema, self._writer, self._answers = Layout(store.path), store.schema, writer, answers
        self.spills: queue.Queue[Path | None] = queue.Queue()
        self.closing = False
        self._told = ""
        """The error that was told last: what is tried again and again is told once."""

    def run(self) -> None:
        """Store until None comes."""
        while True:
            try:
                path = self.spills.get(timeout=_RETRY_SECONDS)
            except queue.Empty:
                self._writer.seal_if_due()
                continue
            if path is None:
                break
            while not self._store(path) and not self.closing:
                time.sleep(_RETRY_SECONDS)
        try:
            self._writer.close()
        except FlywheelError as error:  # the episodes are in the journal
            warnings.warn(f"{error} The episodes are not sealed yet.", StoreWarning, stacklevel=1)

    def _store(self, path: Path) -> bool:
        """Whether this spill is done with."""
        number = int(path.stem.rpartition("-")[2])
        try:
            store_spill(self._schema, path, self._writer, partial(self._tell, number))
        except (DamagedError, SpecError) as error:
            self._answers.error(error, episode=number, final=True)
            with suppress(FlywheelError):  # it stays where it is
                set_aside(self._layout, path)
            return True
        except Exception as error:
            if str(error) != self._told:
                self._answers.error(error, episode=number, final=False)
            self._told = str(error)
            return False
        self._told = ""
        return True

    def _tell(self, number: int, recording: Recording | None) -> None:
        self._answers.tell(episode=number, steps=0 if recording is None else recording.transitions)


class Drain:
    """Takes frames out of the ring and into spills."""

    def __init__(self, ring: Ring, folder: Path, session: str, storer: Storer) -> None:
        self._ring, self._folder, self._session, self._storer = ring, folder, session, storer
        self._spill: Spill | None = None
        self._number = 0
        self._batch: list[Frame] = []
        self._synced_at = time.monotonic()

    def resume(self) -> None:
        """Go on with what a process that was killed has left."""
        for path in session_spills(self._folder, self._session):
            spill = Spill.resume(path)
            self._number = max(self._number, spill.number)
            if spill.is_whole or not spill.size:
                spill.close()
                self._storer.spills.put(path) if spill.size else path.unlink()
            else:
                self._spill = spill

    def take(self, head: int) -> None:
        """Spill everything up to the head; raises `FlywheelError` if the disk refuses, with the rest left in the ring."""
        self._batch, held = [], 0
        for frame in self._ring.frames(head):
            if frame.number <= self._number:  # spilled by a process that was killed before it could say so
                continue
            self._batch.append(frame)
            held += len(frame.data)
            if frame.kind in (FINISH, BREAK) or held >= _BATCH_BYTES:
                self._flush()
                held = 0
        self._flush()
        self._ring.release(head)

    def sync(self) -> None:
        """Make the spill safe from a power loss, from time to time."""
        if self._spill is not None and time.monotonic() - self._synced_at >= _SYNC_SECONDS:
            self._spill.sync()
            self._synced_at = time.monotonic()

    def close(self) -> None:
        """Give what is not finished to be stored as it is."""
        if self._spill is not None:
            self._hand_over(self._spill)

    def _flush(self) -> None:
        if not self._batch:
            return
        if self._spill is None:
            episode = json.loads(self._batch[0].data[HEADER.size :])["episode"]
            self._spill = Spill.create(self._folder / f"{self._session}-{episode:06d}.spill")
        self._spill.append([frame.data for frame in self._batch])
        self._number = self._batch[-1].number
        self._ring.release(self._batch[-1].end)
        self._batch = []
        if self._spill.is_whole:
            self._hand_over(self._spill)

    def _hand_over(self, spill: Spill) -> None:
        spill.close()
        self._storer.spills.put(spill.path)
        self._spill = None


class RecorderProcess:
    """The loop of this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ring = Ring(settings.ring)
        self._answers = Answers(settings.answers, self._ring)
        self._head = settings.head
        self._is_full = False

    def run(self) -> None:
        """Take steps in until the control process is gone, and store them all."""
        settings, answers = self._settings, self._answers
        warnings.simplefilter("always", StoreWarning)
        warnings.showwarning = lambda message, *_: answers.tell(warning=str(message))
        try:
            store = EpisodeStore.open(settings.store)
            storer = Storer(store, store.writer(settings.seal_episodes), answers)
        except FlywheelError as error:
            answers.error(error)
            answers.send_all(_RETRY_SECONDS)
            return
        layout = Layout(store.path)
        drain = Drain(self._ring, layout.journals, settings.session, storer)
        drain.resume()
        storer.start()
        answers.tell(ready=True)
        os.set_blocking(settings.doorbell, False)
        while self._listen():
            if not storer.is_alive():
                raise SystemExit("The thread that stores episodes has ended.")  # the control process starts another process
            self._work(drain)
            answers.send()
            time.sleep(_RETRY_SECONDS / 2 if self._is_full else _REST_SECONDS)
        self._head = max(self._head, self._ring.head)
        self._work_off(drain)
        drain.close()
        storer.closing = True
        storer.spills.put(None)
        while storer.is_alive():
            storer.join(_REST_SECONDS)
            answers.send()
        end_session(layout.journals, settings.session)
        answers.send_all(10.0)

    def _listen(self) -> bool:
        """Wait for the next head; False once the control process is gone."""
        select.select([self._settings.doorbell], [], [], _SYNC_SECONDS / 2)
        try:
            heads = os.read(self._settings.doorbell, 1 << 16)
        except BlockingIOError:
            # A process forked from the control process may hold the pipe open after its death.
            return os.getppid() == self._settings.parent
        if not heads:
            return False
        self._head = max(self._head, int.from_bytes(heads[-8:], sys.byteorder))
        return True

    def _work_off(self, drain: Drain) -> None:
        """Take in the rest, of which nobody else has a copy once the control process is dead."""
        deadline = time.monotonic() + _LAST_SECONDS
        self._work(drain)
        while self._is_full and time.monotonic() < deadline:
            time.sleep(_RETRY_SECONDS / 2)
            self._work(drain)

    def _work(self, drain: Drain) -> None:
        try:
            drain.take(self._head)
            drain.sync()
        except FlywheelError as error:
            if not self._is_full:
                self._answers.error(error)
            self._is_full = True
        else:
            self._is_full = False


def _give_way() -> None:
    """Undo what is inherited of a control process that has real-time priority, or a processor of its own."""
    with suppress(OSError, AttributeError):  # AttributeError: macOS
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        own = os.sched_getaffinity(0)
        if len(own) == 1:
            os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - own or own)
    with suppress(OSError):
        os.nice(_NICENESS)


def main(argument: str) -> None:
    """Run with the settings of `Settings.to_argument`."""
    # What is typed at a terminal is meant for the control process, and so is a service's end: its pipe tells when it is done.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _give_way()
    process = RecorderProcess(Settings(**json.loads(argument)))
    process.run()


if __name__ == "__main__":
    main(sys.argv[1])

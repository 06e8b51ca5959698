"""The control process's end of what connects it with a recorder's process: starting it, telling it, hearing from it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

_MODULE = "flywheel.datasets.recording.process"


@dataclass(frozen=True)
class Settings:
    """What the control process hands over: descriptors, which are inherited, and what is to be done with them."""

    store: str
    session: str
    """The recorder's name, as `spill.open_session` gave it."""
    lock: int
    """Held open as long as either process lives."""
    ring: int
    seal_episodes: int
    parent: int
    doorbell: int = -1
    """A pipe of 64-bit heads of the ring; its end means that the control process is gone."""
    answers: int = -1
    """A pipe of lines of JSON."""
    head: int = 0
    """The ring's head at the start."""

    def to_argument(self) -> str:
        """One argument for the command line."""
        return json.dumps(asdict(self))


class Link:
    """The process, which may be started again, and the pipes to and from it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._doorbell = self._answers = -1
        self._rest = b""
        self.is_over = True
        """Whether everything that the process said was heard, and it says no more."""

    def start(self, head: int) -> None:
        """Start the process, or start it again after its death."""
        self.close()
        bell, self._doorbell = os.pipe()
        self._answers, answers = os.pipe()
        for descriptor in (self._doorbell, self._answers):
            os.set_blocking(descriptor, False)
        settings = replace(self._settings, doorbell=bell, answers=answers, head=head)
        # Not multiprocessing: it would import the caller's main module again. A session of its own keeps Ctrl-C away from it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, settings.to_argument()],
            pass_fds=(bell, answers, settings.ring, settings.lock),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # whoever reads what the caller prints should not wait for this process's end
            start_new_session=True,
        )
        os.close(bell)
        os.close(answers)
        self._rest, self.is_over = b"", False

    def tell(self, head: int) -> None:
        """Tell the ring's head without waiting; raises `BrokenPipeError` if the process is dead."""
        # A pipe that is full is one that has something to be read: the next head says this one, too.
        with suppress(BlockingIOError):
            os.write(self._doorbell, head.to_bytes(8, sys.byteorder))

    def hear(self, seconds: float = 0.0) -> list[dict[str, Any]]:
        """What the process has said since the last call; waits up to so long for something."""
        if self.is_over:
            return []
        if seconds > 0:
            select.select([self._answers], [], [], seconds)
        try:
            while more := os.read(self._answers, 1 << 16):
                self._rest += more
            self.is_over = True
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines]

    def hang_up(self) -> None:
        """Tell the process that nothing follows."""
        if self._doorbell >= 0:
            os.close(self._doorbell)
            self._doorbell = -1

    def wait(self) -> int:
        """Wait for the process's end; returns its exit status, which is negative for a signal."""
        return 0 if self._process is None else self._process.wait()

    def close(self) -> None:
        """Close the pipes; the process ends when it is done."""
        self.hang_up()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1
        self.is_over = True

"""Several processes on one machine that train one policy together: each takes its part of every batch, gradients are averaged.

The process that was asked to train is rank 0: it alone writes, and starts the others, which end when it does, however it ends.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from flywheel.core.errors import FlywheelError
from flywheel.training.data import WHOLE, Part

_PATIENCE = timedelta(minutes=5)
"""How long one process waits for the others: they import torch and open the stores first."""


class Team(NamedTuple):
    """This process's part, and the port of this machine where all meet."""

    part: Part = WHOLE
    port: int = 0


ALONE = Team()
"""One process."""


class Replicas(DDPStrategy):
    """Lightning's processes, devices and checkpoints; `AlgorithmModule` averages its gradients itself.

    `DistributedDataParallel` expects one backward for each call of the module, and there are many updates in one.
    """

    def __init__(self, team: Team) -> None:
        super().__init__(cluster_environment=_OneMachine(team), timeout=_PATIENCE)

    def configure_ddp(self) -> None:
        """Leave the module unwrapped."""


class _OneMachine(ClusterEnvironment):
    """What Lightning asks: all ranks are on this machine, and were started by us."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self._team = team

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self._team.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._team.part.world

    def set_world_size(self, size: int) -> None:
        assert size == self._team.part.world

    def global_rank(self) -> int:
        return self._team.part.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self._team.part.rank

    def local_rank(self) -> int:
        return self._team.part.rank

    def node_rank(self) -> int:
        return 0


@contextmanager
def lead(run: Path, updates: int, world: int) -> Iterator[Team]:
    """Start the other ranks of a run and be rank 0 within; they are gone after it.

    Raises `FlywheelError` with the last words of a process that ended too early; each has all of them in ``rank-N.log``.
    """
    if world == 1:
        yield ALONE
        return
    port = free_port()
    others = {rank: _start(run, updates, Team(Part(rank, world), port)) for rank in range(1, world)}
    try:
        yield Team(Part(0, world), port)
    except RuntimeError:  # what torch raises when a connection breaks
        for rank, process in others.items():
            if _has_failed(process):
                raise FlywheelError(_epitaph(run, rank, world)) from None
        raise
    finally:
        for process in others.values():
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def leave() -> None:
    """Let the connections between the processes go, so that this one can train again."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def end_with_rank_0() -> None:
    """In another rank: end at once when rank 0 does, even by SIGKILL, which closes the pipe that it held."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start(run: Path, updates: int, team: Team) -> subprocess.Popen[bytes]:
    numbers = [updates, *team.part, team.port]
    command = [sys.executable, "-m", "flywheel.training.rank", str(run), *map(str, numbers)]
    with _log(run, team.part.rank).open("wb") as log:
        # A session of its own: Ctrl-C reaches rank 0 alone, which ends the others.
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _has_failed(process: subprocess.Popen[bytes]) -> bool:
    try:
        return process.wait(5) != 0
    except subprocess.TimeoutExpired:
        return False


def _epitaph(run: Path, rank: int, world: int) -> str:
    words = _log(run, rank).read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    return (
        f"Process {rank} of {world} ended ({words[-1]}); {_log(run, rank)} has what it said, and the same command goes on from "
        "the last checkpoint."
    )


def _log(run: Path, rank: int) -> Path:
    return run / f"rank-{rank}.log"

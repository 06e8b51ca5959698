"""T2: SIGKILL while a checkpoint is written, and a disk that is full at any byte; the one that is there always loads."""

from __future__ import annotations

import os
import random
import resource
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from flywheel.bench.training.runs import Counter, make_counter, start, wait_until
from flywheel.core.errors import FlywheelError
from flywheel.training.callbacks import AtomicCheckpointIO
from flywheel.training.fit import load_checkpoint

MEBIBYTES = 24
"""A checkpoint's size, as the peers were measured with."""
_OTHER_DISK = Path("/dev/shm")


def kill_saves(folder: Path, number: int, kills: int = 50, full: int = 5, mebibytes: int = MEBIBYTES) -> dict[str, Any]:
    """Kill so many saves, then let so many meet a full disk; ``unloadable`` counts what could not be read, or was not whole.

    `number` seeds the moments; where it is odd, TMPDIR lies on another file system, over which a rename cannot go.
    """
    rng, path = random.Random(number), folder / "last.ckpt"
    temporary = _OTHER_DISK if number % 2 and _OTHER_DISK.is_dir() else folder
    save(path, 0, mebibytes)
    began = time.monotonic()
    save(path, 0, mebibytes)
    seconds = time.monotonic() - began
    held, killed, unloadable = 0, 0, 0
    while killed < kills:
        saving, delay = make_counter(), rng.uniform(0, 1.5) * seconds
        process = start(_save_for_ever, path, held, mebibytes, str(temporary), saving)
        inside = _kill_inside(process, saving, delay)
        killed += inside
        found = generation(path, mebibytes)
        if found not in (saving.value // 2 - inside, saving.value // 2):
            unloadable += 1
        held = max(found, saving.value // 2)
    refused, torn = _fill(path, rng, full, mebibytes)
    return {"kills": killed, "full": refused, "unloadable": unloadable + torn, "other_tmpdir": temporary != folder}


def _kill_inside(process: BaseProcess, saving: Counter, delay: float) -> bool:
    """Kill some seconds after a save has begun that is not the process's first; returns whether one was going on."""
    wait_until(process, lambda: saving.value >= 0)
    second = saving.value + 2
    wait_until(process, lambda: saving.value >= second)
    time.sleep(delay)
    assert process.is_alive(), f"a saving process ended with {process.exitcode}"
    process.kill()
    process.join()
    return saving.value % 2 == 0


def _save_for_ever(path: Path, generation: int, mebibytes: int, temporary: str, saving: Counter) -> None:
    os.environ["TMPDIR"] = temporary
    while True:
        generation += 1
        saving.value = 2 * generation
        save(path, generation, mebibytes)
        saving.value = 2 * generation + 1


def save(path: Path, generation: int, mebibytes: int) -> None:
    """Write checkpoint number `generation`, as training does; it says so in each of its numbers."""
    weights = {f"layer.{number}": torch.full((1 << 18,), float(generation)) for number in range(mebibytes)}
    AtomicCheckpointIO().save_checkpoint({"update": generation, "state_dict": weights}, path)


def generation(path: Path, mebibytes: int) -> int:
    """Which one a checkpoint is; -1 if it does not load or mixes two."""
    try:
        held = load_checkpoint(path)
    except FlywheelError:
        return -1
    whole = len(held["state_dict"]) == mebibytes and all((t == held["update"]).all() for t in held["state_dict"].values())
    return int(held["update"]) if whole else -1


def _fill(path: Path, rng: random.Random, count: int, mebibytes: int) -> tuple[int, int]:
    """Save where no file may grow beyond so many bytes; returns how many were refused, and how many then were torn."""
    refused, torn = 0, 0
    for _ in range(count):
        held, outcome = generation(path, mebibytes), make_counter()
        process = start(_save_on_full_disk, path, rng.randrange(mebibytes << 20), mebibytes, outcome)
        process.join(60)
        refused += outcome.value
        torn += generation(path, mebibytes) != held
    return refused, torn


def _save_on_full_disk(path: Path, capacity: int, mebibytes: int, outcome: Counter) -> None:
    # The process's own limit fails like a full disk does, in the middle of the write.
    resource.setrlimit(resource.RLIMIT_FSIZE, (capacity, resource.RLIM_INFINITY))
    try:
        save(path, 0, mebibytes)
    except FlywheelError:
        outcome.value = 1

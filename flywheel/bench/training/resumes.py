"""T1: SIGKILL at random moments of a run, while its store grows; what was resumed ends bit-identical to what was not killed."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import torch

from flywheel.bench.training.runs import ALGORITHMS, EPISODES, grow, make_config, make_counter, make_store, run, start, wait_until
from flywheel.datasets.store import EpisodeStore
from flywheel.training.data import CHUNK_UPDATES
from flywheel.training.fit import load_checkpoint
from flywheel.training.train import TrainConfig

FILES = ("policy.safetensors", "metrics.csv", "snapshot.json")
_STARTING = 0.5
"""Seconds before the first update, at most: the first run of all also waits for the server of the processes."""
STATE = ("update", "state_dict", "optimizer_states")


def resume_killed(folder: Path, number: int, kills: int = 5, updates: int = 600) -> dict[str, Any]:
    """One run that is killed up to so many times, beside its twin; what differs in the end is in ``different``.

    `number` chooses the algorithm and seeds the moments: one in five between the process's start and its first update, the
    others up to three tenths of the run's updates, and a part of a chunk, after those it resumed from. After each kill the store
    grows by three episodes, once the run has pinned what it learns from: one that is killed before that has not begun.
    """
    rng, algorithm = random.Random(number), ALGORITHMS[number % len(ALGORITHMS)]
    store = make_store(folder / "store")
    whole, killed = (make_config(algorithm, store, folder / name, updates) for name in ("whole", "killed"))
    before, seconds = _finish(whole)
    killed_at: list[int] = []
    while len(killed_at) < kills:
        early = rng.random() < 0.2
        steps = -1 if early else rng.randrange(updates * 3 // 10)
        at = _kill(killed, steps, rng.random() * (min(before, _STARTING) if early else seconds * CHUNK_UPDATES / updates))
        if (killed.output / "snapshot.json").exists():
            grow(store, EPISODES + 3 * len(killed_at), 3)
        if at is None:
            break
        killed_at.append(at)
    _finish(killed)
    return {
        "algorithm": algorithm,
        "kills": len(killed_at),
        "killed_at": killed_at,
        "episodes": [EPISODES, len(EpisodeStore.open(store.path).rows())],
        "different": differences(whole.output, killed.output),
    }


def differences(left: Path, right: Path) -> list[str]:
    """What is not bit-equal in two finished runs: files, and the parts of the checkpoint."""
    found = [name for name in FILES if (left / name).read_bytes() != (right / name).read_bytes()]
    one, other = (load_checkpoint(run / "last.ckpt") for run in (left, right))
    return found + [name for name in STATE if not _equal(one[name], other[name])]


def _finish(config: TrainConfig) -> tuple[float, float]:
    """Run to the end; returns the seconds before the first update, and those of the updates."""
    done, began = make_counter(), time.monotonic()
    process = start(run, config, done)
    wait_until(process, lambda: done.value >= 0)
    first = time.monotonic()
    process.join(600)
    assert process.exitcode == 0, f"a run in {config.output} ended with {process.exitcode}"
    return first - began, time.monotonic() - first


def _kill(config: TrainConfig, steps: int, delay: float) -> int | None:
    """Kill a run some seconds after so many updates of this life, or after its start where `steps` is -1.

    Returns the updates that it had counted, -1 before the first, or None if it had already ended.
    """
    done = make_counter()
    process = start(run, config, done)
    if steps >= 0:
        wait_until(process, lambda: done.value >= 0)
        target = done.value + steps
        wait_until(process, lambda: done.value >= target)
    time.sleep(delay)
    if not process.is_alive():
        assert process.exitcode == 0, f"a run in {config.output} ended with {process.exitcode}"
        return None
    process.kill()
    process.join()
    return done.value


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)

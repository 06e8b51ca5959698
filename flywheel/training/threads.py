"""How many CPU threads an algorithm's updates are fastest with: one for small networks, all for large ones; it is measured."""

from __future__ import annotations

import copy
import os
import time

import torch

from flywheel.algorithms.base import Algorithm
from flywheel.core.batch import Batch
from flywheel.training.adam import FusedAdam

_WARM, _TIMED, _ROUNDS = 3, 8, 3
_WORTH = 0.9
"""All cores must take less than this part of one core's time: they are others' too, and a measurement errs."""


def choose_threads(algorithm: Algorithm, batch: Batch, processes: int = 1) -> int:
    """One thread, or this process's share of all cores where that is clearly faster for updates like this one.

    Works on a copy; torch keeps the number of threads that was chosen.
    """
    every = max(1, _cores() // processes)
    trial = copy.deepcopy(algorithm)
    optimizer = FusedAdam(trial.parameter_groups())
    seconds: dict[int, list[float]] = {1: [], every: []}
    for _ in range(_ROUNDS):  # in turns: what else runs on the machine changes
        for threads, found in seconds.items():
            torch.set_num_threads(threads)
            _update(trial, optimizer, batch, _WARM)
            began = time.perf_counter()
            _update(trial, optimizer, batch, _TIMED)
            found.append(time.perf_counter() - began)
    chosen = every if min(seconds[every]) < _WORTH * min(seconds[1]) else 1
    torch.set_num_threads(chosen)
    return chosen


def _update(algorithm: Algorithm, optimizer: FusedAdam, batch: Batch, times: int) -> None:
    for _ in range(times):
        optimizer.zero_grad(set_to_none=True)
        losses = algorithm.losses(batch)
        torch.autograd.backward(list(losses.values()))
        optimizer.step()
        algorithm.after_step()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

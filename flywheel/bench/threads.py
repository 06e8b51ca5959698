"""python -m flywheel.bench.threads: update rates with one thread, with one per core, and with as many as training chooses.

Bursts are taken in turn, of wall time, as threads that wait for each other use the processor too. What `--threads 0` chooses
should never be slower than one thread; the machine has to be quiet, because threads that lose their core hold up all others.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass

import torch
import tyro

from flywheel.bench.data import synthetic_columns
from flywheel.bench.machine import describe
from flywheel.bench.updates import Updater
from flywheel.core import registry
from flywheel.core.precision import choose_matmul_precision


@dataclass(frozen=True)
class ThreadsConfig:
    """Measure what more threads bring."""

    algorithms: tuple[str, ...] = registry.names("algorithms")
    """Which algorithms."""
    hidden: tuple[int, ...] = (256, 256)
    """The hidden layers of all networks."""
    bursts: int = 7
    """Bursts of each number of threads."""
    seconds: float = 1.0
    """The length of a burst."""
    transitions: int = 200_000
    """Transitions in memory."""


def main(config: ThreadsConfig) -> None:
    """Print a Markdown table as it comes."""
    print("\n".join(f"{key}: {value}" for key, value in {**describe(), "matmul": choose_matmul_precision()}.items()))
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    columns = synthetic_columns(config.transitions)
    print(f"\nupdates per second, sampling included, batch 256, {' x '.join(map(str, config.hidden))}, median (range)\n")
    print(f"| | 1 thread | {every} threads | ratio in pairs | chosen |\n|---|---|---|---|---|")
    for name in config.algorithms:
        updater = Updater(name, columns, config.hidden)
        chosen = updater.choose_threads()
        pairs = [(_rate(updater, 1, config.seconds), _rate(updater, every, config.seconds)) for _ in range(config.bursts + 1)][1:]
        ratios = [many / one for one, many in pairs]
        cells = [_spread([one for one, _ in pairs], 1), _spread([many for _, many in pairs], 1), _spread(ratios, 2)]
        print(f"| {name} | {' | '.join(cells)} | {chosen} |", flush=True)


def _rate(updater: Updater, threads: int, seconds: float) -> float:
    """Updates per second of wall time."""
    torch.set_num_threads(threads)
    began, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        count += updater.update()
    return count / elapsed


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    main(tyro.cli(ThreadsConfig, description=__doc__))

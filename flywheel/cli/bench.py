"""flywheel bench: this machine's rates, with sampling included, medians and ranges."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from flywheel.bench.data import measure_append, measure_environment, measure_gather_limit, measure_sampler, synthetic_columns
from flywheel.bench.machine import describe
from flywheel.bench.updates import measure_updates
from flywheel.cli.console import console, parse_config, progress
from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.core.precision import choose_matmul_precision
from flywheel.datasets.relabel import ActionableGoals, TaskReward


@dataclass(frozen=True)
class BenchConfig:
    """Measure this machine's rates: sampling, updates, appends, environment steps."""

    bursts: int = 7
    """Bursts per figure; their median and range are printed."""
    seconds: float = 1.0
    """The length of a burst."""
    output: Path | None = None
    """Also write the figures to this JSON file."""


@dataclass(frozen=True)
class _Figure:
    name: str
    unit: str
    measure: Callable[[int, float], list[float]]
    """From bursts and seconds to one rate per burst."""


def run(arguments: list[str]) -> None:
    """Measure one thing after the other, on one thread, and print as it goes."""
    config = parse_config(BenchConfig, arguments, "flywheel bench", __doc__)
    if config.bursts < 1 or not 0 < config.seconds < float("inf"):
        raise FlywheelError("A figure needs at least one burst (--bursts) of more than zero seconds (--seconds).")
    torch.set_num_threads(1)
    machine = {**describe(), "matmul": choose_matmul_precision()}
    console.print("  ".join(f"[bold]{key}[/bold] {value}" for key, value in machine.items()) + "\n", soft_wrap=True)
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, progress("Measuring", "figures") as report:
        figures = list(_figures(Path(folder)))
        for done, figure in enumerate(figures):
            report(done, len(figures))
            rates[f"{figure.name} [{figure.unit}]"] = found = figure.measure(config.bursts, config.seconds)
            spread = f"({min(found):,.1f} to {max(found):,.1f})"
            console.print(f"{figure.name:<34} {np.median(found):>14,.1f} {figure.unit:<12} {spread}", soft_wrap=True)
    if config.output:
        write_atomically(config.output, json.dumps({"machine": machine, "figures": rates}, indent=1).encode())


def _figures(folder: Path) -> Iterator[_Figure]:
    """What is measured; `folder` is on the disk that takes the appended episodes."""
    columns = synthetic_columns()
    yield _Figure("sampler, task reward", "samples/s", partial(measure_sampler, columns, TaskReward()))
    yield _Figure("sampler, actionable goals", "samples/s", partial(measure_sampler, columns, ActionableGoals()))
    yield _Figure("  the same bytes, index_select", "samples/s", partial(measure_gather_limit, columns, True))
    for name in registry.names("algorithms"):
        yield _Figure(f"{name}, batch 256", "updates/s", partial(measure_updates, name, columns))
    yield _Figure("append, 200 steps, durable", "episodes/s", partial(measure_append, folder))
    yield _Figure("lift environment, one process", "steps/s", partial(measure_environment, "lift"))

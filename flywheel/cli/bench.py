"""flywheel bench: this machine's rates, with sampling included, medians and ranges."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flywheel.bench.data import measure_append, measure_environment, measure_gather_limit, measure_sampler, synthetic_columns
from flywheel.bench.machine import describe
from flywheel.bench.updates import measure_updates
from flywheel.cli.console import console, parse_config
from flywheel.core import registry
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


def run(arguments: list[str]) -> None:
    """Measure one thing after the other, on one thread, and print as it goes."""
    config = parse_config(BenchConfig, arguments, "flywheel bench", __doc__)
    torch.set_num_threads(1)
    machine = {**describe(), "matmul": choose_matmul_precision()}
    console.print("  ".join(f"[bold]{key}[/bold] {value}" for key, value in machine.items()) + "\n", soft_wrap=True)
    figures: dict[str, list[float]] = {}

    def show(name: str, unit: str, rates: list[float]) -> None:
        figures[f"{name} [{unit}]"] = rates
        console.print(
            f"{name:<34} {np.median(rates):>14,.1f} {unit:<12} ({min(rates):,.1f} to {max(rates):,.1f})", soft_wrap=True
        )

    burst = config.bursts, config.seconds
    columns = synthetic_columns()
    show("sampler, task reward", "samples/s", measure_sampler(columns, TaskReward(), *burst))
    show("sampler, actionable goals", "samples/s", measure_sampler(columns, ActionableGoals(), *burst))
    show("  the same bytes, index_select", "samples/s", measure_gather_limit(columns, True, *burst))
    for name in registry.names("algorithms"):
        show(f"{name}, batch 256", "updates/s", measure_updates(name, columns, *burst))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        show("append, 200 steps, durable", "episodes/s", measure_append(Path(folder), *burst))
    show("lift environment, one process", "steps/s", measure_environment("lift", *burst))
    if config.output:
        write_atomically(config.output, json.dumps({"machine": machine, "figures": figures}, indent=1).encode())

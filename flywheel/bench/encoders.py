"""python -m flywheel.bench.encoders: milliseconds of processor time per picture of 84 x 84, on one thread, for each network.

Forward alone, as acting and targets need it, and forward with backward, as learning does; all networks in turn, float32.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro

from flywheel.bench.machine import describe
from flywheel.core.errors import FlywheelError
from flywheel.core.precision import choose_matmul_precision
from flywheel.networks.pictures import PictureConfig, PictureEncoder

_SHAPE = (84, 84, 3)


@dataclass(frozen=True)
class EncodersConfig:
    """Measure the networks that look at pictures."""

    networks: tuple[str, ...] = ("nature", "drq", "impala", "resnet18", "resnet34")
    """Which ones, by name."""
    bursts: int = 7
    """Batches per network; their median and range are printed."""
    batch_size: int = 32
    """Pictures in a batch."""


def main(config: EncodersConfig) -> None:
    """Print a Markdown table; raises `FlywheelError` for a network that there is not."""
    print("\n".join(f"{key}: {value}" for key, value in describe().items()))
    torch.set_num_threads(1)
    choose_matmul_precision()
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (config.batch_size, *_SHAPE), generator=generator, dtype=torch.uint8).permute(0, 3, 1, 2)
    encoders = {name: PictureEncoder(PictureConfig(name), _SHAPE) for name in config.networks}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in encoders}
    for number in range(config.bursts + 1):
        for name, encoder in encoders.items():
            measured = [_seconds(work, encoder, pictures) for work in (_look, _learn)]
            if number:  # the first one warms up
                found[name].append((1e3 * measured[0] / config.batch_size, 1e3 * measured[1] / config.batch_size))
    print(f"\nms per picture, batch {config.batch_size}, median (range)\n\n| network | forward | with backward |\n|---|---|---|")
    for name, values in found.items():
        print(f"| {name} | {' | '.join(_spread(list(column)) for column in zip(*values, strict=True))} |")


def _look(encoder: PictureEncoder, pictures: torch.Tensor) -> None:
    with torch.no_grad():
        encoder(pictures)


def _learn(encoder: PictureEncoder, pictures: torch.Tensor) -> None:
    encoder.zero_grad(set_to_none=True)
    encoder(pictures).sum().backward()


def _seconds(work: Callable[[PictureEncoder, torch.Tensor], None], encoder: PictureEncoder, pictures: torch.Tensor) -> float:
    start = time.process_time()
    work(encoder, pictures)
    return time.process_time() - start


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    try:
        main(tyro.cli(EncodersConfig, description=__doc__))
    except FlywheelError as error:
        sys.exit(f"error: {error}")

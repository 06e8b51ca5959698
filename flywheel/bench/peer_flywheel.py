"""Our side of `make bench-peers`, speaking as `peer_d3rlpy.py` does: seconds in, updates per second out, line by line."""

from __future__ import annotations

import sys

import torch

from flywheel.bench.data import synthetic_columns
from flywheel.bench.updates import Updater
from flywheel.core.precision import choose_matmul_precision


def main(algorithm: str, transitions: int, hidden: tuple[int, ...]) -> None:
    """Serve bursts of one algorithm, with hidden layers of these widths, until standard input closes."""
    torch.set_num_threads(1)
    choose_matmul_precision()
    updater = Updater(algorithm, synthetic_columns(transitions), hidden)
    for line in sys.stdin:
        print(updater.rate(float(line)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), tuple(map(int, sys.argv[3:])))

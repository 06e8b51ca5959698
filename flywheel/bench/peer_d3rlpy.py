"""d3rlpy's side of `make bench-peers`: run by the Python of `.venv-peers`, which has d3rlpy and not this package.

Reads one number of seconds of processor time per line from standard input, trains for so long, and answers with a line of
updates per second.
Sizes and settings are those of our side: batch 256, 60-d states, 7-d actions, two hidden layers of 256, CQL with 10 actions and
without Lagrange, one thread; batches come from d3rlpy's own replay buffer.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import d3rlpy  # type: ignore[import-not-found]  # it lives in .venv-peers alone
import numpy as np
import torch

OBSERVATION_DIM, ACTION_DIM, HORIZON, BATCH_SIZE = 60, 7, 200, 256


def main(algorithm: str, transitions: int) -> None:
    """Serve bursts of one algorithm until standard input closes."""
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # d3rlpy and its dependencies print; answers go alone
    learner, buffer = make_learner(algorithm), make_buffer(transitions)
    learner.create_impl((OBSERVATION_DIM,), ACTION_DIM)
    for line in sys.stdin:
        start, count = time.process_time(), 0
        while (elapsed := time.process_time() - start) < float(line):
            learner.update(buffer.sample_transition_batch(BATCH_SIZE))
            count += 1
        print(count / elapsed, file=answers, flush=True)


def make_learner(algorithm: str) -> Any:
    """d3rlpy's algorithm of that name; its networks are 256-256 and its learning rates ours by default."""
    algos = d3rlpy.algos
    configs = {
        "bc": algos.BCConfig(batch_size=BATCH_SIZE, learning_rate=3e-4, policy_type="stochastic"),
        "iql": algos.IQLConfig(batch_size=BATCH_SIZE),
        "awac": algos.AWACConfig(batch_size=BATCH_SIZE),
        "td3_bc": algos.TD3PlusBCConfig(batch_size=BATCH_SIZE),
        # Lagrange off: the multiplier is a constant, and with it the weight of the conservative term is 5 as on our side.
        "cql": algos.CQLConfig(
            batch_size=BATCH_SIZE, n_action_samples=10, initial_alpha=5.0, alpha_learning_rate=0.0, conservative_weight=1.0
        ),
    }
    return configs[algorithm].create(device="cpu:0")


def make_buffer(transitions: int) -> Any:
    """Random episodes of 200 steps in d3rlpy's in-memory buffer."""
    rng = np.random.default_rng(0)
    episodes = [
        d3rlpy.dataset.Episode(
            rng.standard_normal((HORIZON, OBSERVATION_DIM), np.float32),
            rng.uniform(-1, 1, (HORIZON, ACTION_DIM)).astype(np.float32),
            rng.standard_normal((HORIZON, 1), np.float32),
            terminated=True,
        )
        for _ in range(transitions // HORIZON)
    ]
    return d3rlpy.dataset.ReplayBuffer(
        d3rlpy.dataset.InfiniteBuffer(),
        episodes=episodes,
        action_space=d3rlpy.constants.ActionSpace.CONTINUOUS,
        action_size=ACTION_DIM,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""OGBench's side of `make bench-peers`: its JAX agents, run by the Python of `.venv-peers/ogbench`, which has its impls/ folder.

Speaks as `peer_d3rlpy.py` does. Batches come from OGBench's own data sets, with the goals that its agents are trained for; hidden
layers are 2 x 256 as on our side, all else is as in the agent's own configuration.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

OBSERVATION_DIM, ACTION_DIM, HORIZON, BATCH_SIZE = 60, 7, 200, 256
HIDDEN = (256, 256)


def make_source(config: Any, transitions: int) -> Any:
    """Random episodes of 200 steps in OGBench's own data set."""
    from utils import datasets  # of impls/

    rng = np.random.default_rng(0)
    terminals = np.zeros(transitions, np.float32)
    terminals[HORIZON - 1 :: HORIZON] = 1.0
    data = datasets.Dataset.create(
        observations=rng.standard_normal((transitions, OBSERVATION_DIM), np.float32),
        actions=rng.uniform(-1, 1, (transitions, ACTION_DIM)).astype(np.float32),
        terminals=terminals,
        valids=1.0 - terminals,
    )
    return getattr(datasets, config["dataset_class"])(data, config)


def main(algorithm: str, transitions: int) -> None:
    """Serve bursts of one agent until standard input closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    one_core = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ.update({"XLA_FLAGS": one_core, "JAX_PLATFORMS": "cpu"})
    sys.path.insert(0, str(Path(sys.prefix) / "impls"))
    import jax

    config = importlib.import_module(f"agents.{algorithm}").get_config()
    config.update({"batch_size": BATCH_SIZE, "actor_hidden_dims": HIDDEN})
    if "value_hidden_dims" in config:
        config.update({"value_hidden_dims": HIDDEN})
    source = make_source(config, transitions)
    example = source.sample(1)
    agent = importlib.import_module("agents").agents[algorithm].create(0, example["observations"], example["actions"], config)
    for line in sys.stdin:
        start, count = time.process_time(), 0
        while (elapsed := time.process_time() - start) < float(line):
            agent, _ = agent.update(source.sample(BATCH_SIZE))
            jax.block_until_ready(agent)
            count += 1
        print(count / elapsed, file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

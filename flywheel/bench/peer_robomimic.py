"""robomimic's side of `make bench-peers`: run by the Python of `.venv-peers/robomimic`, which has robomimic and not this package.

Speaks as `peer_d3rlpy.py` does, at the same sizes. Batches come from robomimic's own `SequenceDataset`, cached in memory, through
torch's `DataLoader` in the same process, as its training script has it. Filling that cache is slow: 100,000 transitions at most.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import torch

OBSERVATION_DIM, ACTION_DIM, HORIZON, BATCH_SIZE = 60, 7, 200, 256
MOST_TRANSITIONS = 100_000
HIDDEN = (256, 256)


def main(algorithm: str, transitions: int) -> None:
    """Serve bursts of one algorithm until standard input closes."""
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # robomimic prints; answers go alone
    config = make_config(algorithm)
    learner, batches = make_learner(config), make_batches(config, min(transitions, MOST_TRANSITIONS))
    for line in sys.stdin:
        start, count = time.process_time(), 0
        while (elapsed := time.process_time() - start) < float(line):
            batch = learner.process_batch_for_training(next(batches))
            learner.train_on_batch(learner.postprocess_batch_for_training(batch, obs_normalization_stats=None), epoch=0)
            count += 1
        print(count / elapsed, file=answers, flush=True)


def make_config(algorithm: str) -> Any:
    """Robomimic's settings but for the sizes; a Gaussian policy for BC, and CQL with a constant weight of 5."""
    from robomimic.config import config_factory  # type: ignore[import-not-found]  # it lives in .venv-peers alone

    config = config_factory(algorithm)
    with config.values_unlocked():
        config.observation.modalities.obs.low_dim = ["flat"]
        config.train.batch_size = BATCH_SIZE
        if algorithm == "bc":
            config.algo.actor_layer_dims = HIDDEN
            config.algo.gaussian.enabled = True
        else:
            config.algo.actor.layer_dims = config.algo.critic.layer_dims = HIDDEN
        if algorithm == "cql":
            config.algo.critic.target_q_gap = None
            config.algo.critic.cql_weight = 5.0
    return config


def make_learner(config: Any) -> Any:
    """Robomimic's algorithm on the CPU, in its training mode."""
    from robomimic.algo import algo_factory  # type: ignore[import-not-found]
    from robomimic.utils import obs_utils  # type: ignore[import-not-found]

    obs_utils.initialize_obs_utils_with_config(config)
    learner = algo_factory(config.algo_name, config, {"flat": [OBSERVATION_DIM]}, ACTION_DIM, torch.device("cpu"))
    learner.set_train()
    return learner


def make_batches(config: Any, transitions: int) -> Iterator[Any]:
    """Epoch after epoch of random episodes of 200 steps."""
    from robomimic.utils.dataset import SequenceDataset  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.hdf5"
        write(path, transitions // HORIZON)
        dataset = SequenceDataset(
            str(path),
            obs_keys=("flat",),
            dataset_keys=("actions", "rewards", "dones"),
            hdf5_cache_mode="low_dim",
            load_next_obs=config.train.hdf5_load_next_obs,
        )
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, num_workers=0, drop_last=True)
    while True:
        yield from loader


def write(path: Path, episodes: int) -> None:
    """Random episodes in robomimic's layout."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = episodes * HORIZON
        for number in range(episodes):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = HORIZON
            states = rng.standard_normal((HORIZON + 1, OBSERVATION_DIM), np.float32)
            demo["obs/flat"], demo["next_obs/flat"] = states[:-1], states[1:]
            demo["actions"] = rng.uniform(-1, 1, (HORIZON, ACTION_DIM)).astype(np.float32)
            demo["rewards"] = rng.standard_normal(HORIZON, np.float32)
            demo["dones"] = np.arange(HORIZON) == HORIZON - 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""d3rlpy's side of the offline-to-online table: run by the Python of `.venv-peers`, which has d3rlpy and not this package.

Reads one JSON command per line from standard input and answers each with one line:

    {"do": "episodes", "path": FILE, "new": false}   add the episodes of an npz file (state, action, reward, length, terminal)
    {"do": "train", "updates": N}                    gradient updates, half of each batch from new episodes once there are any
    {"do": "act", "state": [...], "explore": false}  an action in [-1, 1]

Sizes and settings are those of our side: batch 256, two hidden layers of 256, discount 0.99, normalised states, targets over as
many steps, one thread. But IQL is what d3rlpy has, weighted imitation of everything.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import d3rlpy  # type: ignore[import-not-found]  # it lives in .venv-peers alone
import numpy as np
import torch

BATCH_SIZE = 256
DISCOUNT = 0.99


class Learner:
    """d3rlpy's algorithm, and its buffers of old and new episodes."""

    def __init__(self, algorithm: str, seed: int, n_step: int) -> None:
        d3rlpy.seed(seed)
        self.name = algorithm
        self.picker = d3rlpy.dataset.MultiStepTransitionPicker(n_step, DISCOUNT)
        self.algorithm: Any = None
        self.buffers: dict[bool, Any] = {}

    def episodes(self, path: str, new: bool) -> dict[str, Any]:
        """Add a file's episodes to the old or the new ones."""
        with np.load(path) as file:
            ends = np.cumsum(file["length"])[:-1]
            mean, std = file["state"].mean(axis=0), file["state"].std(axis=0)
            columns = [np.split(file[key], ends) for key in ("state", "action", "reward")]
            found = [
                d3rlpy.dataset.Episode(state, action, reward[:, None], bool(terminal))
                for state, action, reward, terminal in zip(*columns, file["terminal"], strict=True)
            ]
        if new not in self.buffers:
            self.buffers[new] = d3rlpy.dataset.create_infinite_replay_buffer(episodes=found, transition_picker=self.picker)
        else:
            for episode in found:
                self.buffers[new].append_episode(episode)
        if self.algorithm is None:  # the first episodes give the scale of the states, as on our side
            self.algorithm = _make(self.name, mean, std)
            self.algorithm.build_with_dataset(self.buffers[new])
        return {"episodes": len(found)}

    def train(self, updates: int) -> dict[str, Any]:
        """Update; a fresh mixture each time, as its buffers have grown."""
        data = self.buffers[False]
        if True in self.buffers:
            data = d3rlpy.dataset.MixedReplayBuffer(data, self.buffers[True], 0.5)
        for _ in range(updates):
            self.algorithm.update(data.sample_transition_batch(BATCH_SIZE))
        return {"updates": updates}

    def act(self, state: list[float], explore: bool) -> dict[str, Any]:
        """One action, the best or a sample."""
        choose = self.algorithm.sample_action if explore else self.algorithm.predict
        return {"action": choose(np.array([state], np.float32))[0].tolist()}


def _make(algorithm: str, mean: Any, std: Any) -> Any:
    algos, scaler = d3rlpy.algos, d3rlpy.preprocessing.StandardObservationScaler(mean=mean, std=np.maximum(std, 1e-3))
    settings = {"batch_size": BATCH_SIZE, "gamma": DISCOUNT, "observation_scaler": scaler}
    # As on our side: the multiplier begins at 1 and follows a threshold of 5.
    conservative = {
        "n_action_samples": 10,
        "initial_alpha": 1.0,
        "alpha_learning_rate": 3e-4,
        "alpha_threshold": 5.0,
        "conservative_weight": 1.0,
        "actor_learning_rate": 3e-4,
    }
    configs = {
        "iql": lambda: algos.IQLConfig(weight_temp=10.0, **settings),
        "cql": lambda: algos.CQLConfig(**conservative, **settings),
        "cal_ql": lambda: algos.CalQLConfig(**conservative, **settings),
    }
    return configs[algorithm]().create(device="cpu:0")


def main(algorithm: str, seed: int, n_step: int) -> None:
    """Serve until standard input closes."""
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # d3rlpy and its dependencies print; answers go alone
    learner = Learner(algorithm, seed, n_step)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(learner, command.pop("do"))(**command)), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

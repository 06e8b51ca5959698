"""A data set as Minari stores it: minari_write.py hdf5|arrow|parquet FOLDER OUTPUT (the arrays)."""

import os
import sys

import gymnasium as gym
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer

data_format, folder, output = sys.argv[1:]
os.environ["MINARI_DATASETS_PATH"] = folder
state, goal = gym.spaces.Box(-9, 9, (3,), np.float32), gym.spaces.Box(-9, 9, (2,), np.float64)
observation_space = gym.spaces.Dict({"state": state, "goal": goal})
action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
rng = np.random.default_rng(0)
buffers, arrays = [], {}
for number in range(3):
    length = 5 + number
    observations = {"state": rng.normal(size=(length + 1, 3)).astype(np.float32), "goal": rng.normal(size=(length + 1, 2))}
    actions = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
    ends = np.arange(length) == length - 1
    none = np.zeros(length, bool)
    rewards = np.arange(length) + 10.0 * number
    buffers.append(
        EpisodeBuffer(
            id=number,
            observations=observations,
            actions=actions,
            rewards=rewards,
            terminations=ends if number == 1 else none,
            truncations=none if number == 1 else ends,
            infos={},
        )
    )
    arrays |= {f"{number}/state": observations["state"], f"{number}/actions": actions, f"{number}/rewards": rewards}
minari.create_dataset_from_buffers(
    "written-v0", buffers, observation_space=observation_space, action_space=action_space, data_format=data_format
)
np.savez(output, **arrays)

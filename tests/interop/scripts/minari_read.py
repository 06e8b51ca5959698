"""Every episode as Minari gives it: minari_read.py FOLDER NAME OUTPUT."""

import os
import sys

import minari
import numpy as np

os.environ["MINARI_DATASETS_PATH"] = sys.argv[1]
dataset = minari.load_dataset(sys.argv[2])
arrays = {"total_steps": dataset.total_steps, "low": dataset.action_space.low, "keys": sorted(dataset.observation_space.keys())}
for episode in dataset.iterate_episodes():
    # A gymnasium space that does not contain the data would mislead whoever builds a network from it.
    assert all(dataset.action_space.contains(action) for action in episode.actions)
    for step in range(len(episode.rewards) + 1):
        assert dataset.observation_space.contains({key: value[step] for key, value in episode.observations.items()})
    for key in ("actions", "rewards", "terminations", "truncations"):
        arrays[f"{episode.id}/{key}"] = getattr(episode, key)
    for key, value in episode.observations.items():
        arrays[f"{episode.id}/observations/{key}"] = value
np.savez(sys.argv[3], **arrays)

"""Every step as plain TFDS gives it, opened as Open X-Embodiment code does: tfds_read.py DATA_DIR NAME OUTPUT."""

import sys

import numpy as np
import tensorflow_datasets as tfds

builder = tfds.builder(sys.argv[2], data_dir=sys.argv[1])
assert builder.info.metadata["flywheel"]["store"] == sys.argv[2]
arrays = {}
for number, episode in enumerate(tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=False))):
    steps = list(episode["steps"])
    for key in steps[0]["observation"]:
        arrays[f"{number}/observation/{key}"] = np.stack([step["observation"][key] for step in steps])
    for key in ("action", "reward", "discount", "is_first", "is_last", "is_terminal", "language_instruction"):
        arrays[f"{number}/{key}"] = np.stack([step[key] for step in steps])
    arrays[f"{number}/episode_id"] = np.array(episode["episode_metadata"]["episode_id"])
np.savez(sys.argv[3], **arrays)

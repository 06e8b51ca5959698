"""Episodes as TFDS itself stores them, in two shards: tfds_write.py DATA_DIR OUTPUT (the arrays)."""

import sys

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

data_dir, output = sys.argv[1:]
step = {
    "observation": {
        "image": tfds.features.Image(shape=(32, 40, 3)),
        "state": tfds.features.Tensor(shape=(3,), dtype=tf.float32),
    },
    "action": tfds.features.Tensor(shape=(2,), dtype=tf.float32),
    "reward": tf.float32,
    "discount": tf.float32,
    "is_first": tf.bool,
    "is_last": tf.bool,
    "is_terminal": tf.bool,
    "language_instruction": tfds.features.Text(),
}
metadata = {"file_path": tfds.features.Text()}
features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step), "episode_metadata": metadata})
rng = np.random.default_rng(0)
arrays = {}


def episode(number: int) -> dict:
    """Of 5 + number steps; the second ends in a terminal state."""
    steps = []
    for index in range(5 + number):
        last = index == 4 + number
        observation = {"image": rng.integers(0, 256, (32, 40, 3), np.uint8), "state": rng.normal(size=3).astype(np.float32)}
        steps.append(
            {
                "observation": observation,
                "action": rng.uniform(-1, 1, 2).astype(np.float32),
                "reward": np.float32(0 if last else 10 * number + index),
                "discount": np.float32(1),
                "is_first": index == 0,
                "is_last": last,
                "is_terminal": last and number == 1,
                "language_instruction": f"task {number}",
            }
        )
    for key in ("image", "state"):
        arrays[f"{number}/{key}"] = np.stack([step["observation"][key] for step in steps])
    arrays[f"{number}/action"] = np.stack([step["action"] for step in steps])
    return {"steps": steps, "episode_metadata": {"file_path": f"{number}.npy"}}


identity = tfds.core.DatasetIdentity(name="written", version=tfds.core.Version("1.0.0"), data_dir=data_dir, module_name="")
writer = tfds.core.SequentialWriter(tfds.core.DatasetInfo(builder=identity, features=features), max_examples_per_shard=2)
writer.initialize_splits(["train"])
writer.add_examples({"train": [episode(number) for number in range(3)]})
writer.close_all()
np.savez(output, **arrays)

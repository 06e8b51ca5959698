"""Read a store with nothing but TFDS and print a line per episode. Run as a script, so that tests need not import TensorFlow."""

import sys

import tensorflow as tf
import tensorflow_datasets as tfds


def _summary(episode: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    length, total = episode["steps"].reduce((0, 0.0), lambda sums, step: (sums[0] + 1, sums[1] + step["reward"]))
    return episode["episode_metadata"]["episode_id"], length, total


for name, steps, reward in tfds.builder_from_directory(sys.argv[1]).as_dataset(split="train").map(_summary):
    print(name.numpy().decode(), int(steps), float(reward))

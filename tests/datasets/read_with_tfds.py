"""Read a store with nothing but TFDS and print a line per episode. Run as a script, so that tests need not import TensorFlow."""

import sys

import tensorflow_datasets as tfds

for episode in tfds.builder_from_directory(sys.argv[1]).as_dataset(split="train"):
    rewards = [float(step["reward"]) for step in episode["steps"]]
    print(episode["episode_metadata"]["episode_id"].numpy().decode(), len(rewards), sum(rewards))

"""Read a store with nothing but TFDS and print a line per episode. Run as a script, so that tests need not import TensorFlow."""

import sys

import tensorflow_datasets as tfds

builder = tfds.builder_from_directory(sys.argv[1])
# Without decoding, the steps are one tensor per field instead of a nested data set, which takes TFDS milliseconds to make.
for episode in builder.as_dataset(split="train", decoders={"steps": tfds.decode.SkipDecoding()}):
    reward = episode["steps"]["reward"].numpy()
    print(episode["episode_metadata"]["episode_id"].numpy().decode(), len(reward), float(reward.sum()))

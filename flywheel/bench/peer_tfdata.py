"""TF-data's side of the sampling benchmark: batches of 256 from an RLDS store with JPEG pictures, as its users write it.

Reads one number of seconds per line from standard input, and answers with the frames per second over a burst of that length.
Frames stay encoded through the shuffle buffer and are decoded, in parallel, only once they are sampled. ``stream`` reads the
store again for every pass and shuffles 10,000 steps; ``cache`` keeps its encoded steps in memory and shuffles 30,000.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

from flywheel.datasets import rlds

CAMERAS = ("agentview", "wrist")
BATCH, FRAMES = 256, 6


def main(path: Path, kind: str) -> None:
    """Serve bursts until standard input closes."""
    batches = iter(pipeline(path, kind))
    for line in sys.stdin:
        next(batches)
        start, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < float(line):
            next(batches)
            count += BATCH * FRAMES
        print(count / elapsed, flush=True)


def pipeline(path: Path, kind: str) -> Any:
    """Endless batches of observation, action, next observation and a future goal."""
    tf: Any = importlib.import_module("tensorflow")
    tfds: Any = importlib.import_module("tensorflow_datasets")
    auto = tf.data.AUTOTUNE

    def transitions(episode: Any) -> Any:
        """An episode's steps with their next observation and a goal from their future, pictures still encoded."""
        steps = episode["steps"].batch(100_000).get_single_element()
        seen, count = steps["observation"], tf.shape(steps["reward"])[0] - 1
        here = tf.range(count)
        ahead = tf.cast(tf.random.uniform([count]) * tf.cast(count - here, tf.float32), tf.int32)
        rows = {"observation": here, "next": here + 1, "goal": here + 1 + ahead}
        picked = {name: {key: tf.gather(value, row) for key, value in seen.items()} for name, row in rows.items()}
        return tf.data.Dataset.from_tensor_slices({**picked, "action": steps["action"][:-1]})

    def decoded(step: Any) -> Any:
        found = dict(step)
        for name in ("observation", "next", "goal"):
            pictures = {camera: tf.io.decode_jpeg(step[name][camera], channels=3) for camera in CAMERAS}
            found[name] = {**step[name], **pictures}
        return found

    builder = rlds.load(path)
    skipped = {camera: tfds.decode.SkipDecoding() for camera in CAMERAS}
    episodes = builder.as_dataset(split="train", decoders={"steps": {"observation": skipped}}, shuffle_files=True)
    steps = episodes.interleave(transitions, cycle_length=16, num_parallel_calls=auto, deterministic=False)
    steps = (steps.cache() if kind == "cache" else steps).repeat().shuffle(30_000 if kind == "cache" else 10_000)
    return steps.map(decoded, num_parallel_calls=auto, deterministic=False).batch(BATCH, num_parallel_calls=auto).prefetch(auto)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

"""A lamp that a camera sees grow brighter until it is lit: episodes whose success shows in their last pictures.

The task ``red`` is done when the lamp is bright red, ``blue`` when it is bright blue; failures end in a dim one, or in the other
task's colour.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.schema import Pictures, Schema
from flywheel.datasets.store import EpisodeStore

SIZE = 20
CAMERA = ArraySpec((SIZE, SIZE, 3), "uint8")
ACTION = ActionSpec(low=(-1.0,), high=(1.0,), controller="lamp", rate=10.0)
CHANNEL = {"red": 0, "blue": 2}


def episode(task: str, seed: int, *, steps: int = 12) -> Episode:
    """Odd seeds succeed; of the failures every second one lights the other colour."""
    rng = np.random.default_rng(seed)
    success = seed % 2 == 1
    channel = CHANNEL[task] if success or seed % 4 == 0 else 2 - CHANNEL[task]
    ends = 220 if success or seed % 4 else 90
    observations = [
        {"light": np.array([0.0], np.float32), "camera": picture(rng, channel, 20 + (80 * step) // steps)}
        for step in range(steps)
    ]
    observations += [{"light": np.array([0.0], np.float32), "camera": picture(rng, channel, ends)}]
    metadata = EpisodeMetadata(
        episode_id=f"{task}-{seed:04d}", task=task, robot="lamp", seed=seed, success=success, success_detector="lamp-1"
    )
    actions = [np.zeros(1, np.float32)] * steps
    rewards = [0.0] * (steps - 1) + [float(success)]
    return Episode.from_transitions(observations, actions, rewards, terminal=success, metadata=metadata)


def picture(rng: np.random.Generator, channel: int, brightness: int) -> np.ndarray:
    """A square at about the middle, in noise."""
    pixels = rng.integers(0, 20, CAMERA.shape).astype(np.uint8)
    top, left = rng.integers(3, 7, 2)
    pixels[top : top + 10, left : left + 10, channel] = brightness
    return pixels


def make_store(
    root: Path, tasks: tuple[str, ...] = ("red", "blue"), seeds: range = range(40), pictures: Pictures = "png"
) -> EpisodeStore:
    """A store called ``lamp`` with an episode per task and seed."""
    schema = Schema(ObservationSpec({"light": ArraySpec((1,)), "camera": CAMERA}), ACTION, pictures=pictures)
    store = EpisodeStore.create(root, "lamp", schema)
    with store.writer() as writer:
        for task in tasks:
            for seed in seeds:
                writer.append(episode(task, seed))
    return store

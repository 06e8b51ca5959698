"""A point on a plane that is pushed towards a target: small real episodes for tests that need a store but no simulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore

SCHEMA = Schema(
    observation=ObservationSpec({"position": ArraySpec((2,), unit="m"), "target": ArraySpec((2,), unit="m")}),
    action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0), controller="point", scale=(0.1, 0.1), rate=10.0),
)


def episode(seed: int, horizon: int = 20, *, task: str = "reach", agent: str = "script") -> Episode:
    """Walk towards the target with a noisy gain; a success ends the episode with reward 1."""
    rng = np.random.default_rng(seed)
    position, target = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2)
    noise = rng.uniform(0.1, 1.5)
    observations, actions, rewards = [_observe(position, target)], [], []
    for _ in range(horizon):
        action = np.clip((target - position) * 10 + rng.normal(0, noise, 2), -1, 1)
        position = position + 0.1 * action
        observations.append(_observe(position, target))
        actions.append(action.astype(np.float32))
        rewards.append(float(np.linalg.norm(target - position) < 0.1))
        if rewards[-1]:
            break
    success = bool(rewards[-1])
    metadata = EpisodeMetadata(
        episode_id=f"{task}-{agent}-{seed:05d}",
        agent_id=agent,
        task=task,
        robot="point",
        seed=seed,
        success=success,
        success_detector="point-1",
    )
    return Episode.from_transitions(observations, actions, rewards, terminal=success, metadata=metadata)


def make_store(root: Path, seeds: range = range(30), **kwargs: str) -> EpisodeStore:
    """A store called ``point`` with one episode per seed."""
    store = EpisodeStore.create(root, "point", SCHEMA)
    with store.writer() as writer:
        for seed in seeds:
            writer.append(episode(seed, **kwargs))
    return store


def _observe(position: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    return {"position": position.astype(np.float32), "target": target.astype(np.float32)}

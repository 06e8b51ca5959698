"""How fast data moves: sampled transitions, appended episodes, environment steps. One rate per burst; people take the median."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import Relabeler
from flywheel.datasets.sampler import UniformSampler
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.table import EpisodeTable

OBSERVATION_DIM, ACTION_DIM, HORIZON = 60, 7, 200
"""The benchmark's sizes: a rich arm observation, an arm with a gripper, and the transitions of an episode."""
TASK = "bench"
_CHUNK = 50 * 256
"""Samples per draw: what training draws at once."""


def measure(work: Callable[[], int], bursts: int = 7, seconds: float = 0.5) -> list[float]:
    """Units of work per second in each burst, after a first call that warms up; `work` returns how many units it did."""
    work()
    rates = []
    for _ in range(bursts):
        done, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            done += work()
        rates.append(done / elapsed)
    return rates


def measure_sampler(columns: Columns, relabeler: Relabeler, bursts: int = 7, seconds: float = 0.5) -> list[float]:
    """Transitions per second from a generator's state to a finished `Batch`."""
    sampler, rng = UniformSampler(columns.table), np.random.default_rng(0)

    def work() -> int:
        indices = sampler.sample(rng, _CHUNK)
        return len(columns.gather(indices, relabeler(columns.table, indices, rng), 0.99))

    return measure(work, bursts, seconds)


def measure_gather_limit(columns: Columns, with_goal: bool, bursts: int = 7, seconds: float = 0.5) -> list[float]:
    """Transitions per second of nothing but torch's `index_select` of the same bytes: what a sampler cannot exceed."""
    state, action, reward = (torch.from_numpy(array) for array in (columns.state, columns.action, columns.reward))
    rng = np.random.default_rng(0)
    rows = [torch.from_numpy(rng.integers(len(state) - 1, size=_CHUNK)) for _ in range(100)]
    turn = itertools.cycle([(row, row + 1, goal) for row, goal in zip(rows, rows[::-1], strict=True)])

    def work() -> int:
        row, following, goal = next(turn)
        pairs = [(state, row), (state, following), (action, row), (reward, row)] + [(state, goal)] * with_goal
        gathered = [column.index_select(0, wanted) for column, wanted in pairs]
        return len(gathered[0])

    return measure(work, bursts, seconds)


def measure_append(folder: Path, bursts: int = 7, seconds: float = 0.5) -> list[float]:
    """Episodes per second that one writer appends durably to a new store below `folder` (its disk is what is measured)."""
    store = EpisodeStore.create(folder, "append", schema())
    source = episodes()
    with store.writer() as writer:

        def work() -> int:
            writer.append(next(source))
            return 1

        return measure(work, bursts, seconds)


def measure_environment(task: str = "lift", bursts: int = 5, seconds: float = 2.0) -> list[float]:
    """Environment steps per second of one process, resets included, under random actions."""
    from flywheel.tasks.env import make_env  # the simulator takes seconds to import

    with make_env(task) as env:
        env.action_space.seed(0)
        env.reset(seed=0)

        def work() -> int:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
            return 1

        rates = measure(work, bursts, seconds)
        env.close()
    return rates


def schema() -> Schema:
    """The schema of the synthetic stores."""
    return Schema(
        observation=ObservationSpec({"state": ArraySpec((OBSERVATION_DIM,))}),
        action=ActionSpec(low=(-1.0,) * ACTION_DIM, high=(1.0,) * ACTION_DIM),
    )


def episodes(seed: int = 0) -> Iterator[Episode]:
    """Synthetic episodes without end; every other one succeeds, and a success is terminal."""
    rng = np.random.default_rng(seed)
    number = 0
    while True:
        success = number % 2 == 0
        reward = np.zeros(HORIZON, np.float32)
        reward[-1] = success
        yield Episode.from_transitions(
            [{"state": row} for row in rng.standard_normal((HORIZON + 1, OBSERVATION_DIM), np.float32)],
            list(rng.uniform(-1, 1, (HORIZON, ACTION_DIM)).astype(np.float32)),
            [float(value) for value in reward],
            terminal=success,
            metadata=EpisodeMetadata(episode_id=f"bench-{seed}-{number:07d}", task=TASK, success=success),
        )
        number += 1


def synthetic_store(folder: Path, transitions: int, seed: int = 0) -> EpisodeStore:
    """A real store of at least that many transitions."""
    store = EpisodeStore.create(folder, "synthetic", schema())
    source = episodes(seed)
    with store.writer() as writer:
        for _ in range(-(-transitions // HORIZON)):
            writer.append(next(source))
    return store


def synthetic_columns(transitions: int = 1_000_000, seed: int = 0) -> Columns:
    """Columns in memory with at least that many transitions, like those of `synthetic_store`, in a second instead of minutes."""
    count = -(-transitions // HORIZON)
    rows = count * (HORIZON + 1)
    rng = np.random.default_rng(seed)
    success = np.arange(count) % 2 == 0
    table = EpisodeTable(
        episode_id=tuple(f"bench-{seed}-{number:07d}" for number in range(count)),
        start=np.arange(count) * (HORIZON + 1),
        transitions=np.full(count, HORIZON),
        success=success,
        terminal=success,
        episode_return=success.astype(np.float64),
        task=np.full(count, TASK),
    )
    reward = np.zeros(rows, np.float32)
    reward[table.final_row[success] - 1] = 1.0
    return Columns(
        table=table,
        state=rng.standard_normal((rows, OBSERVATION_DIM), np.float32),
        action=rng.uniform(-1, 1, (rows, ACTION_DIM)).astype(np.float32),
        reward=reward,
    )

"""Small real runs for the proofs: a store, a configuration, and a process that can be killed."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from flywheel.bench.durability.episodes import SCHEMA, make_episode
from flywheel.datasets.store import EpisodeStore
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train

ALGORITHMS = ("bc", "iql", "cql", "actionable_models")
EPISODES = 30

# A server that has imported everything forks each run: what is killed is a real process, without seconds of imports each time.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["flywheel.training.train", *(f"flywheel.algorithms.{name}" for name in ALGORITHMS)])


class Counter(Protocol):
    """A number that two processes see."""

    value: int


def make_counter() -> Counter:
    """A new number, -1; it has no lock, because a killed process would hold it for ever."""
    counter: Counter = _CONTEXT.Value("q", -1, lock=False)
    return counter


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that runs a function of a module."""
    process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def make_store(folder: Path) -> EpisodeStore:
    """A store of `EPISODES` episodes."""
    store = EpisodeStore.create(folder, "crash", SCHEMA)
    grow(store, 0, EPISODES)
    return store


def grow(store: EpisodeStore, first: int, count: int) -> None:
    """Append so many episodes more."""
    with store.writer() as writer:
        for number in range(first, first + count):
            writer.append(make_episode(f"0-{number}"))


def make_config(algorithm: str, store: EpisodeStore, output: Path, updates: int) -> TrainConfig:
    """A run with small networks and a checkpoint after each chunk."""
    settings = algorithm_class(algorithm).Config(hidden=(32, 32))
    data = DataConfig(batch_size=32)
    return TrainConfig(algorithm, settings, store=store.path, output=output, updates=updates, save_every=50, data=data)


def run(config: TrainConfig, done: Counter) -> None:
    """Train, counting updates where the parent sees them."""

    def report(updates: int, total: int) -> None:
        done.value = updates

    train(config, report)


def wait_until(process: BaseProcess, condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until the condition holds or the process has ended; raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while process.is_alive() and not condition():
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"process {process.pid} did nothing for {seconds:.0f} s")
        time.sleep(0.0005)

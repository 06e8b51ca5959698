"""S4 and S8: what an acknowledgement costs beside SQLite's, and how long the episodes of a dead writer take to recover."""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets.codec import encode_episode
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore

SCHEMA = Schema(ObservationSpec({"state": ArraySpec((32,))}), ActionSpec((-1.0,) * 7, (1.0,) * 7))
STEPS = 150


@dataclass(frozen=True)
class Latency:
    """Of one system in one round, in milliseconds, and its rate."""

    system: str
    median: float
    p99: float
    rate: float


def make_episode(lane: int, number: int) -> Episode:
    """The episode that the peers were measured with: 150 steps, state 32 float32, action 7 float32, 23 KB."""
    rng = np.random.default_rng((lane, number))
    observations = [{"state": state} for state in rng.normal(size=(STEPS, 32)).astype(np.float32)]
    actions = list(rng.uniform(-1, 1, (STEPS - 1, 7)).astype(np.float32))
    metadata = EpisodeMetadata(episode_id=f"{lane}-{number}", task="bench")
    return Episode.from_transitions(observations, actions, [0.0] * (STEPS - 1), terminal=False, metadata=metadata)


def measure(folder: Path, rounds: int = 5, episodes: int = 1_000) -> list[Latency]:
    """Store, SQLite (WAL, synchronous=FULL) and SQLite with a serialised episode, in turn, `rounds` times."""
    made = [make_episode(0, number) for number in range(episodes)]
    results = []
    for number in range(rounds):
        systems: list[tuple[str, Callable[[Path, list[Episode]], list[float]]]] = [("flywheel", _store), ("sqlite", _sqlite)]
        for name, run in systems if number % 2 else reversed(systems):
            taken = sorted(run(folder / f"{name}-{number}", made))
            results.append(
                Latency(name, 1e3 * taken[len(taken) // 2], 1e3 * taken[int(0.99 * len(taken))], episodes / sum(taken))
            )
    return results


def _store(root: Path, episodes: list[Episode]) -> list[float]:
    with EpisodeStore.create(root, "bench", SCHEMA).writer() as writer:
        return [_timed(lambda episode=episode: writer.append(episode)) for episode in episodes]  # type: ignore[misc]


def _sqlite(root: Path, episodes: list[Episode]) -> list[float]:
    """Each episode is encoded as ours is, and committed by itself."""
    root.mkdir(parents=True)
    connection = sqlite3.connect(root / "episodes.sqlite", isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE e (id TEXT PRIMARY KEY, data BLOB)"):
        connection.execute(statement)

    def append(episode: Episode) -> None:
        row = (episode.metadata.episode_id, bytes(encode_episode(episode.validate(SCHEMA.observation, SCHEMA.action), SCHEMA)))
        connection.execute("INSERT INTO e VALUES (?, ?)", row)

    taken = [_timed(lambda episode=episode: append(episode)) for episode in episodes]  # type: ignore[misc]
    connection.close()
    return taken


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def scaling(folder: Path, processes: int, episodes: int = 400) -> float:
    """Episodes a second that so many writer processes store together."""
    store = EpisodeStore.create(folder, "bench", SCHEMA)
    ready, go = os.pipe(), os.pipe()
    children = []
    for lane in range(processes):
        child = os.fork()
        if not child:
            os.close(go[1])
            made = [make_episode(lane, number) for number in range(episodes)]
            with store.writer() as writer:
                os.write(ready[1], b".")
                os.read(go[0], 1)  # until the parent closes its end
                for episode in made:
                    writer.append(episode)
            os._exit(0)
        children.append(child)
    for _ in children:
        os.read(ready[0], 1)
    start = time.perf_counter()
    os.close(go[1])
    for child in children:
        os.waitpid(child, 0)
    return processes * episodes / (time.perf_counter() - start)


def recovery_seconds(folder: Path, episodes: int = 1_000) -> float:
    """S4: how long the next writer takes to open beside a dead one's unsealed episodes, and TFDS-visible they are then."""
    store = EpisodeStore.create(folder, "bench", SCHEMA)
    child = os.fork()
    if not child:
        writer = store.writer(seal_episodes=10 * episodes, seal_bytes=1 << 40)
        for number in range(episodes):
            writer.append(make_episode(0, number))
        os._exit(0)
    os.waitpid(child, 0)
    start = time.perf_counter()
    with store.writer():
        taken = time.perf_counter() - start
    if store.info().unsealed or len(store.rows()) != episodes:
        raise AssertionError("not everything was recovered")
    return taken


def summary(results: list[Latency]) -> list[tuple[str, str]]:
    """Medians over the rounds with their ranges, and the ratios of the medians."""
    lines, medians = [], {}
    for system in ("flywheel", "sqlite"):
        own = [result for result in results if result.system == system]
        columns = [[result.median for result in own], [result.p99 for result in own], [result.rate for result in own]]
        medians[system] = [statistics.median(column) for column in columns]
        cells = (f"{statistics.median(column):,.2f} ({min(column):,.2f}-{max(column):,.2f})" for column in columns)
        lines.append((f"S8 {system}: p50 ms, p99 ms, episodes/s", "  ".join(cells)))
    ratios = (ours / theirs for ours, theirs in zip(medians["flywheel"], medians["sqlite"], strict=True))
    return [*lines, ("S8 flywheel / sqlite", "  ".join(f"{ratio:.2f}" for ratio in ratios))]

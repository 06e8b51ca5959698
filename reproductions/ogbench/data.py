"""OGBench's data sets, made here with fixed seeds, straight into a store of ours; and out of it, as OGBench keeps them.

    python -m reproductions.ogbench.data scene-play --root data

Episode n of a data set has seed n. An interrupted generation goes on where it was, and the same versions on the same kind of
processor give the same content, whose hash is printed and lies beside the store.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.core.lineage import code_version, json_hash
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from flywheel.robots._graphics import chosen_graphics
from flywheel.rollout.workers import run_job
from flywheel.tasks.ogbench import WORLDS, OGBench
from reproductions.ogbench.scripts import STEPS, Script, navigate, play
from reproductions.progress import progress

EPISODES = 1000
"""As many as OGBench's training sets of these environments have: one million transitions."""
_SCRIPTS: dict[str, Callable[[str], Script]] = {"navigate": navigate, "play": play}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DataSet:
    """What a data set's name says: ``scene-play`` is the environment ``scene`` and the script ``play``."""

    name: str
    environment: str
    script: str

    @classmethod
    def of(cls, name: str) -> DataSet:
        """Raises `FlywheelError` for a name that is not an environment and its script."""
        environment, _, script = name.rpartition("-")
        wanted = "navigate" if environment.startswith("pointmaze") else "play"
        if environment not in WORLDS or script != wanted or environment == "pointmaze-teleport":
            raise FlywheelError(f"There is no data set '{name}'; name one like pointmaze-medium-navigate or scene-play.")
        return cls(name, environment, script)

    @property
    def task(self) -> str:
        """The task whose robot made it."""
        return f"ogbench:{self.environment}"

    @property
    def store_name(self) -> str:
        """The store's name, as TFDS allows it."""
        return f"ogbench_{self.name}".replace("-", "_")

    def make_task(self) -> OGBench:
        """That task."""
        return OGBench(self.environment)


def generate(
    name: str, root: Path, episodes: int = EPISODES, processes: int = 1, on_progress: Progress = lambda done, total: None
) -> EpisodeStore:
    """Bring the store of a data set under `root` to its first `episodes` episodes, and return it."""
    data = DataSet.of(name)
    store = _open(data, root)
    stored = {row.episode_id for row in store.rows(deleted=True)}
    missing = [seed for seed in range(episodes) if episode_id(name, seed) not in stored]
    with closing(run_job(GenerateJob(data, root), missing, processes)) as results:
        for done, _ in enumerate(results, start=episodes - len(missing) + 1):
            on_progress(done, episodes)
    return store


@dataclass(frozen=True)
class GenerateJob:
    """What one process does: it appends through a writer of its own."""

    data: DataSet
    root: Path

    @contextmanager
    def open(self) -> Iterator[Callable[[int], None]]:
        """Yields the function that makes and stores the episode of a seed."""
        task = self.data.make_task()
        with chosen_graphics():  # it imports MuJoCo
            script = _SCRIPTS[self.data.script](self.data.environment)
        with _open(self.data, self.root).writer() as writer:

            def work(seed: int) -> None:
                writer.append(_episode(self.data, task, script, seed))

            yield work


def _open(data: DataSet, root: Path) -> EpisodeStore:
    task = data.make_task()
    return EpisodeStore.create(root, data.store_name, Schema(task.observation, task.action))


def episode_id(name: str, seed: int) -> str:
    """The id of a data set's episode, the same in every store."""
    return json_hash({"ogbench": name, "seed": seed, "steps": STEPS})


def content(name: str, store: EpisodeStore, episodes: int = EPISODES) -> tuple[list[Episode], str]:
    """A data set's episodes in the order of their seeds, and the SHA-256 of their observations and actions."""
    (key,) = store.schema.observation.arrays
    found = [store.read(episode_id(name, seed)) for seed in range(episodes)]
    digest = hashlib.sha256()
    for episode in found:
        digest.update(episode.observation[key].tobytes() + episode.action.tobytes())
    return found, digest.hexdigest()


def export(name: str, store: EpisodeStore, path: Path, episodes: int = EPISODES) -> str:
    """Write a data set as the npz that ``ogbench.load_dataset`` reads, and return its content's hash.

    Every row is a step, the last of an episode, whose action means nothing, is marked in ``terminals``.
    """
    found, digest = content(name, store, episodes)
    (key,) = store.schema.observation.arrays
    buffer = io.BytesIO()
    np.savez(
        buffer,
        observations=np.concatenate([episode.observation[key] for episode in found]),
        actions=np.concatenate([episode.action for episode in found]),
        terminals=np.concatenate([episode.is_last for episode in found]),
    )
    write_atomically(path, buffer.getvalue())
    return digest


def _episode(data: DataSet, task: OGBench, script: Script, seed: int) -> Episode:
    started = time.time_ns()
    with task.showing():
        observations, actions = script(seed)
    metadata = EpisodeMetadata(
        episode_id=episode_id(data.name, seed),
        agent_id=f"ogbench-{data.script}",
        experiment_id=data.name,
        environment_config=json.dumps({"task_name": task.name, "robot_name": task.simulation.name}),
        task=task.name,
        robot=task.simulation.name,
        seed=seed,
        code_version=code_version(),
        controller=json.dumps(task.action.to_json(), sort_keys=True),
        software=json.dumps(task.simulation.software, sort_keys=True),
        started_at_ns=started,
    )
    (key,) = task.observation.arrays
    shown = [{key: observation} for observation in observations]
    return Episode.from_transitions(shown, actions, [0.0] * len(actions), terminal=False, metadata=metadata)


def main(
    name: Annotated[str, tyro.conf.Positional],
    root: Path = Path("data"),
    episodes: int = EPISODES,
    processes: int = 1,
    npz: Path | None = None,
) -> None:
    """Make a data set, and write it as OGBench's npz where a path is given."""
    began = time.monotonic()
    store = generate(name, root, episodes, processes, progress("episodes made"))
    digest = export(name, store, npz, episodes) if npz else content(name, store, episodes)[1]
    about = {"dataset": name, "episodes": episodes, "transitions": episodes * STEPS, "sha256": digest}
    about |= {"software": DataSet.of(name).make_task().simulation.software}
    write_atomically(store.path / ".meta" / "ogbench.json", json.dumps(about, indent=2).encode())
    print(f"{store.path}: {json.dumps(about)} in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except FlywheelError as error:
        sys.exit(str(error))

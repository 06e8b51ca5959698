"""robomimic's HDF5: ``data/demo_i`` with obs, next_obs, actions, rewards and dones, and ``mask`` with lists of demonstrations.

A demonstration of T transitions holds T rows of everything; the final observation is the last row of ``next_obs``. ``dones``
is 1 at the last row of an episode that ended in a terminal state and 0 everywhere in one that was truncated, so that a learner
which masks the value there bootstraps where it must (robomimic's own ``--done_mode 0``). ``terminal`` tells it, too.
Pictures are kept exactly, one compressed chunk per frame. Written and read by h5py alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.datasets.exporters.base import Export, Progress, published
from flywheel.datasets.exporters.hdf5 import Hdf5Sink, deflate, is_pictures, new_file, write_array, write_pictures
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore

_GYM = 2
"""robomimic's EnvType for an environment that is made by its name."""


def export(store: EpisodeStore, snapshot: Snapshot, folder: Path, *, on_progress: Progress = lambda done, total: None) -> Path:
    """Write ``folder/<store>.hdf5`` and return its path; `folder` must be new or empty.

    Raises `FlywheelError` if it is not, if h5py is missing, and for an episode that is damaged.
    """
    job = Export(store, snapshot, on_progress)
    name = f"{store.name}.hdf5"
    with published(job, folder) as temporary, new_file(temporary / name) as (file, sink):
        _write(job, file, sink)
    return folder / name


def _write(job: Export, file: Any, sink: Hdf5Sink) -> None:
    data = file.create_group("data")
    total = 0
    masks: dict[str, list[str]] = {"all": [], "success": [], "failure": []}
    environment: dict[str, Any] = {}
    for number, episode in enumerate(job.episodes()):
        name = f"demo_{number}"
        _write_demo(data.create_group(name), episode)
        sink.check()
        environment = environment or _environment(episode.metadata, job.store.name)
        total += episode.transitions
        for mask in ("all", "success" if episode.metadata.success else "failure"):
            masks[mask].append(name)
    data.attrs["total"] = total
    data.attrs["env_args"] = json.dumps(environment)
    data.attrs["flywheel"] = json.dumps(job.provenance())
    for mask, members in masks.items():
        if members:
            file.create_dataset(f"mask/{mask}", data=np.array(members, dtype="S"))


def _write_demo(group: Any, episode: Episode) -> None:
    group.attrs["num_samples"] = episode.transitions
    group.attrs["terminal"] = bool(episode.is_terminal[-1])
    group.attrs["success"] = episode.metadata.success
    group.attrs["flywheel"] = json.dumps(episode.metadata.to_json())
    for key, values in episode.observation.items():
        if is_pictures(values):
            frames = deflate(values)  # once, although nearly all of them are written twice
            write_pictures(group, f"obs/{key}", values.shape[1:], frames[:-1])
            write_pictures(group, f"next_obs/{key}", values.shape[1:], frames[1:])
        else:
            write_array(group, f"obs/{key}", values[:-1])
            write_array(group, f"next_obs/{key}", values[1:])
    write_array(group, "actions", episode.action[:-1])
    write_array(group, "rewards", episode.reward[:-1])
    write_array(group, "dones", episode.is_terminal[1:].astype(np.int64))


def _environment(metadata: EpisodeMetadata, store: str) -> dict[str, Any]:
    """What robomimic asks of every file, from the first episode; only a trainer that also rolls out makes the environment."""
    kwargs = {"robot": metadata.robot, "environment_config": metadata.environment_config}
    return {"env_name": metadata.task or store, "type": _GYM, "env_kwargs": kwargs}

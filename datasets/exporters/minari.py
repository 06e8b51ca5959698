"""Minari's HDF5 data set: ``<name>-v0/data/main_data.hdf5`` with one group per episode, and ``metadata.json``.

An episode of T transitions holds T + 1 observations and T actions, rewards, terminations and truncations, which is all that an
episode here holds. Pictures are stored exactly (``jpeg_encoding: false``; Minari's default is lossy): that needs Minari 0.5.4.
A bool array becomes int8, as Minari's MultiBinary is. Put the folder into ``MINARI_DATASETS_PATH`` and load ``<name>-v0``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.episode import Episode
from flywheel.core.specs import ActionSpec, ArraySpec
from flywheel.datasets.exporters.base import Export, Progress, published
from flywheel.datasets.exporters.hdf5 import new_file, write_array
from flywheel.datasets.schema import Schema
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore


def export(store: EpisodeStore, snapshot: Snapshot, folder: Path, *, on_progress: Progress = lambda done, total: None) -> Path:
    """Write the data set ``<store>-v0`` into `folder`, which must be new or empty, and return its path.

    Raises `FlywheelError` if it is not, if h5py is missing, and for an episode that is damaged.
    """
    job = Export(store, snapshot, on_progress)
    name = f"{store.name}-v0"
    with published(job, folder) as temporary:
        data = temporary / name / "data"
        data.mkdir(parents=True)
        steps = 0
        with new_file(data / "main_data.hdf5") as (file, sink):
            for number, episode in enumerate(job.episodes()):
                _write_episode(file.create_group(f"episode_{number}"), episode, number)
                sink.check()
                steps += episode.transitions
        size = round((data / "main_data.hdf5").stat().st_size / 1e6, 1)
        metadata = _metadata(job, name) | {"total_steps": steps, "dataset_size": size}
        (data / "metadata.json").write_text(json.dumps(metadata))
    return folder / name


def _write_episode(group: Any, episode: Episode, number: int) -> None:
    metadata = episode.metadata
    group.attrs["id"] = number
    group.attrs["total_steps"] = episode.transitions
    if metadata.seed >= 0:
        group.attrs["seed"] = metadata.seed
    group.attrs["success"] = metadata.success
    group.attrs["flywheel"] = json.dumps(metadata.to_json())
    ends = np.zeros((2, episode.transitions), np.bool_)
    ends[0 if episode.is_terminal[-1] else 1, -1] = True
    columns = {"actions": episode.action[:-1], "rewards": episode.reward[:-1], "terminations": ends[0], "truncations": ends[1]}
    columns |= {f"observations/{key}": values for key, values in episode.observation.items()}
    for key, values in columns.items():
        values = values.astype(np.int8) if values.dtype == np.bool_ and key.startswith("observations/") else values
        write_array(group, key, values)


def _metadata(job: Export, name: str) -> dict[str, Any]:
    schema = job.store.schema
    return {
        "dataset_id": name,
        "total_episodes": len(job.snapshot),
        "observation_space": json.dumps(_observation_space(schema)),
        "action_space": json.dumps(_action_space(schema.action)),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        # An older Minari would take raw pictures for JPEG, and is told so by the version.
        "minari_version": "0.5.4" if schema.picture_keys else "0.5.0",
        "description": f"Exported from the Flywheel store {job.store.name}, snapshot {job.snapshot.hash}.",
        "flywheel": job.provenance(),
    }


def _observation_space(schema: Schema) -> dict[str, Any]:
    return {"type": "Dict", "subspaces": {key: _space(spec) for key, spec in sorted(schema.observation.arrays.items())}}


def _space(spec: ArraySpec) -> dict[str, Any]:
    """A gymnasium space in Minari's JSON; floats have no bounds, integers those of their dtype."""
    dtype = np.dtype(spec.dtype)
    if dtype == np.bool_:
        return {"type": "MultiBinary", "n": list(spec.shape)}
    low, high = (-np.inf, np.inf) if dtype.kind == "f" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    return _box(np.full(spec.shape, low, dtype).tolist(), np.full(spec.shape, high, dtype).tolist(), spec)


def _action_space(action: ActionSpec) -> dict[str, Any]:
    low, high = action.bounds
    return _box(low.tolist(), high.tolist(), action.array)


def _box(low: Any, high: Any, spec: ArraySpec) -> dict[str, Any]:
    return {"type": "Box", "dtype": spec.dtype, "shape": list(spec.shape), "low": low, "high": high}

"""RLDS as `tfds build` lays it out: ``<name>/1.0.0/<name>-train.tfrecord-00000-of-00004``, features.json, dataset_info.json.

Records and features are a store's own, plus ``language_instruction`` (the task) in every step, which is where Open X-Embodiment
code looks for it. A store is RLDS already; this makes a copy of a snapshot that is frozen, with its labels applied, in shards of
a chosen size and under TFDS's usual names. Provenance is in metadata.json, which TFDS gives as ``builder.info.metadata``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ObservationSpec
from flywheel.datasets import example
from flywheel.datasets.codec import decode_episode, encoded_pictures, episode_features
from flywheel.datasets.exporters.base import Export, Progress, published
from flywheel.datasets.index import IndexRow
from flywheel.datasets.layout import VERSION
from flywheel.datasets.overlay import revise
from flywheel.datasets.schema import Schema
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import frame

_SPLIT = "train"
_INSTRUCTION = "language_instruction"
_TEXT = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}


def export(
    store: EpisodeStore,
    snapshot: Snapshot,
    folder: Path,
    *,
    shard_mb: float = 256.0,
    on_progress: Progress = lambda done, total: None,
) -> Path:
    """Write ``folder/<store>/1.0.0`` in shards of about `shard_mb` MB and return its path; `folder` must be new or empty.

    Raises `FlywheelError` if it is not, and for an episode that is damaged.
    """
    if not shard_mb > 0:
        raise FlywheelError(f"shard_mb is {shard_mb:g}; give the megabytes that a shard should hold.")
    job = Export(store, snapshot, on_progress)
    with published(job, folder) as temporary:
        data = temporary / store.name / VERSION
        data.mkdir(parents=True)
        shards = _write_shards(data, _records(job), shard_mb * 1e6)
        for number, shard in enumerate(shards):
            shard.path.rename(data / f"{store.name}-{_SPLIT}.tfrecord-{number:05d}-of-{len(shards):05d}")
        documents = {
            "features.json": _features(store.schema),
            "dataset_info.json": _info(job, shards),
            "metadata.json": {"flywheel": job.provenance()},
        }
        for name, document in documents.items():
            (data / name).write_text(json.dumps(document, indent=1) + "\n")
    return folder / store.name / VERSION


class _Shard(NamedTuple):
    path: Path
    records: int
    size: int


def _records(job: Export) -> Iterator[bytes]:
    for done, row in enumerate(job.rows, start=1):
        yield bytes(frame(example.encode(_record(job.store, row))))
        job.on_progress(done, len(job.rows))


def _record(store: EpisodeStore, row: IndexRow) -> dict[str, Any]:
    """The features of an episode as it is labelled. Pictures are copied as they are stored: a JPEG that is coded again loses."""
    payload, schema = store.payload(row.episode_id), store.schema
    arrays = {key: spec for key, spec in schema.observation.arrays.items() if key not in schema.picture_keys}
    recorded = decode_episode(payload, schema, arrays)
    episode = revise(recorded, row)
    features = episode_features(episode, replace(schema, observation=ObservationSpec(arrays)))
    first, stop = (row.trim.start, row.trim.stop + 1) if row.trim else (0, len(recorded))
    for key in schema.picture_keys:
        features[f"steps/observation/{key}"] = encoded_pictures(payload, schema, key)[first:stop]
    features[f"steps/{_INSTRUCTION}"] = [episode.metadata.task.encode()] * len(episode)
    return features


def _write_shards(folder: Path, records: Iterator[bytes], limit: float) -> list[_Shard]:
    shards: list[_Shard] = []
    while (record := next(records, None)) is not None:
        shards.append(_write_shard(folder / f"shard-{len(shards)}", chain([record], records), limit))
    return shards


def _write_shard(path: Path, records: Iterator[bytes], limit: float) -> _Shard:
    """Write records until the shard has so many bytes."""
    count = size = 0
    with path.open("wb") as file:
        for record in records:
            count, size = count + 1, size + file.write(record)
            if size >= limit:
                break
    return _Shard(path, count, size)


def _features(schema: Schema) -> dict[str, Any]:
    features = schema.features_json()
    steps = features["content"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    steps[_INSTRUCTION] = _TEXT
    return features


def _info(job: Export, shards: list[_Shard]) -> dict[str, Any]:
    split = {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": _SPLIT,
        "numBytes": str(sum(shard.size for shard in shards)),
        "shardLengths": [str(shard.records) for shard in shards],
    }
    return {
        "description": f"Exported from the Flywheel store {job.store.name}, snapshot {job.snapshot.hash}.",
        "fileFormat": "tfrecord",
        "name": job.store.name,
        "splits": [split],
        "version": VERSION,
    }

"""An episode as the payload of one record, and back: RLDS names, one tf.train.Example per episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import Array, ArraySpec
from flywheel.datasets import example
from flywheel.datasets.schema import Schema, storage
from flywheel.datasets.tfrecord import DamagedError

_METADATA = "episode_metadata/"
_OBSERVATION = "steps/observation/"
_REWARD = ArraySpec(())
_FLAG = ArraySpec((), "bool")
_DEFAULTS = EpisodeMetadata(episode_id="").to_json()
_EMPTY: dict[str, str | int | bool] = {"str": "", "int": 0, "bool": False}


def encode_episode(episode: Episode, schema: Schema) -> bytes:
    """A validated episode as tf.train.Example, in the layout that TFDS expects of `Schema.features_json`."""
    return example.encode(episode_features(episode, schema))


def episode_features(episode: Episode, schema: Schema) -> dict[str, Any]:
    """The features of that Example by name; an exporter adds others."""
    columns: dict[str, Any] = {
        "steps/action": episode.action,
        "steps/reward": episode.reward,
        "steps/discount": episode.discount,
        "steps/is_first": episode.is_first.astype(np.int64),
        "steps/is_last": episode.is_last.astype(np.int64),
        "steps/is_terminal": episode.is_terminal.astype(np.int64),
    }
    for key, spec in schema.observation.arrays.items():
        columns[_OBSERVATION + key] = _encode_array(episode.observation[key], spec)
    # A store that a newer version made promises fields that this one lacks, and TFDS refuses a record without them.
    metadata = {name: _EMPTY[kind] for name, kind in schema.metadata.items()} | episode.metadata.to_json()
    for name, value in metadata.items():
        columns[_METADATA + name] = [value.encode()] if isinstance(value, str) else np.array([value], np.int64)
    return columns


def decode_episode(payload: bytes, schema: Schema) -> Episode:
    """The episode that `encode_episode` wrote; raises `DamagedError` if the payload is none of this schema."""
    features = example.parse(payload)
    reward = _decode_array(features, "steps/reward", _REWARD, None)
    steps = len(reward)
    return Episode(
        observation={
            key: _decode_array(features, _OBSERVATION + key, spec, steps) for key, spec in schema.observation.arrays.items()
        },
        action=_decode_array(features, "steps/action", schema.action.array, steps),
        reward=reward,
        discount=_decode_array(features, "steps/discount", _REWARD, steps),
        is_first=_decode_array(features, "steps/is_first", _FLAG, steps),
        is_last=_decode_array(features, "steps/is_last", _FLAG, steps),
        is_terminal=_decode_array(features, "steps/is_terminal", _FLAG, steps),
        metadata=_decode_metadata(features),
    )


def summarize(payload: bytes) -> tuple[EpisodeMetadata, int, float]:
    """An episode's metadata, number of transitions and return, without decoding the rest."""
    features = example.parse(payload)
    reward = _decode_array(features, "steps/reward", _REWARD, None)
    return _decode_metadata(features), len(reward) - 1, float(reward.sum(dtype=np.float64))


def _encode_array(value: Array, spec: ArraySpec) -> Array | list[bytes]:
    match storage(spec, "observation"):
        case "floats":
            return value.astype(np.float32, copy=False)
        case "integers":
            return value.astype(np.int64)
        case "raw":
            return [step.tobytes() for step in value]


def _decode_array(features: Mapping[str, memoryview], name: str, spec: ArraySpec, steps: int | None) -> Array:
    """The array `name`, (T + 1, *shape); `steps` is T + 1 where it is known."""
    kind = storage(spec, name)
    feature = _get(features, name)
    flat: Array
    if kind == "raw":
        flat = _from_raw(b"".join(example.strings(feature)), spec, name)
    else:
        flat = example.floats(feature) if kind == "floats" else example.integers(feature)
    count = len(flat) // spec.size if steps is None else steps
    if len(flat) != count * spec.size or not count:
        raise DamagedError(f"{name} has {len(flat)} numbers, not {count} times {spec.size}.")
    return flat.astype(spec.dtype, copy=False).reshape(count, *spec.shape)


def _from_raw(data: bytes, spec: ArraySpec, name: str) -> Array:
    dtype = np.dtype(spec.dtype)
    if len(data) % dtype.itemsize:
        raise DamagedError(f"{name} is cut off.")
    return np.frombuffer(data, dtype).copy()


def _decode_metadata(features: Mapping[str, memoryview]) -> EpisodeMetadata:
    """The metadata fields that this version knows; the others are left aside and missing ones have their defaults."""
    values = {}
    for name, default in _DEFAULTS.items():
        if _METADATA + name in features:
            feature = features[_METADATA + name]
            values[name] = _text(feature) if isinstance(default, str) else type(default)(_single(example.integers, feature))
    if not values.get("episode_id"):
        raise DamagedError("The record has no episode_id.")
    return EpisodeMetadata.from_json(values)


def _text(feature: memoryview) -> str:
    try:
        return str(_single(example.strings, feature), "utf-8")
    except UnicodeDecodeError:
        raise DamagedError("The episode's metadata are not UTF-8.") from None


def _single(read: Callable[[memoryview], Any], feature: memoryview) -> Any:
    values = read(feature)
    if len(values) != 1:
        raise DamagedError(f"A metadata field holds {len(values)} values instead of one.")
    return values[0]


def _get(features: Mapping[str, memoryview], name: str) -> memoryview:
    if name not in features:
        raise DamagedError(f"The record has no {name}.")
    return features[name]

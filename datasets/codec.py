"""An episode as the payload of one record, and back: RLDS names, one tf.train.Example per episode."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import Array, ArraySpec
from flywheel.datasets import example
from flywheel.datasets.pictures import decode_many, encode_many
from flywheel.datasets.schema import Kind, Schema
from flywheel.datasets.tfrecord import DamagedError, Piece

T = TypeVar("T")
_METADATA = "episode_metadata/"
OBSERVATION = "steps/observation/"
"""What the names of the observation's features begin with."""
_REWARD = ArraySpec(())
_FLAG = ArraySpec((), "bool")
_DEFAULTS = EpisodeMetadata(episode_id="").to_json()
_EMPTY: dict[str, str | int | bool] = {"str": "", "int": 0, "bool": False}


def encode_episode(episode: Episode, schema: Schema) -> bytes:
    """A validated episode as tf.train.Example, in the layout that TFDS expects of `Schema.features_json`."""
    return b"".join(encode_pieces(episode, schema))


def encode_pieces(episode: Episode, schema: Schema) -> list[Piece]:
    """The bytes of `encode_episode` in pieces; raw pictures are views of the episode's own arrays."""
    return example.encode_pieces(episode_features(episode, schema))


def episode_features(episode: Episode, schema: Schema) -> dict[str, Any]:
    """The features of that Example by name; an exporter adds others."""
    columns: dict[str, Any] = {
        "steps/action": episode.action,
        "steps/reward": episode.reward,
        "steps/discount": episode.discount,
        "steps/is_first": episode.is_first,
        "steps/is_last": episode.is_last,
        "steps/is_terminal": episode.is_terminal,
    }
    for key in schema.observation.arrays:
        columns[OBSERVATION + key] = encode_array(episode.observation[key], schema.storage(key))
    # A store that a newer version made promises fields that this one lacks, and TFDS refuses a record without them.
    metadata = {name: _EMPTY[kind] for name, kind in schema.metadata.items()} | episode.metadata.to_json()
    for name, value in metadata.items():
        columns[_METADATA + name] = value.encode() if isinstance(value, str) else value
    return columns


def decode_episode(payload: bytes, schema: Schema, keys: Collection[str] | None = None) -> Episode:
    """The episode that was encoded; raises `DamagedError` if the payload is none of this schema.

    `keys` names the arrays of the observation that are wanted, if not all are: without its pictures an episode is decoded in
    a hundredth of the time.
    """
    features = example.parse(payload)
    reward = _decode_array(features, "steps/reward", _REWARD, "floats", None)
    steps = len(reward)
    wanted = schema.observation.arrays.keys() if keys is None else keys
    return Episode(
        observation={key: _decode_observation(features, schema, key, steps) for key in wanted},
        action=_decode_array(features, "steps/action", schema.action.array, "floats", steps),
        reward=reward,
        discount=_decode_array(features, "steps/discount", _REWARD, "floats", steps),
        is_first=_decode_array(features, "steps/is_first", _FLAG, "integers", steps),
        is_last=_decode_array(features, "steps/is_last", _FLAG, "integers", steps),
        is_terminal=_decode_array(features, "steps/is_terminal", _FLAG, "integers", steps),
        metadata=_decode_metadata(features),
    )


def decode_array(payload: bytes, schema: Schema, key: str) -> Array:
    """One array of the observation alone, (T + 1, *shape); raises `DamagedError` if the payload is none of this schema."""
    features = example.parse(payload)
    return _decode_observation(features, schema, key, _steps(features))


def encoded_pictures(payload: bytes, schema: Schema, key: str) -> list[bytes]:
    """The T + 1 pictures of one camera as they are stored, PNG or JPEG; raises `DamagedError` as `decode_array` does."""
    features = example.parse(payload)
    return _counted(example.strings(_get(features, OBSERVATION + key)), _steps(features), key)


def summarize(payload: bytes) -> tuple[EpisodeMetadata, int, float]:
    """An episode's metadata, number of transitions and return, without decoding the rest."""
    features = example.parse(payload)
    reward = _decode_array(features, "steps/reward", _REWARD, "floats", None)
    return _decode_metadata(features), len(reward) - 1, float(reward.sum(dtype=np.float64))


def encode_array(value: Array, kind: Kind) -> Array | Sequence[Piece]:
    """One array of the observation, (N, *shape), as a feature of the record; pictures, N of them, are encoded here."""
    match kind:
        case "floats":
            return value.astype(np.float32, copy=False)
        case "integers":
            return value if value.dtype == np.bool_ else value.astype(np.int64)
        case "raw":
            view = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
            size = len(view) // len(value)
            return [view[start : start + size] for start in range(0, len(view), size)]
        case _:
            return encode_many(value, kind)


def _steps(features: Mapping[str, memoryview]) -> int:
    return len(_decode_array(features, "steps/reward", _REWARD, "floats", None))


def _decode_observation(features: Mapping[str, memoryview], schema: Schema, key: str, steps: int) -> Array:
    return _decode_array(features, OBSERVATION + key, schema.observation.arrays[key], schema.storage(key), steps)


def _decode_array(features: Mapping[str, memoryview], name: str, spec: ArraySpec, kind: Kind, steps: int | None) -> Array:
    """The array `name`, (T + 1, *shape); `steps` is T + 1 where it is known."""
    feature = _get(features, name)
    if kind == "raw":
        return _from_raw(_counted(example.views(feature), steps, name), spec, name)
    if kind in ("png", "jpeg"):
        return _decode_pictures(_counted(example.strings(feature), steps, name), spec, name)
    flat = example.floats(feature) if kind == "floats" else example.integers(feature)
    count = len(flat) // spec.size if steps is None else steps
    if len(flat) != count * spec.size or not count:
        raise DamagedError(f"{name} has {len(flat)} numbers, not {count} times {spec.size}.")
    return flat.astype(spec.dtype, copy=False).reshape(count, *spec.shape)


def _decode_pictures(items: Sequence[bytes], spec: ArraySpec, name: str) -> Array:
    try:
        return decode_many(items, spec.shape)
    except DamagedError as error:
        raise DamagedError(f"{name}: {error}") from None


def _from_raw(items: Sequence[memoryview], spec: ArraySpec, name: str) -> Array:
    array = np.empty((len(items), *spec.shape), spec.dtype)
    rows = array.reshape(len(items), -1).view(np.uint8)
    for row, item in zip(rows, items, strict=True):
        if len(item) != len(row):
            raise DamagedError(f"{name} has a step of {len(item)} bytes, not {len(row)}.")
        row[:] = np.frombuffer(item, np.uint8)
    return array


def _counted(items: list[T], steps: int | None, name: str) -> list[T]:
    if len(items) != steps:
        raise DamagedError(f"{name} has {len(items)} steps, not {steps}.")
    return items


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

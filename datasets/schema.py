"""What the episodes of a store look like, in our words and in TFDS's.

Our own form keeps what TFDS has no place for (units, the action's bounds and meaning). `features_json` gives the
features.json that TFDS reads, written by hand so that a robot computer needs no TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from flywheel.core.episode import EpisodeMetadata
from flywheel.core.errors import SpecError
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec

FORMAT = 1
"""The version of the record layout, in case a later one has to tell the difference."""
Pictures = Literal["png", "jpeg", "raw"]
"""How a store keeps its pictures: PNG (exact, small), JPEG of quality 95 (smaller still, and lossy) or raw (exact, fast)."""
Kind = Literal["floats", "integers", "raw", "png", "jpeg"]
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_MODULE = "tensorflow_datasets.core.features"
_PICTURE_CHANNELS = (1, 3, 4)
_MOST_JPEG = 65_500
"""Pixels in a row or column; libjpeg's own limit."""


def _metadata_fields() -> dict[str, str]:
    return {item.name: str(item.type) for item in fields(EpisodeMetadata)}


@dataclass(frozen=True)
class Schema:
    """The observation and action of every episode of a store; tasks, robots and policies mix within one.

    Raises `SpecError` for an observation array that cannot be stored.
    """

    observation: ObservationSpec
    action: ActionSpec
    metadata: Mapping[str, str] = field(default_factory=_metadata_fields, compare=False)
    """The metadata fields that features.json promises, with their types (str, int, bool): those that `EpisodeMetadata` had
    when the store was made. A writer of another version fills what it does not know, and what it adds TFDS leaves aside."""
    pictures: Pictures = "png"
    """How all pictures among the observation's arrays are kept; see `is_picture`."""

    def __post_init__(self) -> None:
        if self.pictures not in get_args(Pictures):
            raise SpecError(f"Pictures are kept as {', '.join(get_args(Pictures))}, not as {self.pictures!r}.")
        for key, spec in self.observation.arrays.items():
            if not _KEY.fullmatch(key):
                raise SpecError(f"The observation's name {key!r} cannot be stored; use letters, digits, '_', '-' and '.'.")
            _check(spec, f"observation['{key}']", self.pictures)

    @cached_property
    def picture_keys(self) -> tuple[str, ...]:
        """The observation's arrays that are pictures, sorted."""
        return tuple(sorted(key for key, spec in self.observation.arrays.items() if is_picture(spec)))

    def storage(self, key: str) -> Kind:
        """How an array of the observation is stored."""
        spec = self.observation.arrays[key]
        return self.pictures if is_picture(spec) else storage(spec)

    def to_json(self) -> dict[str, Any]:
        """A form that `from_json` reads back."""
        return {
            "format": FORMAT,
            "observation": self.observation.to_json(),
            "action": self.action.to_json(),
            "metadata": dict(self.metadata),
            "pictures": self.pictures,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """Read what `to_json` wrote; raises `SpecError` for a record layout that this version does not know."""
        if data["format"] != FORMAT:
            raise SpecError(f"The store has format {data['format']}, and this version reads {FORMAT}; update flywheel-robotics.")
        observation, action = ObservationSpec.from_json(data["observation"]), ActionSpec.from_json(data["action"])
        return cls(observation, action, metadata=data["metadata"], pictures=data.get("pictures", "png"))

    def features_json(self) -> dict[str, Any]:
        """The content of TFDS's features.json: RLDS episodes with ``steps`` and ``episode_metadata``."""
        arrays = sorted(self.observation.arrays.items())
        steps: dict[str, Any] = {
            "observation": _group({key: _feature(spec, self.storage(key)) for key, spec in arrays}),
            "action": _tensor(self.action.array),
            **{key: _tensor(ArraySpec(())) for key in ("reward", "discount")},
            **{key: _tensor(ArraySpec((), "bool")) for key in ("is_first", "is_last", "is_terminal")},
        }
        features = {
            "steps": {
                "pythonClassName": f"{_MODULE}.dataset_feature.Dataset",
                "sequence": {"feature": _group(steps), "length": "-1"},
            },
            "episode_metadata": _group({name: _METADATA_FEATURES[kind] for name, kind in self.metadata.items()}),
        }
        return {
            "type": f"{_MODULE}.features_dict.FeaturesDict",
            "content": {"features": features},
            "proto_cls": "tensorflow_datasets.FeaturesDict",
        }


def is_picture(spec: ArraySpec) -> bool:
    """Whether an array is a picture: (height, width, 1, 3 or 4) of uint8."""
    return np.dtype(spec.dtype) == np.uint8 and len(spec.shape) == 3 and spec.shape[-1] in _PICTURE_CHANNELS


def storage(spec: ArraySpec) -> Kind:
    """How an array that is no picture is stored: as float_list or int64_list, or, where neither is exact, raw per step."""
    dtype = np.dtype(spec.dtype)
    if dtype in (np.float64, np.uint64):
        return "raw"
    return "floats" if dtype.kind == "f" else "integers"


def _check(spec: ArraySpec, name: str, pictures: Pictures) -> None:
    dtype = np.dtype(spec.dtype)
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or not spec.size:
        raise SpecError(
            f"{name} is {spec.dtype} {spec.shape}; a store holds arrays of numbers or bools with at least one element."
        )
    if is_picture(spec) and pictures == "jpeg" and (spec.shape[-1] == 4 or max(spec.shape) > _MOST_JPEG):
        raise SpecError(f"{name} is a picture {spec.shape}, which JPEG cannot hold; choose pictures='png' or 'raw'.")


def _feature(spec: ArraySpec, kind: Kind) -> dict[str, Any]:
    if kind in ("png", "jpeg"):
        image = {"shape": _shape(spec), "dtype": "uint8", "encodingFormat": kind}
        return {"pythonClassName": f"{_MODULE}.image_feature.Image", "image": image}
    return {
        "pythonClassName": f"{_MODULE}.tensor_feature.Tensor",
        "tensor": {"shape": _shape(spec), "dtype": np.dtype(spec.dtype).name, "encoding": "bytes" if kind == "raw" else "none"},
    }


def _tensor(spec: ArraySpec) -> dict[str, Any]:
    return _feature(spec, storage(spec))


def _shape(spec: ArraySpec) -> dict[str, list[str]]:
    return {"dimensions": [str(size) for size in spec.shape]} if spec.shape else {}


def _group(features: Mapping[str, Any]) -> dict[str, Any]:
    return {"pythonClassName": f"{_MODULE}.features_dict.FeaturesDict", "featuresDict": {"features": dict(features)}}


_METADATA_FEATURES: dict[str, Any] = {
    "str": {"pythonClassName": f"{_MODULE}.text_feature.Text", "text": {}},
    "int": _tensor(ArraySpec((), "int64")),
    "bool": _tensor(ArraySpec((), "bool")),
}

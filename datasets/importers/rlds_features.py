"""What features.json says of an RLDS data set's records, and how its fields are decoded from them without TensorFlow."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets import example
from flywheel.datasets.importers.files import reading
from flywheel.datasets.importers.images import decode_pictures

_CLASSES = "tensorflow_datasets.core.features."
_DEEPEST = 16
_TEXT = "text"


@dataclass(frozen=True)
class Feature:
    """A field of every step, or of the episode."""

    name: str
    """As mappings write it: without ``steps/``."""
    key: str
    """As records write it."""
    kind: str
    """tensor, image or text; anything else only TFDS reads."""
    shape: tuple[int, ...] = ()
    """-1 where it differs from episode to episode."""
    dtype: str = ""
    encoding: str = "none"
    in_steps: bool = True

    @property
    def is_number(self) -> bool:
        """Whether it is an array of numbers, pictures included."""
        return self.kind in ("tensor", "image") and self.dtype not in ("", "string")

    @property
    def is_plain(self) -> bool:
        """Whether `decode` reads it."""
        if self.kind == "image":
            return self.dtype == "uint8" and len(self.shape) == 3 and self.shape[2] in (1, 3, 4)
        return self.kind == _TEXT or (self.kind == "tensor" and -1 not in self.shape and bool(self.dtype))


def features_of(path: Path, features: Mapping[str, Any]) -> dict[str, Feature]:
    """Every field by its name, from the content of features.json; raises `FlywheelError` if that is no RLDS."""
    with reading(path / "features.json", "its features"):
        # TFDS knows two forms: the message itself, and one of JSON within JSON.
        content = features.get("content", features.get("featuresDict"))
        fields = (json.loads(content) if isinstance(content, str) else content)["features"]
        if "steps" not in fields or "sequence" not in fields["steps"]:
            raise FlywheelError(f"{path} is no RLDS data set: its features.json has no 'steps'.")
        found = [
            *_walk(fields["steps"]["sequence"]["feature"], "", "steps", True, 0),
            *(item for name in fields if name != "steps" for item in _walk(fields[name], name, name, False, 0)),
        ]
    by_name: dict[str, Feature] = {}
    for feature in found:
        by_name.setdefault(feature.name, feature)  # a step's field comes before the episode's of the same name
    return by_name


def decode(path: Path, feature: Feature, record: Mapping[str, memoryview]) -> Array | list[bytes]:
    """A step field's values, (T + 1, *shape) or T + 1 texts; of an episode's field the same with one step.

    Raises `FlywheelError` for anything that does not agree with features.json.
    """
    what = f"'{feature.name}'"
    with reading(path, what):
        if feature.key not in record:
            raise FlywheelError(f"{path}: the record has no {what}.")
        data = record[feature.key]
        if feature.kind == _TEXT or feature.dtype == "string":
            return example.strings(data)
        if feature.kind == "image":
            return decode_pictures(path, what, example.strings(data), feature.shape)
        return _tensor(path, feature, data)


def _tensor(path: Path, feature: Feature, data: memoryview) -> Array:
    dtype, size = np.dtype(feature.dtype), int(np.prod(feature.shape, dtype=object))
    flat: Array
    if feature.encoding in ("bytes", "zlib"):
        steps = example.strings(data)
        if feature.encoding == "zlib":
            steps = [_inflate(path, feature, step, size * dtype.itemsize) for step in steps]
        flat = np.frombuffer(b"".join(steps), dtype.newbyteorder("<"))
    elif dtype.kind == "f":
        flat = example.floats(data)
    else:
        flat = example.integers(data)
        flat = flat.view(np.uint64) if dtype == np.uint64 else flat
    if size == 0 or len(flat) % size:
        raise FlywheelError(f"{path}: '{feature.name}' has {len(flat)} numbers, which is no multiple of its size {size}.")
    cast = flat.astype(dtype, copy=False)
    if (cast != flat).any() and dtype.kind != "f":
        raise FlywheelError(f"{path}: '{feature.name}' holds numbers that its {dtype} cannot.")
    return cast.reshape(-1, *feature.shape)


def _inflate(path: Path, feature: Feature, data: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj()
    found = inflater.decompress(data, size + 1)
    if len(found) != size:
        raise FlywheelError(f"{path}: '{feature.name}' holds {len(found)} compressed bytes or more, not {size}.")
    return found


def _walk(value: Mapping[str, Any], name: str, key: str, in_steps: bool, depth: int) -> Iterator[Feature]:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if "featuresDict" in value:
        for part, inner in sorted(value["featuresDict"]["features"].items()):
            yield from _walk(inner, f"{name}/{part}" if name else part, f"{key}/{part}", in_steps, depth + 1)
        return
    kind = str(value.get("pythonClassName", "")).removeprefix(_CLASSES)
    if kind in ("tensor_feature.Tensor", "scalar.Scalar"):
        about = value["tensor"]
        yield Feature(name, key, "tensor", _shape(about), str(about["dtype"]), about.get("encoding", "none"), in_steps)
    elif kind == "image_feature.Image":
        yield Feature(name, key, "image", _shape(value["image"]), str(value["image"].get("dtype", "uint8")), in_steps=in_steps)
    elif kind == "class_label_feature.ClassLabel":
        yield Feature(name, key, "tensor", (), "int64", in_steps=in_steps)
    elif kind == "text_feature.Text":
        yield Feature(name, key, _TEXT, in_steps=in_steps)
    else:
        yield Feature(name, key, kind, in_steps=in_steps)


def _shape(about: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in about.get("shape", {}).get("dimensions", []))

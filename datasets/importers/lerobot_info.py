"""meta/info.json of a LeRobot data set: which features there are, and how fast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.files import inside, read_json

_VERSIONS = ("v2.0", "v2.1", "v3.0")
_BESIDE = ("timestamp", "frame_index", "episode_index", "index", "task_index", "subtask_index")
"""What every frame has and is no data of the robot's."""
_MOST_ELEMENTS = 1 << 28


@dataclass(frozen=True)
class Feature:
    """One feature of every frame."""

    name: str
    kind: Literal["array", "image", "video"]
    dtype: str
    shape: tuple[int, ...]
    """Of one frame: (1,) for numbers, as LeRobot writes them; (H, W, C) for pictures."""


class Info:
    """What info.json says, checked."""

    def __init__(self, root: Path) -> None:
        self.path = inside(root, root / "meta" / "info.json")
        self.values = read_json(self.path)
        self.version = str(self.values.get("codebase_version"))
        if self.version not in _VERSIONS:
            raise FlywheelError(f"{self.path} has version {self.version!r}, and only {', '.join(_VERSIONS)} are read.")
        fps = self.values.get("fps")
        if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < 1e6:
            raise FlywheelError(f"{self.path}: fps is {fps!r}, which is no rate.")
        self.fps = float(fps)

    @cached_property
    def features(self) -> dict[str, Feature]:
        """Every feature of numbers or pictures; texts are left out."""
        listed = self.values.get("features")
        if not isinstance(listed, dict):
            raise FlywheelError(f"{self.path} lists no features.")
        found = {name: self._feature(name, about) for name, about in listed.items() if name not in _BESIDE}
        return {name: feature for name, feature in found.items() if feature is not None}

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """The names of the features that are kept as arrays, images or video."""
        return tuple(name for name, feature in self.features.items() if feature.kind == kind)

    def _feature(self, name: str, about: Any) -> Feature | None:
        about = about if isinstance(about, dict) else {}
        dtype, shape = about.get("dtype"), about.get("shape")
        if dtype == "string":
            return None
        sizes = [size for size in shape if isinstance(size, int) and size > 0] if isinstance(shape, list) else []
        if not sizes or len(sizes) != len(shape) or math.prod(sizes) > _MOST_ELEMENTS:
            raise FlywheelError(f"{self.path}: the feature '{name}' has the shape {shape!r}.")
        if dtype in ("image", "video"):
            return Feature(name, dtype, "uint8", _picture_shape(sizes, about.get("names")))
        try:
            plain = np.dtype(str(dtype)).kind in "biuf"
        except TypeError:
            plain = False
        if not plain:
            raise FlywheelError(f"{self.path}: the feature '{name}' has the dtype {dtype!r}.")
        return Feature(name, "array", str(dtype), tuple(sizes))


def _picture_shape(sizes: list[int], names: Any) -> tuple[int, ...]:
    """(H, W, C); some data sets list the channels first."""
    first = isinstance(names, list) and bool(names) and str(names[0]).startswith("channel")
    return (*sizes[1:], sizes[0]) if first else tuple(sizes)


def short_names(features: Mapping[str, Feature]) -> dict[str, str]:
    """Our name of each feature of the observation: without ``observation.`` and, where that is unambiguous, ``images.``."""
    names = {name: name.removeprefix("observation.") for name in features if name.startswith("observation.")}
    short = {name: key.removeprefix("images.") for name, key in names.items()}
    taken = list(short.values())
    return {name: short[name] if taken.count(short[name]) == 1 else key for name, key in names.items()}

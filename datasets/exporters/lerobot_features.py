"""How a schema's arrays become LeRobot's features, and back: shared by the exporter and the importer.

``observation.state`` is what LeRobot's policies read, so it holds the state: all floating-point vectors, packed as training here
packs them. Whatever cannot be got back from it exactly has a feature of its own, and pictures are ``observation.images.NAME``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array, ArraySpec, Observation
from flywheel.datasets.schema import Schema, is_picture

STATE = "observation.state"
_MOST_AXES = 5
INDEX_FEATURES: dict[str, tuple[str, tuple[int, ...]]] = {
    "timestamp": ("float32", (1,)),
    "frame_index": ("int64", (1,)),
    "episode_index": ("int64", (1,)),
    "index": ("int64", (1,)),
    "task_index": ("int64", (1,)),
}
"""What every LeRobot frame has."""
OUTCOME_FEATURES: dict[str, tuple[str, tuple[int, ...]]] = {
    "next.reward": ("float32", (1,)),
    "next.done": ("bool", (1,)),
    "next.truncated": ("bool", (1,)),
    "next.success": ("bool", (1,)),
}
"""What came of a frame's action: LeRobot's names. `next.done` marks the last frame of every episode, `next.truncated` that of
one that did not end of itself, `next.success` that of a success."""


@dataclass(frozen=True)
class Features:
    """Where each array of an observation lies."""

    schema: Schema
    packed: tuple[str, ...]
    """The arrays that `observation.state` holds, in this order."""
    own: Mapping[str, str]
    """The arrays with a feature of their own: feature to array."""

    @classmethod
    def of(cls, schema: Schema) -> Features:
        """The features of a schema; raises `FlywheelError` for an array with more axes than LeRobot has."""
        arrays = schema.observation.arrays
        packed = schema.observation.state_keys
        own: dict[str, str] = {}
        for key, spec in sorted(arrays.items()):
            if len(spec.shape) > _MOST_AXES:
                raise FlywheelError(f"observation['{key}'] is {spec.shape}; LeRobot holds arrays of up to {_MOST_AXES} axes.")
            if key in packed and (len(packed) == 1 or spec.dtype == "float32"):
                continue
            name = f"observation.images.{key}" if is_picture(spec) else f"observation.{key}"
            while name == STATE or name in own:
                name += "_"
            own[name] = key
        return cls(schema, packed, own)

    @property
    def state(self) -> ArraySpec | None:
        """What `observation.state` is: one array as it is, or several packed as float32; None without any."""
        if len(self.packed) == 1:
            return self.schema.observation.arrays[self.packed[0]]
        return ArraySpec((self.schema.observation.state_dim,)) if self.packed else None

    @property
    def pictures(self) -> dict[str, ArraySpec]:
        """The features that are pictures."""
        return {name: spec for name, spec in self.observations.items() if is_picture(spec)}

    @property
    def observations(self) -> dict[str, ArraySpec]:
        """Every feature of the observation."""
        arrays = self.schema.observation.arrays
        state = {STATE: self.state} if self.state else {}
        return state | {name: arrays[key] for name, key in self.own.items()}

    def split(self, observation: Observation) -> dict[str, Array]:
        """The features of a sequence of observations, each (T, *shape)."""
        found = {name: observation[key] for name, key in self.own.items()}
        if len(self.packed) == 1:
            found[STATE] = observation[self.packed[0]]
        elif self.packed:
            found[STATE] = self.schema.observation.pack_state(observation)
        return found

    def join(self, features: Mapping[str, Array]) -> dict[str, Array]:
        """The observation that `split` made features of, exactly."""
        observation = {key: features[name] for name, key in self.own.items()}
        if len(self.packed) == 1:
            observation[self.packed[0]] = features[STATE]
            return observation
        for key in self.packed:
            if key not in observation:
                spec = self.schema.observation.arrays[key]
                part = features[STATE][:, self.schema.observation.state_slice(key)]
                observation[key] = part.reshape(len(part), *spec.shape)
        return observation

    def info(self, video: Mapping[str, Any] | None) -> dict[str, Any]:
        """What info.json says of every feature; `video` describes the codec, None keeps pictures as PNG."""
        described = {name: self._observation_info(name, spec, video) for name, spec in self.observations.items()}
        action = {"dtype": "float32", "shape": [self.schema.action.dim]}
        described["action"] = action | {"names": [f"action.{number}" for number in range(self.schema.action.dim)]}
        for name, (dtype, shape) in (OUTCOME_FEATURES | INDEX_FEATURES).items():
            described[name] = {"dtype": dtype, "shape": list(shape), "names": None}
        return described

    def _observation_info(self, name: str, spec: ArraySpec, video: Mapping[str, Any] | None) -> dict[str, Any]:
        shape = list(spec.shape) or [1]
        if is_picture(spec):
            height, width, channels = spec.shape
            info = {"shape": shape, "names": ["height", "width", "channels"]}
            if video is None:
                return {"dtype": "image", **info}
            size = {"video.height": height, "video.width": width, "video.channels": channels, "video.is_depth_map": False}
            return {"dtype": "video", **info, "info": {**size, **video, "has_audio": False}}
        return {"dtype": spec.dtype, "shape": shape, "names": self._state_names() if name == STATE else None}

    def _state_names(self) -> list[str]:
        arrays = self.schema.observation.arrays
        return [f"{key}.{number}" if arrays[key].shape else key for key in self.packed for number in range(arrays[key].size)]

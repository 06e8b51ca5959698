"""What an observation and an action are: shapes, dtypes, bounds, units. Everything that crosses a wall is checked here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel.core.errors import SpecError

Array = npt.NDArray[Any]
Observation = Mapping[str, Array]


@dataclass(frozen=True)
class ArraySpec:
    """One named array: its shape, dtype and unit."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    unit: str = ""

    def validate(self, value: Any, name: str, *, leading: int = 0) -> Array:
        """Return `value` as an array of this spec; `leading` extra axes (time) may come first.

        Raises `SpecError` for another shape, a dtype that would lose information, or a number that is not finite.
        """
        array = np.asarray(value)
        if array.ndim != leading + len(self.shape) or array.shape[leading:] != self.shape:
            raise SpecError(f"{name} has shape {array.shape[leading:]}, but {self.shape} is declared.")
        if array.dtype != self.dtype:
            array = self._cast(array, name)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise SpecError(f"{name} holds a NaN or an infinity; mend the sensor or drop the step before it is logged.")
        return array

    def _cast(self, array: Array, name: str) -> Array:
        if not np.can_cast(array.dtype, self.dtype, casting="same_kind"):
            raise SpecError(f"{name} has dtype {array.dtype}, which does not convert safely to the declared {self.dtype}.")
        with np.errstate(over="ignore"):
            cast: Array = array.astype(self.dtype)
        if cast.dtype.kind in "iu" and (cast != array).any():
            raise SpecError(f"{name} holds numbers that the declared {self.dtype} cannot; declare a wider one.")
        return cast

    @property
    def is_state(self) -> bool:
        """Whether the array is part of the state vector: a floating-point scalar or vector."""
        return len(self.shape) <= 1 and np.issubdtype(np.dtype(self.dtype), np.floating)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class ObservationSpec:
    """The named arrays of one observation.

    The floating-point scalars and vectors, sorted by name and concatenated, are *the state* (`pack_state`): that is the
    one matrix that training samples from and that a policy packs a live observation into.
    """

    arrays: Mapping[str, ArraySpec]

    def validate(self, observation: Observation, *, leading: int = 0) -> dict[str, Array]:
        """Return the observation with every array checked; raises `SpecError` for a missing, unknown or wrong one."""
        missing, unknown = self.arrays.keys() - observation.keys(), observation.keys() - self.arrays.keys()
        if missing or unknown:
            raise SpecError(f"The observation lacks {sorted(missing)} and has undeclared {sorted(unknown)}.")
        return {
            key: spec.validate(observation[key], f"observation['{key}']", leading=leading) for key, spec in self.arrays.items()
        }

    @cached_property
    def state_keys(self) -> tuple[str, ...]:
        """The keys that make up the state, in the order in which they are packed."""
        return tuple(sorted(key for key, spec in self.arrays.items() if spec.is_state))

    @cached_property
    def state_dim(self) -> int:
        """The length of the state vector."""
        return sum(self.arrays[key].size for key in self.state_keys)

    def state_slice(self, key: str) -> slice:
        """Where `key` lies in the state vector."""
        before = self.state_keys[: self.state_keys.index(key)]
        start = sum(self.arrays[name].size for name in before)
        return slice(start, start + self.arrays[key].size)

    def pack_state(self, observation: Observation) -> npt.NDArray[np.float32]:
        """Concatenate the state keys of an observation, (D,), or of a sequence of them, (T, D), as float32."""
        columns = []
        for key in self.state_keys:
            value = np.asarray(observation[key], dtype=np.float32)
            columns.append(value[..., None] if not self.arrays[key].shape else value)
        return np.concatenate(columns, axis=-1) if columns else np.zeros((0,), np.float32)

    def to_json(self) -> dict[str, Any]:
        """A form that `from_json` reads back."""
        return {key: asdict(spec) for key, spec in sorted(self.arrays.items())}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ObservationSpec:
        """Read what `to_json` wrote."""
        return cls({key: ArraySpec(tuple(spec["shape"]), spec["dtype"], spec["unit"]) for key, spec in data.items()})


@dataclass(frozen=True)
class ActionSpec:
    """A bounded action vector and what its numbers mean to the controller."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    controller: str = "unknown"
    """The controller that executes it, for example ``osc_pose``."""
    mode: str = "delta"
    """``delta`` or ``absolute``."""
    frame: str = "base"
    """The frame in which it is expressed."""
    scale: tuple[float, ...] = field(default=())
    """What an action of 1 means, per dimension, in the controller's units (metres, radians)."""
    rate: float = 0.0
    """The control rate in Hz."""

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not all(
            -math.inf < lo < hi < math.inf for lo, hi in zip(self.low, self.high, strict=True)
        ):
            raise SpecError(f"An action needs finite low < high in every dimension, not low={self.low} and high={self.high}.")

    @property
    def dim(self) -> int:
        """The number of action dimensions."""
        return len(self.low)

    @property
    def bounds(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The lowest and the highest action, each (A,)."""
        return np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)

    @property
    def array(self) -> ArraySpec:
        """The action as an array."""
        return ArraySpec((self.dim,))

    def validate(self, action: Any) -> Array:
        """Return a finite action of the right shape; bounds are the safety layer's business (`robots.safety`)."""
        return self.array.validate(action, "action")

    def normalize(self, action: Array) -> Array:
        """From the robot's units to [-1, 1], (..., A) float32: what networks learn."""
        middle, half = self._middle_and_half
        return np.asarray((action - middle) / half, np.float32)

    def denormalize(self, action: Array) -> Array:
        """From [-1, 1] to the robot's units, (..., A) float32."""
        middle, half = self._middle_and_half
        return np.asarray(middle + action * half, np.float32)

    @cached_property
    def _middle_and_half(self) -> tuple[Array, Array]:
        low, high = self.bounds
        return (low + high) / 2, (high - low) / 2

    def to_json(self) -> dict[str, Any]:
        """A form that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ActionSpec:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return cls(**values)

"""Checking a step and laying it out as a frame, within a control loop: nothing here waits, and little is allocated."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from flywheel.core.errors import SpecError
from flywheel.core.specs import Array, ArraySpec
from flywheel.datasets.recording.capture import stamped_keys
from flywheel.datasets.recording.ring import HEADER, Ring
from flywheel.datasets.recording.step_layout import ACTION, FRESH, REWARD, Place, StepLayout

_NUMBER = ArraySpec(())


class _Sensor:
    """One array of a step, and where it goes."""

    __slots__ = ("dtype", "fresh", "is_float", "is_needed", "name", "padded", "shape", "spec", "stamp", "stamp_key", "view")

    def __init__(self, name: str, place: Place, view: Array | None) -> None:
        spec = place.spec
        self.name, self.spec, self.shape, self.dtype = name, spec, spec.shape, np.dtype(spec.dtype)
        self.is_float = self.dtype.kind == "f"
        self.padded = place.padded
        self.view = view
        """Its place in the block; None for a large one."""
        self.is_needed = True
        """Whether every step must have it: true of what has no stamp that would tell a repeated value from a new one."""
        self.fresh = -1
        """A large one's number."""
        self.stamp = -1
        """Where its stamp is among the block's 64-bit numbers; -1 if it has none."""
        self.stamp_key = ""

    def check(self, value: Any) -> Array:
        """The value as an array that may be assigned; raises `SpecError`. The declared dtype is the fast way through."""
        if value.__class__ is np.ndarray and value.shape == self.shape:
            dtype = value.dtype
            if dtype == self.dtype or (self.is_float and dtype.kind == "f"):
                return value
        return self.spec.validate(value, self.name)


class StepEncoder:
    """Makes the frames of steps, one at a time: `stage`, `write`, and then `keep` or `undo`."""

    def __init__(self, layout: StepLayout) -> None:
        self._layout = layout
        self._block = memoryview(bytearray(layout.size))
        self._kept = bytearray(layout.size)
        """The block as of the last step that was recorded; a refused one must not leave anything behind."""
        self._stamps = self._block.cast("q")
        self._fresh = self._block[layout.block[FRESH].offset :][: len(layout.large)]
        self._none_fresh = bytes(len(layout.large))
        self._action = _Sensor(ACTION, layout.block[ACTION], _view(self._block, layout.block[ACTION]))
        self._reward = _view(self._block, layout.block[REWARD])
        self._floats = [(part, np.zeros_like(part)) for part in _float_parts(layout, self._block)]
        self._sensors = _sensors(layout, self._block)
        self._stamp_keys = frozenset(stamped_keys(layout.schema.observation).values())
        self._needed = sum(sensor.is_needed for sensor in self._sensors.values())
        self._new: list[tuple[_Sensor, Array]] = []
        self._is_first = True

    def begin(self) -> None:
        """The next step is the first of an episode, in which every sensor has to be given."""
        self._is_first = True

    def stage(self, observation: Mapping[str, Any], captured_at: Mapping[str, int] | None) -> int:
        """Check an observation and take it in; returns how long the frame will be. Raises `SpecError`."""
        length, given, stamped, now = self._layout.size, 0, 0, 0
        sensors = self._sensors
        if self._is_first:
            self._check_complete(observation)
        for key, value in observation.items():
            sensor = sensors.get(key)
            if sensor is None:
                raise SpecError(f"The observation has an undeclared '{key}'; known: {', '.join(sorted(sensors))}.")
            value = sensor.check(value)
            if sensor.view is not None:
                sensor.view[...] = value
            else:
                self._take_large(sensor, value)
                length += sensor.padded
            given += sensor.is_needed
            if sensor.stamp >= 0 and sensor.stamp_key not in observation:
                if captured_at and key in captured_at:
                    self._stamp(sensor, captured_at[key])
                    stamped += 1
                else:
                    self._stamps[sensor.stamp] = now = now or time.time_ns()
        if given != self._needed:
            self._check_needed(observation)
        if captured_at and stamped != len(captured_at):
            raise self._unknown_stamp(observation, captured_at)
        return length

    def stage_outcome(self, action: Any, reward: float) -> None:
        """Check the action and the reward, and that every number is finite; raises `SpecError`."""
        assert self._action.view is not None
        self._action.view[...] = self._action.check(action)
        try:
            self._reward[...] = reward
        except (TypeError, ValueError, OverflowError):
            raise SpecError(f"The reward is {reward!r}; it must be a number.") from None
        self.check_finite()

    def stage_end(self) -> None:
        """The last step has no action and no reward; raises `SpecError` for a number that is not finite."""
        assert self._action.view is not None
        self._action.view[...] = 0
        self._reward[...] = 0
        self.check_finite()

    def check_finite(self) -> None:
        """Raise `SpecError` for a NaN or an infinity among everything small: times zero it is not zero."""
        for part, zeros in self._floats:
            if part.dot(zeros) != 0.0:
                for sensor in [*self._sensors.values(), self._action]:
                    if sensor.view is not None:
                        sensor.spec.validate(sensor.view, sensor.name)
                _NUMBER.validate(self._reward, REWARD)

    def write(self, ring: Ring, offset: int, length: int, kind: int, number: int, end: bytes = b"") -> None:
        """Put the frame into the ring; `length` counts `end`, too."""
        HEADER.pack_into(self._block, 0, length, kind, number)
        position = offset + self._layout.size
        ring.memory[offset:position] = self._block
        for sensor, value in self._new:
            room = ring.array[position : position + value.nbytes]
            room.view(sensor.dtype).reshape(sensor.shape)[...] = value
            position += sensor.padded
        if end:
            ring.memory[position : position + len(end)] = end

    def keep(self) -> None:
        """The step is recorded."""
        self._forget_new()
        self._kept[:] = self._block
        self._is_first = False

    def undo(self) -> None:
        """The step is not recorded."""
        self._forget_new()
        self._block[:] = self._kept

    def _forget_new(self) -> None:
        if self._new:
            self._new.clear()
            self._fresh[:] = self._none_fresh

    def _take_large(self, sensor: _Sensor, value: Array) -> None:
        if value.dtype != sensor.dtype:
            value = sensor.spec.validate(value, sensor.name)
        elif sensor.is_float and not np.isfinite(value).all():
            sensor.spec.validate(value, sensor.name)
        self._new.append((sensor, value))
        self._new.sort(key=_number)
        self._fresh[sensor.fresh] = 1

    def _stamp(self, sensor: _Sensor, at_ns: int) -> None:
        try:
            self._stamps[sensor.stamp] = at_ns
        except (TypeError, ValueError):
            raise SpecError(
                f"{sensor.name} was captured at {at_ns!r}; give whole nanoseconds since 1970, as time.time_ns() does."
            ) from None

    def _check_complete(self, observation: Mapping[str, Any]) -> None:
        missing = self._sensors.keys() - observation.keys() - self._stamp_keys
        if missing:
            raise SpecError(f"The first observation of an episode lacks {sorted(missing)}; it needs every sensor.")

    def _check_needed(self, observation: Mapping[str, Any]) -> None:
        missing = [key for key, sensor in self._sensors.items() if sensor.is_needed and key not in observation]
        raise SpecError(
            f"The observation lacks {missing}; only a sensor with a capture time (capture.with_capture_times) may be left out, "
            "as nothing would tell the repeated value from a new one."
        )

    def _unknown_stamp(self, observation: Mapping[str, Any], captured_at: Mapping[str, int]) -> SpecError:
        for key in captured_at:
            sensor = self._sensors.get(key)
            if sensor is None or sensor.stamp < 0:
                return SpecError(f"captured_at has '{key}', which the schema gives no stamp; see capture.with_capture_times.")
            if key not in observation:
                return SpecError(f"captured_at has '{key}', which is not in this step's observation.")
        return SpecError("A sensor's capture time is given twice, in the observation and in captured_at.")


def _number(new: tuple[_Sensor, Array]) -> int:
    return new[0].fresh


def _sensors(layout: StepLayout, block: memoryview) -> dict[str, _Sensor]:
    stamps = stamped_keys(layout.schema.observation)
    large = list(layout.large)
    found = {}
    for key in layout.schema.observation.arrays:
        place = layout.large[key] if key in layout.large else layout.small(key)
        sensor = _Sensor(f"observation['{key}']", place, None if key in layout.large else _view(block, place))
        sensor.fresh = large.index(key) if key in layout.large else -1
        if key in stamps:
            sensor.stamp_key = stamps[key]
            sensor.stamp = layout.small(stamps[key]).offset // 8
        sensor.is_needed = key not in stamps and key not in stamps.values()
        found[key] = sensor
    return found


def _view(block: memoryview, place: Place) -> Array:
    return np.frombuffer(block, place.spec.dtype, place.spec.size, place.offset).reshape(place.spec.shape)


def _float_parts(layout: StepLayout, block: memoryview) -> Iterator[Array]:
    """All floating-point numbers of the block, one array per dtype: they lie side by side."""
    for dtype in ("float64", "float32", "float16"):
        places = [place for place in layout.block.values() if np.dtype(place.spec.dtype) == dtype]
        if places:
            size = sum(place.spec.size for place in places)
            yield np.frombuffer(block, dtype, size, places[0].offset)

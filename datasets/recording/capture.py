"""When each sensor took what it shows: sensors of different rates in one episode.

A sensor ``wrist`` may have a stamp beside it, the observation ``wrist_time``: int64 nanoseconds since 1970 by the wall clock of
the computer that captured it, at the moment of capture. The wall clock, because only it means the same to several computers,
to log files and after a restart; it may be set back, so nothing here orders by it.
"""

from __future__ import annotations

from collections.abc import Iterable

from flywheel.core.errors import SpecError
from flywheel.core.specs import ArraySpec, ObservationSpec

SUFFIX = "_time"
STAMP = ArraySpec((), "int64", unit="ns")
"""What a stamp looks like."""


def with_capture_times(observation: ObservationSpec, keys: Iterable[str] | None = None) -> ObservationSpec:
    """The same observation with a stamp for each of these sensors, by default for all; raises `SpecError` for an unknown one."""
    arrays = dict(observation.arrays)
    for key in observation.arrays if keys is None else keys:
        if key not in observation.arrays:
            raise SpecError(f"The observation has no '{key}' to stamp; known: {', '.join(sorted(observation.arrays))}.")
        arrays.setdefault(key + SUFFIX, STAMP)
    return ObservationSpec(arrays)


def stamped_keys(observation: ObservationSpec) -> dict[str, str]:
    """The sensors that have a stamp, each with its stamp's name."""
    arrays = observation.arrays
    stamps = {key: key + SUFFIX for key in arrays}
    return {key: stamp for key, stamp in stamps.items() if stamp in arrays and _is_stamp(arrays[stamp])}


def _is_stamp(spec: ArraySpec) -> bool:
    return (spec.shape, spec.dtype) == (STAMP.shape, STAMP.dtype)

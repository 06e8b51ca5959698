"""The pictures of one episode out of a video file, decoded by PyAV: each frame that is asked for by its time, or none at all."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.importers.files import need, reading


def decode_video(path: Path, times: Array, fps: float, shape: tuple[int, ...]) -> Array:
    """The frames at `times`, (T,) seconds that increase, as (T, H, W, 3) uint8.

    Raises `FlywheelError` for pictures of another size, and if no frame lies within half a period of a time: a video that is
    cut off or of another rate is noticed.
    """
    frames = np.empty((len(times), *shape), np.uint8)
    with reading(path, "the video"), need("av").open(str(path)) as container:
        if not container.streams.video:
            raise FlywheelError(f"{path} holds no video.")
        stream = container.streams.video[0]
        if (stream.height, stream.width, 3) != shape:
            raise FlywheelError(f"{path} holds pictures of {stream.height} x {stream.width}, not of {shape[0]} x {shape[1]}.")
        stream.thread_type = "AUTO"
        convert = need("av.video.reformatter").VideoReformatter()  # a frame's own would be set up anew for each
        source = _from(container, stream, float(times[0]) - 0.5 / fps)
        for number, expected in enumerate(times):
            at, frame = next(source, (np.inf, None))
            while at < expected - 0.5 / fps:
                at, frame = next(source, (np.inf, None))
            if frame is None or at > expected + 0.5 / fps:
                raise FlywheelError(f"{path} lacks the frame at {expected:.3f} s.")
            frames[number] = convert.reformat(frame, format="rgb24").to_ndarray()
    return frames


def _from(container: Any, stream: Any, start: float) -> Iterator[tuple[float, Any]]:
    """Every frame from the last whole one before `start` on, with its time."""
    base = Fraction(stream.time_base)
    if start > 0:
        container.seek(int(start / base), stream=stream, backward=True)
    for frame in container.decode(stream):
        if frame.pts is not None:
            yield float(frame.pts * base), frame

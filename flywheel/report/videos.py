"""Videos that any browser plays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array

_QUALITY = "26"
"""x264's constant rate factor: about 100 kB for five seconds of 256 x 256."""


def write_video(path: Path, frames: Sequence[Array], rate: float) -> None:
    """Write pictures, each (H, W, 3) uint8 with even H and W, as an H.264 mp4 of `rate` pictures per second.

    The file is there whole or not at all. Raises `FlywheelError` when there are no pictures or PyAV is not installed.
    """
    if not frames:
        raise FlywheelError(f"There are no pictures for the video {path}.")
    height, width = frames[0].shape[:2]
    if height % 2 or width % 2:
        raise FlywheelError(f"A video's height and width must be even, not {height} x {width}.")
    try:
        import av
    except ImportError:
        raise FlywheelError("Videos need PyAV; install flywheel-robotics[report].") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    # With the index in front a browser starts playing before it has the whole file.
    with av.open(str(temporary), "w", options={"movflags": "+faststart"}) as container:
        # A fraction of small terms: x264 refuses rates whose time base it cannot hold.
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": _QUALITY, "preset": "fast"}
        stream.thread_count = 1
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    temporary.replace(path)

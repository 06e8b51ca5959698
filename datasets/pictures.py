"""Pictures as PNG or JPEG and back, many at once on a few threads: an episode has hundreds, and a core codes thousands a second.

Every coder here frees the interpreter while it works; Pillow's encoders do not, so that threads would not add up. PNG is
written by zlib (three lines of filter and header, 2 to 8 times as fast as Pillow on one thread) and read by Pillow; JPEG is
libjpeg-turbo's, twice as fast as Pillow and with its bits.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import simplejpeg
from PIL import Image

from flywheel.core.specs import Array
from flywheel.datasets.tfrecord import DamagedError

Encoding = Literal["png", "jpeg"]
QUALITY = 95
"""Of JPEG, with colour at half the resolution: what TFDS writes."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {1: 0, 3: 2, 4: 6}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_COLORS = {1: "GRAY", 3: "RGB"}
_JPEG_COLORS = {1: ("Gray",), 3: ("YCbCr", "RGB")}
"""What a file of so many channels may hold; the decoder would make pictures of others, too."""
_JPEG = b"\xff\xd8"
_LEVEL = 1
_UP = 2
"""The PNG filter that keeps the difference to the pixel above."""
_FEW = 8
"""Pictures that are not worth waking a thread for."""

Encode = Callable[[Array], bytes]


def encode_many(pictures: Array, encoding: Encoding) -> list[bytes]:
    """Pictures (N, H, W, C) uint8, each encoded; C is 1, 3 or, as PNG only, 4.

    A picture like the one before (a camera slower than the control rate) is encoded once, and stands in the list twice.
    """
    encode = _encode_jpeg if encoding == "jpeg" else partial(_encode_png, strategy=_strategy(pictures[0]))
    return [data for part in _in_parts(partial(_encode_part, pictures, encode), len(pictures)) for data in part]


def decode_many(encoded: Sequence[bytes], shape: tuple[int, ...]) -> Array:
    """Encoded pictures as (N, *shape) uint8; raises `DamagedError` if one is no PNG or JPEG of that shape."""
    pictures = np.empty((len(encoded), *shape), np.uint8)
    _in_parts(partial(_decode_part, encoded, pictures), len(encoded))
    return pictures


def as_stored(picture: Array, encoding: Encoding) -> Array:
    """A picture (H, W, C) uint8 as a store gives it back that keeps it so: a PNG as it was, a JPEG after its losses."""
    return picture if encoding == "png" else decode_many([_encode_jpeg(picture)], picture.shape)[0]


def decode(data: bytes, out: Array) -> None:
    """Decode a PNG or JPEG into a picture (H, W, C) uint8; raises `DamagedError` if it is none of that shape."""
    try:
        if data[:2] == _JPEG:
            _decode_jpeg(data, out)
        else:
            _decode_png(data, out)
    except Exception as error:  # on damaged pictures Pillow raises nearly every exception there is
        raise DamagedError(f"A picture of {out.shape} is damaged: {error}") from None


def _encode_part(pictures: Array, encode: Encode, start: int, stop: int) -> list[bytes]:
    encoded = [encode(pictures[start])]
    for number in range(start + 1, stop):
        is_same = np.array_equal(pictures[number], pictures[number - 1])
        encoded.append(encoded[-1] if is_same else encode(pictures[number]))
    return encoded


def _decode_part(encoded: Sequence[bytes], pictures: Array, start: int, stop: int) -> None:
    for number in range(start, stop):
        if number > start and encoded[number] == encoded[number - 1]:
            pictures[number] = pictures[number - 1]
        else:
            decode(encoded[number], pictures[number])


def _encode_jpeg(picture: Array) -> bytes:
    colors = _COLORS[picture.shape[-1]]
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), QUALITY, colors, colorsubsampling="420"))


def _decode_jpeg(data: bytes, out: Array) -> None:
    height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    if (height, width) != out.shape[:2] or colors not in _JPEG_COLORS.get(out.shape[-1], ()):
        raise ValueError(f"it is {height} x {width} of {colors}")
    simplejpeg.decode_jpeg(data, colorspace=_COLORS[out.shape[-1]], buffer=out)


def _encode_png(picture: Array, strategy: int) -> bytes:
    """PNG as its specification has it (W3C PNG, third edition): header, one block of filtered rows, end."""
    height, width, channels = picture.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPES[channels], 0, 0, 0)
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", _deflate(picture, strategy)), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))))


def _deflate(picture: Array, strategy: int) -> bytes:
    rows = picture.reshape(len(picture), -1)
    filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # modulo 256, as the filter is defined
    deflate = zlib.compressobj(_LEVEL, strategy=strategy)
    return deflate.compress(filtered.data) + deflate.flush()


def _strategy(picture: Array) -> int:
    """What makes a camera's pictures smaller: matching pays on a simulator's, and on a real one's noise costs time and room."""
    return min((zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY), key=lambda strategy: len(_deflate(picture, strategy)))


def _decode_png(data: bytes, out: Array) -> None:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        # Both are known before a pixel is decoded, so a small file cannot claim a large picture's memory.
        if (image.height, image.width, image.mode) != (*out.shape[:2], _MODES[out.shape[-1]]):
            raise ValueError(f"it is {image.height} x {image.width} of mode {image.mode}")
        out[...] = np.asarray(image).reshape(out.shape)


def _in_parts(work: Callable[[int, int], Any], count: int) -> list[Any]:
    """What `work` returns for spans [start, stop) that make up `count` pictures, in order."""
    workers = _workers()
    if workers == 1 or count <= _FEW:
        return [work(0, count)]
    size = -(-count // (2 * workers))
    starts = range(0, count, size)
    return list(_pool().map(work, starts, (min(start + size, count) for start in starts)))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_workers(), thread_name_prefix="pictures")


@cache
def _workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# A forked process has the pool, but not its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)

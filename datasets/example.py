"""tf.train.Example without TensorFlow: a map from names to lists of floats, integers or byte strings.

The wire format is protocol buffers' (tensorflow/core/example/example.proto, feature.proto); `encode` gives the bytes of
``SerializeToString(deterministic=True)``. The parser takes what TensorFlow and `encode` write, lists packed, and raises
`DamagedError` for anything else: a record is read as it was written or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from flywheel.core.specs import Array
from flywheel.datasets.tfrecord import DamagedError, Piece

Features = Mapping[str, Array | Sequence[Piece] | bytes | int]
"""float32 arrays are stored as float_list, int64 and bool arrays and single numbers as int64_list, sequences of bytes and single
ones as bytes_list; arrays are flattened."""

# A tag is field number * 8 + wire type, and every field here is length-delimited (wire type 2).
_FIRST, _SECOND = 0x0A, 0x12
_BYTES, _FLOATS, _INTEGERS = 0x0A, 0x12, 0x1A
_LONGEST_VARINT = 10
_SMALL = 1 << 16
"""Bytes that are copied in less time than a piece more costs."""


def encode(features: Features) -> bytes:
    """The features as a serialised tf.train.Example, sorted by name."""
    return b"".join(encode_pieces(features))


def encode_pieces(features: Features) -> list[Piece]:
    """The bytes of `encode` in pieces: what is large is left where it is."""
    entries: list[Piece] = []
    for name in sorted(features):
        value = features[name]
        if isinstance(value, bytes | int):
            entries.append(_repeated(name, value))
        else:
            entries += _entry(name, value)
    size = _size(entries)
    pieces = [_head(_FIRST, size), *entries]
    return pieces if size > _SMALL else [b"".join(pieces)]


def _entry(name: str, value: Array | Sequence[Piece] | bytes | int) -> list[Piece]:
    """A feature with its name."""
    tag, content = _content(value)
    size = _size(content)
    key, head = _key(name), _head(tag, size)
    before = _head(_SECOND, len(head) + size) + head
    return [_head(_FIRST, len(key) + len(before) + size) + key + before, *content]


@lru_cache(maxsize=1024)
def _repeated(name: str, value: bytes | int) -> bytes:
    """`_entry` of what repeats: an episode's metadata are mostly those of the one before."""
    return b"".join(_entry(name, value))


def parse(payload: bytes) -> dict[str, memoryview]:
    """The features of an Example by name, each still encoded: read one with `floats`, `integers` or `strings`.

    Raises `DamagedError` where the bytes are no such message.
    """
    view = memoryview(payload)
    features: dict[str, memoryview] = {}
    start, stop = _only(view, _FIRST)
    while start < stop:
        entry, start = _take(view, start, stop, _FIRST)
        (name_start, name_stop), at = _span(entry, 0, len(entry), _FIRST)
        try:
            name = str(entry[name_start:name_stop], "utf-8")
        except UnicodeDecodeError:
            raise DamagedError("A feature's name is not UTF-8.") from None
        feature, at = _take(entry, at, len(entry), _SECOND)
        if at != len(entry) or name in features:
            raise DamagedError(f"The feature {name!r} is not written as tf.train.Example does.")
        features[name] = feature
    return features


def floats(feature: memoryview) -> npt.NDArray[np.float32]:
    """A float_list as a new array, (N,)."""
    packed = _packed(feature, _FLOATS)
    if len(packed) % 4:
        raise DamagedError("A float list is cut off.")
    return np.frombuffer(packed, "<f4").astype(np.float32)


def integers(feature: memoryview) -> npt.NDArray[np.int64]:
    """An int64_list as a new array, (N,)."""
    return _decode_varints(np.frombuffer(_packed(feature, _INTEGERS), np.uint8))


def strings(feature: memoryview) -> list[bytes]:
    """A bytes_list."""
    return list(map(bytes, views(feature)))


def views(feature: memoryview) -> list[memoryview]:
    """A bytes_list, each item where it lies."""
    start, stop = _only(feature, _BYTES)
    found = []
    while start < stop:
        item, start = _take(feature, start, stop, _FIRST)
        found.append(item)
    return found


def _content(value: Array | Sequence[Piece] | bytes | int) -> tuple[int, Sequence[Piece]]:
    """Which list a feature is, and what stands in it."""
    if isinstance(value, int):
        return _INTEGERS, (_field(_FIRST, _varint(value)),)
    if isinstance(value, bytes):
        return _BYTES, (_field(_FIRST, value),)
    if not isinstance(value, np.ndarray):
        return _BYTES, [piece for item in value for piece in (_head(_FIRST, len(item)), item)]
    if value.dtype == np.float32:
        return _FLOATS, _packed_list(value.astype("<f4", copy=False).tobytes())
    if value.dtype == np.bool_:
        return _INTEGERS, _packed_list(value.tobytes())  # a bool's byte is its varint
    if value.dtype == np.int64:
        return _INTEGERS, _packed_list(_encode_varints(value.reshape(-1)))
    raise TypeError(f"tf.train.Example holds float32, int64, bool and bytes, not {value.dtype}.")


def _packed_list(packed: bytes) -> Sequence[Piece]:
    return (_head(_FIRST, len(packed)), packed) if packed else ()


def _field(tag: int, content: bytes) -> bytes:
    return _head(tag, len(content)) + content


def _head(tag: int, size: int) -> bytes:
    """What stands before the content of a length-delimited field."""
    return bytes((tag, size)) if size < 0x80 else bytes((tag,)) + _varint(size)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative number as its two's complement
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _size(pieces: Sequence[Piece]) -> int:
    return sum(map(len, pieces))


@lru_cache(maxsize=4096)
def _key(name: str) -> bytes:
    return _field(_FIRST, name.encode())


def _encode_varints(values: npt.NDArray[np.int64]) -> bytes:
    if not len(values) or (values.min() >= 0 and values.max() < 0x80):
        return values.astype(np.uint8).tobytes()
    unsigned = values.astype(np.int64).view(np.uint64)[:, None]
    shifts = np.arange(0, 7 * _LONGEST_VARINT, 7, dtype=np.uint64)
    groups = unsigned >> shifts
    used = groups > 0
    used[:, 0] = True  # zero, too, takes one byte
    more = groups[:, :-1] > 0x7F
    encoded = (groups & np.uint64(0x7F)).astype(np.uint8)
    encoded[:, :-1] |= more * np.uint8(0x80)
    return encoded[used].tobytes()


def _decode_varints(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    if not len(data) or data.max() < 0x80:
        return data.astype(np.int64)
    last = np.flatnonzero(data < 0x80)
    if not len(last) or last[-1] != len(data) - 1:
        raise DamagedError("An integer list is cut off.")
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _LONGEST_VARINT or (data[last[lengths == _LONGEST_VARINT]] > 1).any():
        raise DamagedError("An integer list holds a number of more than 64 bits.")
    place = np.arange(len(data)) - np.repeat(first, lengths)
    groups = (data & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(groups, first).view(np.int64)


def _packed(feature: memoryview, tag: int) -> memoryview:
    """The bytes of a packed list, which is one field in a list in a feature; an empty list has no such field."""
    start, stop = _only(feature, tag)
    if start == stop:
        return feature[start:start]
    packed, end = _take(feature, start, stop, _FIRST)
    if end != stop:
        raise DamagedError("A list is not packed as tf.train.Example writes it.")
    return packed


def _only(view: memoryview, tag: int) -> tuple[int, int]:
    """The span of the one field that a message holds."""
    span, end = _span(view, 0, len(view), tag)
    if end != len(view):
        raise DamagedError("There are bytes behind the message's end.")
    return span


def _take(view: memoryview, start: int, stop: int, tag: int) -> tuple[memoryview, int]:
    (begin, end), following = _span(view, start, stop, tag)
    return view[begin:end], following


def _span(view: memoryview, start: int, stop: int, tag: int) -> tuple[tuple[int, int], int]:
    """Where the content of the length-delimited field at `start` lies, and where the next field does."""
    if start >= stop or view[start] != tag:
        raise DamagedError("The bytes are no tf.train.Example of the expected kind.")
    length, shift = 0, 0
    for position in range(start + 1, min(stop, start + 1 + _LONGEST_VARINT)):
        byte = view[position]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            begin = position + 1
            if length > stop - begin:
                break
            return (begin, begin + length), begin + length
        shift += 7
    raise DamagedError("A field is cut off.")

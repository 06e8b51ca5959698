"""TFRecord framing without TensorFlow: length (u64), its CRC, payload, its CRC, little-endian, CRC32C masked.

The format is TensorFlow's (tensorflow/core/lib/io/record_writer.h). A reader here never trusts a length that its CRC does
not confirm, so damaged or hostile bytes cost neither memory nor time beyond the file's own size.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.datasets.blank import is_unwritten, written_end

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER = _LENGTH.size + _CRC.size
OVERHEAD = _HEADER + _CRC.size
"""Bytes that the frame adds to a payload."""
_WINDOW = 1 << 20
"""Bytes read at a time in the search for the next record behind a damaged length."""
_MOST_PIECES = 1024
"""What one system call takes (IOV_MAX of Linux and macOS)."""

Piece = bytes | memoryview
"""Bytes, or a view of contiguous ones that are written as they lie: pictures are not copied on their way to the disk."""


class DamagedError(FlywheelError):
    """Bytes on disk are not what was written there."""


class TornError(DamagedError):
    """A record is shorter than it says, as a kill in its writing leaves it."""


class DamageWarning(UserWarning):
    """Something is damaged and was left out; the message names its file and offset."""


@dataclass(frozen=True, slots=True)
class Record:
    """One whole record: its payload agrees with both CRCs."""

    offset: int
    payload: bytes
    crc: int
    """The payload's masked CRC32C, as stored behind it."""

    @property
    def end(self) -> int:
        """The offset of the next record."""
        return self.offset + OVERHEAD + len(self.payload)


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes from `offset` to `end` that are no record."""

    offset: int
    end: int
    reason: str
    torn: bool = False
    """Whether it is what was written of a record that nobody was told is stored, or room ahead of the next."""
    blank: bool = False
    """Whether nothing is written there at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Framed:
    """A record in pieces, ready to be written; `bytes` joins them."""

    pieces: tuple[Piece, ...]
    size: int
    """The bytes of all pieces."""
    crc: int
    """The payload's masked CRC32C."""

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)


def masked_crc(*pieces: Piece) -> int:
    """CRC32C rotated and offset, as TFRecord stores it (so that a CRC over data holding CRCs stays sound)."""
    crc = 0
    for piece in pieces:
        # It takes no memoryview, and an array does not copy.
        crc = google_crc32c.extend(crc, piece if isinstance(piece, bytes) else np.frombuffer(piece, np.uint8))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(*payload: Piece) -> Framed:
    """The payload, whose pieces lie one behind another, as a TFRecord; nothing is copied."""
    size = sum(map(len, payload))
    length, crc = _LENGTH.pack(size), masked_crc(*payload)
    return Framed((length + _CRC.pack(masked_crc(length)), *payload, _CRC.pack(crc)), size + OVERHEAD, crc)


def write_pieces(descriptor: int, pieces: Sequence[Piece], offset: int) -> None:
    """Write all pieces at an offset of an open file, one behind another."""
    for start in range(0, len(pieces), _MOST_PIECES):
        batch = pieces[start : start + _MOST_PIECES]
        size, written = sum(map(len, batch)), os.pwritev(descriptor, batch, offset)
        if written < size:  # rare: a disk that is nearly full, or 2 GB at once
            rest = memoryview(b"".join(batch))
            while written < size:
                written += os.pwrite(descriptor, rest[written:], offset + written)
        offset += size


def read_record(descriptor: int, offset: int, stop: int | None = None) -> Record:
    """The record at an offset of an open file that counts up to `stop` (its size); raises `DamagedError` if it is not whole."""
    stop = os.fstat(descriptor).st_size if stop is None else stop
    length = _record_length(descriptor, offset, stop)
    # Read apart, as cutting a large payload off its CRC would copy it.
    payload = _read(descriptor, offset + _HEADER, length)
    return _checked(offset, payload, _read(descriptor, offset + _HEADER + length, _CRC.size))


def holds_crc(descriptor: int, end: int, crc: int) -> bool:
    """Whether a payload of this masked CRC32C ends at a place of an open file, by what is stored there."""
    return os.pread(descriptor, _CRC.size, end - _CRC.size) == _CRC.pack(crc)


def parse_record(data: bytes, offset: int) -> Record:
    """The record that some bytes begin with, which lie at an offset of their file; raises `DamagedError` if it is not whole."""
    length = _sound_length(data[:_HEADER], offset, len(data))
    return _checked(offset, data[_HEADER : _HEADER + length], data[_HEADER + length : OVERHEAD + length])


def scan(descriptor: int, start: int = 0, stop: int | None = None) -> Iterator[Record | Damage]:
    """Every whole record from `start` on, and what lies between and behind them if that is not nothing.

    Behind a damaged length the search goes on byte by byte for the next length that agrees with its CRC. A file that its writer
    has made room in (`blank`) reads as if it ended there, and the room is the last item.
    """
    stop = written = os.fstat(descriptor).st_size if stop is None else stop
    while start < stop:
        try:
            record = read_record(descriptor, start, stop)
        except DamagedError as error:
            written = written_end(descriptor, start, written)
            item = _what_is_left(descriptor, start, written, stop, str(error))
        else:
            item = record
        yield item
        start = item.end


def _what_is_left(descriptor: int, start: int, written: int, stop: int, reason: str) -> Record | Damage:
    """What is at a place where no whole record was read, in a file where nothing is written from `written` to `stop`."""
    if start >= written:
        return Damage(start, stop, f"Nothing is written from byte {start} on.", torn=True, blank=True)
    try:
        end = following = start + OVERHEAD + _record_length(descriptor, start, stop)
        is_cut = False
    except DamagedError as error:
        end, following = written, _next_length(descriptor, start + 1, written, stop)
        is_cut = isinstance(error, TornError) or written - start < OVERHEAD
    if following >= written and (is_cut or is_unwritten(descriptor, start, end)):
        return Damage(start, stop, reason, torn=True)
    try:
        return read_record(descriptor, start, stop)  # its writer may have been at it, and is done now
    except DamagedError:
        return Damage(start, following, reason)


def _record_length(descriptor: int, offset: int, stop: int) -> int:
    return _sound_length(_read(descriptor, offset, min(_HEADER, stop - offset)), offset, stop - offset)


def _sound_length(header: bytes, offset: int, room: int) -> int:
    """The payload's length as a record's header has it, where so many bytes have room for the record."""
    if room < OVERHEAD:
        raise TornError(f"The record at byte {offset} is cut off.")
    length, crc = int(_LENGTH.unpack_from(header)[0]), _CRC.unpack_from(header, _LENGTH.size)[0]
    if masked_crc(header[: _LENGTH.size]) != crc:
        raise DamagedError(f"The record at byte {offset} has a length that does not agree with its CRC.")
    if length > room - OVERHEAD:
        raise TornError(f"The record at byte {offset} is cut off.")
    return length


def _checked(offset: int, payload: bytes, crc: bytes) -> Record:
    (stored,) = _CRC.unpack(crc)
    if masked_crc(payload) != stored:
        raise DamagedError(f"The record at byte {offset} does not agree with its CRC.")
    return Record(offset, payload, stored)


def _next_length(descriptor: int, position: int, written: int, stop: int) -> int:
    """Where the next record begins, by a length that agrees with its CRC; `stop` if there is none up to `written`."""
    while written - position >= OVERHEAD:
        window = _read(descriptor, position, min(_WINDOW + _HEADER, written - position))
        for index in range(len(window) - _HEADER + 1):
            length = _LENGTH.unpack_from(window, index)[0]
            # The cheap comparison sorts out nearly every position before a CRC is computed.
            if length <= stop - position - index - OVERHEAD:
                crc = _CRC.unpack_from(window, index + _LENGTH.size)[0]
                if masked_crc(window[index : index + _LENGTH.size]) == crc:
                    return position + index
        position += len(window) - _HEADER + 1
    return stop


def _read(descriptor: int, offset: int, count: int) -> bytes:
    data = os.pread(descriptor, count, offset)
    while len(data) < count:
        more = os.pread(descriptor, count - len(data), offset + len(data))
        if not more:
            raise DamagedError(f"The file ends at byte {offset + len(data)}, in the middle of a record.")
        data += more
    return data

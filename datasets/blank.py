"""Room that a writer has made ahead of its records, so that writing one changes no file's size and waits for the disk once.

It is told from records, and from damage, by what it is filled with: a text rather than zeros, which records are full of. A
disk writes whole sectors, and each of a record's may be missing after a power loss. Where it is, the text is still there, and
nothing else that happens to a record puts it there.
"""

from __future__ import annotations

import os

import numpy as np

_TEXT = b"flywheel: blank\n"
_WINDOW = 1 << 20
_FULL = _TEXT * (2 * _WINDOW // len(_TEXT))
_LENGTH_AND_CRC, _CRC = 12, 4
"""Bytes that a record begins and ends with. They are neither text nor zeros, but with a chance of 1 in 4 billion."""


def blank(offset: int, size: int) -> bytes:
    """What `size` bytes from an offset of a file on, at most 2 MB, hold while nothing is written there."""
    return _FULL[offset % len(_TEXT) :][:size]


def written_end(descriptor: int, start: int, stop: int) -> int:
    """Behind the last byte of [start, stop) that is something; `start` if none is.

    Zeros are nothing, too: what a power loss leaves where a file had grown and its data were not written yet.
    """
    while stop > start:
        first = max(start, (stop - 1) // _WINDOW * _WINDOW)
        data = os.pread(descriptor, stop - first, first)
        if not _is_blank(data, first):
            there, text = (np.frombuffer(found, np.uint8) for found in (data, blank(first, len(data))))
            return first + int(((there != text) & (there != 0)).nonzero()[0].max(initial=-1)) + 1
        stop = first
    return start


def is_unwritten(descriptor: int, start: int, stop: int) -> bool:
    """Whether some part of the record in [start, stop) was never written.

    Zeros tell that at its ends alone; within, they may be the record's own.
    """
    for first in range(-(-start // len(_TEXT)) * len(_TEXT), stop, _WINDOW):
        data = os.pread(descriptor, min(_WINDOW, stop - first), first)
        if (np.frombuffer(data, f"S{len(_TEXT)}", len(data) // len(_TEXT)) == _TEXT).any():
            return True
    ends = ((start, _LENGTH_AND_CRC), (stop - _CRC, _CRC))
    return any(_is_blank(os.pread(descriptor, size, offset), offset) for offset, size in ends)


def _is_blank(data: bytes, offset: int) -> bool:
    return data in (blank(offset, len(data)), bytes(len(data)))

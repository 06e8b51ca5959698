"""A journal with room ahead of its records, as kills, power losses and damage leave it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from flywheel.datasets.blank import blank, is_unwritten, written_end
from flywheel.datasets.tfrecord import Damage, Record, frame, scan

SECTOR = 512
FIRST = bytes(frame(np.random.default_rng(0).bytes(700)))
LAST = bytes(frame(np.random.default_rng(1).bytes(400) + bytes(1_200) + b"end"))  # zeros fill whole sectors of it


def _scan(path: Path, data: bytes) -> list[Record | Damage]:
    path.write_bytes(data)
    with path.open("rb") as file:
        return list(scan(file.fileno()))


def _kinds(items: list[Record | Damage]) -> list[str]:
    return [
        "record" if isinstance(item, Record) else "blank" if item.blank else "torn" if item.torn else "damage" for item in items
    ]


def _with_room(*records: bytes, size: int = 8_192) -> bytes:
    whole = b"".join(records)
    return whole + blank(len(whole), size - len(whole))


@pytest.mark.parametrize("size", [len(FIRST) + 1, 4_096, (1 << 20) + 77])
def test_room_is_told_from_records_and_damage(tmp_path: Path, size: int) -> None:
    items = _scan(tmp_path / "file", _with_room(FIRST, size=size))
    assert _kinds(items) == ["record", "blank"]
    assert (items[1].offset, items[1].end) == (len(FIRST), size)


def test_zeros_are_room_too(tmp_path: Path) -> None:
    assert _kinds(_scan(tmp_path / "file", FIRST + bytes(3 << 20))) == ["record", "blank"]
    assert _kinds(_scan(tmp_path / "file", FIRST + blank(len(FIRST), 300) + bytes(5_000))) == ["record", "blank"]


def test_a_record_of_which_any_sectors_are_missing_is_torn(tmp_path: Path) -> None:
    before, after = _with_room(FIRST), _with_room(FIRST, LAST)
    sectors = range(len(FIRST) // SECTOR, (len(FIRST) + len(LAST)) // SECTOR + 1)
    for written in itertools.product((False, True), repeat=len(sectors)):
        data, is_begun = bytearray(before), False
        for sector in itertools.compress(sectors, written):
            part = slice(sector * SECTOR, (sector + 1) * SECTOR)
            data[part] = after[part]
            is_begun |= any(after[part])  # zeros alone are nothing
        found = _kinds(_scan(tmp_path / "file", bytes(data)))
        expected = ["record", "record", "blank"] if all(written) else ["record", "torn" if is_begun else "blank"]
        assert found == expected, written


def test_a_record_that_is_cut_at_any_byte_is_torn(tmp_path: Path) -> None:
    for cut in range(1, len(LAST) - 3):
        data = FIRST + LAST[:cut] + blank(len(FIRST) + cut, 6_000)
        assert _kinds(_scan(tmp_path / "file", data)) == ["record", "torn"], cut


def test_a_flipped_bit_of_the_last_record_is_damage_and_not_a_torn_end(tmp_path: Path) -> None:
    whole = _with_room(FIRST, LAST)
    for bit in range(8 * len(FIRST), 8 * (len(FIRST) + len(LAST)), 7):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        items = _scan(tmp_path / "file", bytes(data))
        assert _kinds(items)[:2] == ["record", "damage"], bit
        assert items[1].offset == len(FIRST)


def test_a_gap_before_good_records_is_damage(tmp_path: Path) -> None:
    data = bytearray(_with_room(FIRST, LAST, FIRST))
    data[len(FIRST) : len(FIRST) + len(LAST)] = blank(len(FIRST), len(LAST))
    assert _kinds(_scan(tmp_path / "file", bytes(data))) == ["record", "damage", "record", "blank"]


def test_what_is_written_is_found_at_any_place(tmp_path: Path) -> None:
    path, size = tmp_path / "file", (2 << 20) + 100
    for at in (0, 5, 4_095, (1 << 20) - 1, 1 << 20, size - 1):
        data = bytearray(
            itertools.chain.from_iterable(blank(start, min(1 << 20, size - start)) for start in range(0, size, 1 << 20))
        )
        data[at] ^= 0xFF
        path.write_bytes(data)
        with path.open("rb") as file:
            assert written_end(file.fileno(), 0, size) == at + 1
            assert written_end(file.fileno(), at + 1, size) == at + 1
            assert is_unwritten(file.fileno(), 0, size)

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.datasets.tfrecord import Damage, DamagedError, Record, frame, masked_crc, read_record, scan

PAYLOADS = [b"first", b"", b"third" * 50, b"last"]
WHOLE = b"".join(bytes(frame(payload)) for payload in PAYLOADS)


def _scan(path: Path, data: bytes) -> list[Record | Damage]:
    path.write_bytes(data)
    with path.open("rb") as file:
        return list(scan(file.fileno()))


def test_crc_is_that_of_the_format() -> None:
    assert masked_crc(b"\0" * 8) == 0x07980329  # the length field of an empty record as TensorFlow writes it


def test_frames_are_read_back(tmp_path: Path) -> None:
    records = _scan(tmp_path / "file", WHOLE)
    assert [record.payload for record in records if isinstance(record, Record)] == PAYLOADS
    assert [record.crc for record in records if isinstance(record, Record)] == [masked_crc(payload) for payload in PAYLOADS]


def test_a_torn_tail_is_one_damage_at_the_end(tmp_path: Path) -> None:
    for cut in range(1, frame(PAYLOADS[-1]).size):
        *records, torn = _scan(tmp_path / "file", WHOLE[:-cut])
        assert [record.payload for record in records if isinstance(record, Record)] == PAYLOADS[:-1]
        assert torn == Damage(len(WHOLE) - frame(PAYLOADS[-1]).size, len(WHOLE) - cut, torn.reason, torn=True)


def test_every_flipped_bit_is_noticed_and_costs_one_record(tmp_path: Path) -> None:
    starts = np.cumsum([0, *(frame(payload).size for payload in PAYLOADS)])
    for bit in range(8 * len(WHOLE)):
        data = bytearray(WHOLE)
        data[bit // 8] ^= 1 << bit % 8
        hit = int(np.searchsorted(starts, bit // 8, side="right")) - 1
        found = _scan(tmp_path / "file", bytes(data))
        assert [item.payload for item in found if isinstance(item, Record)] == PAYLOADS[:hit] + PAYLOADS[hit + 1 :]
        assert [item.offset for item in found if isinstance(item, Damage)] == [starts[hit]]


def test_a_length_beyond_the_file_allocates_nothing(tmp_path: Path) -> None:
    length = (1 << 62).to_bytes(8, "little")
    data = length + masked_crc(length).to_bytes(4, "little") + b"x" * 40
    (item,) = _scan(tmp_path / "file", data)
    assert isinstance(item, Damage)
    assert "cut off" in item.reason


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_to_their_end(data: bytes) -> None:
    descriptor = os.memfd_create("records")
    try:
        os.write(descriptor, data)
        items = list(scan(descriptor))
        assert sum(item.end - item.offset for item in items) == len(data)
        if data:
            with pytest.raises(DamagedError):
                read_record(descriptor, 0)
    finally:
        os.close(descriptor)


def test_tensorflow_reads_what_is_framed(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    (tmp_path / "file").write_bytes(WHOLE)
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "file"))] == PAYLOADS
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    assert (tmp_path / "theirs").read_bytes() == WHOLE

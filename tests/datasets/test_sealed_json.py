from __future__ import annotations

import json

import pytest

from flywheel.datasets.sealed_json import PLAIN, TFDS, Ending, open_json, seal_json

_VALUE = {"name": "point", "splits": [{"shardLengths": ["3", "5"]}], "size": 7}


@pytest.mark.parametrize("ending", [PLAIN, TFDS])
def test_every_flipped_bit_is_found(ending: Ending) -> None:
    data = seal_json(_VALUE, ending)
    assert open_json(data, ending) == _VALUE
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            value = open_json(bytes(flipped), ending)
        except ValueError:
            continue
        assert value.keys() - _VALUE.keys()  # the checksum's own name, which whoever knows the fields refuses


def test_a_file_without_a_checksum_is_read() -> None:
    assert open_json(json.dumps(_VALUE).encode()) == _VALUE
    with pytest.raises(ValueError, match="no object"):
        open_json(b"[]")

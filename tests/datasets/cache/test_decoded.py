"""The ring of decoded rows against what the rows are, whatever is asked for in whatever order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.datasets.cache.decoded import DecodedRows
from flywheel.datasets.table import Ints

ROWS, CAPACITY = 40, 12
requests = st.lists(st.lists(st.integers(0, ROWS - 1), unique=True, max_size=CAPACITY), max_size=20)


def _hold(ring: DecodedRows, rows: list[int], decoded: list[int]) -> Ints:
    def decode(wanted: Ints, places: Ints) -> None:
        decoded.extend(wanted.tolist())
        ring.memory[places] = wanted[:, None]

    return ring.hold(np.array(rows, np.int64), decode)


@given(requests)
def test_every_row_is_where_it_is_said_to_be(found: list[list[int]]) -> None:
    ring = DecodedRows(ROWS, CAPACITY, 3)
    for rows in found:
        places = _hold(ring, rows, [])
        np.testing.assert_array_equal(ring.memory[places], np.array(rows, np.uint8).reshape(-1, 1).repeat(3, axis=1))
    assert ring.memory.shape == (CAPACITY, 3)


def test_only_what_is_not_held_is_decoded() -> None:
    ring, decoded = DecodedRows(ROWS, CAPACITY, 3), list[int]()
    _hold(ring, [1, 2, 3], decoded)
    _hold(ring, [3, 2, 9], decoded)
    assert decoded == [1, 2, 3, 9]
    _hold(ring, [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 1], decoded)  # overwrites row 1's place, so it is decoded again
    assert decoded[4:] == [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 1]


def test_what_failed_to_decode_is_not_held() -> None:
    ring, decoded = DecodedRows(ROWS, CAPACITY, 3), list[int]()
    _hold(ring, list(range(CAPACITY)), decoded)

    def fail(rows: Ints, places: Ints) -> None:
        ring.memory[places] = 255
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        ring.hold(np.array([30, 31]), fail)
    places = _hold(ring, [0, 1, 2, 30], decoded)
    np.testing.assert_array_equal(ring.memory[places, 0], [0, 1, 2, 30])

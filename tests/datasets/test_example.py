from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flywheel.datasets import example
from flywheel.datasets.tfrecord import DamagedError

EXTREMES = np.array([0, 1, -1, 127, 128, 300, 2**31, 2**63 - 1, -(2**63)], np.int64)
FEATURES = {
    "steps/float": np.array([0.0, -1.5, np.inf, 1e-45, 3.4e38], np.float32),
    "steps/integer": EXTREMES,
    "flag": np.array([0, 1, 1], np.int64),
    "text": ["é".encode(), b"", b"x" * 300],
    "truth": np.array([[True, False], [False, True]]),
    "one text": b"one",
    "number": 1_790_000_000_123_456_789,
    "negative": -1,
    "large": [b"y" * 70_000, memoryview(b"z" * 200)],
    "no floats": np.zeros(0, np.float32),
    "no integers": np.zeros(0, np.int64),
    "no strings": [],
}


def test_bytes_are_tensorflows_own() -> None:
    tf = pytest.importorskip("tensorflow")
    theirs = tf.train.Example()
    for name, value in FEATURES.items():
        feature = theirs.features.feature[name]
        texts = [value] if isinstance(value, bytes) else value
        values = list(map(bytes, texts)) if isinstance(texts, list) else (np.asarray(value).reshape(-1) + 0).tolist()
        kind = "bytes_list" if isinstance(texts, list) else "float_list" if "float" in name else "int64_list"
        getattr(feature, kind).SetInParent()
        getattr(feature, kind).value.extend(values)
    assert example.encode(FEATURES) == theirs.SerializeToString(deterministic=True)


def test_what_is_encoded_is_decoded() -> None:
    found = example.parse(example.encode(FEATURES))
    assert found.keys() == FEATURES.keys()
    np.testing.assert_array_equal(example.floats(found["steps/float"]), FEATURES["steps/float"], strict=True)
    np.testing.assert_array_equal(example.integers(found["steps/integer"]), EXTREMES, strict=True)
    assert example.strings(found["text"]) == FEATURES["text"]
    assert len(example.floats(found["no floats"])) == len(example.integers(found["no integers"])) == 0
    assert example.strings(found["no strings"]) == []


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(np.int64, st.integers(0, 50)))
def test_integers_come_back(values: np.ndarray) -> None:
    found = example.integers(example.parse(example.encode({"x": values}))["x"])
    np.testing.assert_array_equal(found, values, strict=True)


def test_another_kind_of_list_is_refused() -> None:
    found = example.parse(example.encode(FEATURES))
    for read, name in ((example.floats, "flag"), (example.integers, "text"), (example.strings, "steps/float")):
        with pytest.raises(DamagedError):
            read(found[name])


def test_only_what_the_format_holds_is_encoded() -> None:
    with pytest.raises(TypeError, match="float64"):
        example.encode({"x": np.zeros(3)})


@pytest.mark.parametrize("packed", [b"\x80", b"\xff" * 10, b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\x01"])
def test_an_integer_that_is_too_long_or_cut_is_refused(packed: bytes) -> None:
    payload = bytes([0x1A, len(packed) + 2, 0x0A, len(packed)]) + packed
    with pytest.raises(DamagedError):
        example.integers(memoryview(payload))


def _numbers_in(payload: bytes) -> int:
    """How many values can be read from a payload, whatever is wrong with it."""
    count = 0
    with suppress(DamagedError):
        for feature in example.parse(payload).values():
            for read in (example.floats, example.integers, example.strings):
                with suppress(DamagedError):
                    count += len(read(feature))
    return count


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda tail: b"\x0a" + bytes([len(tail)]) + tail))
def test_any_bytes_are_parsed_or_refused(payload: bytes) -> None:
    assert _numbers_in(payload) <= len(payload)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_any_change_is_parsed_or_refused(data: st.DataObject) -> None:
    payload = bytearray(example.encode(FEATURES))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    assert _numbers_in(bytes(payload)) <= len(payload)
    assert _numbers_in(bytes(payload[:cut])) <= cut

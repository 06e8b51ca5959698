from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.errors import SpecError
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec

SPEC = ObservationSpec(
    {
        "b": ArraySpec((2,), unit="m"),
        "a": ArraySpec((3,)),
        "force": ArraySpec((), unit="N"),
        "count": ArraySpec((), dtype="int64"),
        "image": ArraySpec((4, 4, 3), dtype="uint8"),
    }
)
OBSERVATION = {
    "b": np.float32([4, 5]),
    "a": np.float32([1, 2, 3]),
    "force": np.float32(6),
    "count": np.int64(7),
    "image": np.zeros((4, 4, 3), np.uint8),
}


def test_state_is_the_float_vectors_in_name_order() -> None:
    assert SPEC.state_keys == ("a", "b", "force")
    assert SPEC.state_dim == 6
    np.testing.assert_array_equal(SPEC.pack_state(OBSERVATION), np.float32([1, 2, 3, 4, 5, 6]))
    assert SPEC.state_slice("b") == slice(3, 5)


def test_packing_a_sequence_packs_each_step() -> None:
    sequence = {key: np.stack([value, value]) for key, value in OBSERVATION.items()}
    np.testing.assert_array_equal(SPEC.pack_state(sequence), np.stack([SPEC.pack_state(OBSERVATION)] * 2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a": np.zeros(4, np.float32)}, "shape"),
        ({"a": np.zeros((2, 3), np.float32)}, "shape"),
        ({"a": np.float32([0, np.nan, 0])}, "NaN"),
        ({"a": np.float32([0, np.inf, 0])}, "infinity"),
        ({"a": np.float64([0, 1e39, 0])}, "infinity"),
        ({"count": np.float32(1.5)}, "dtype"),
        ({"extra": np.zeros(1)}, "extra"),
    ],
)
def test_wrong_observations_are_named(change: dict, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        SPEC.validate(OBSERVATION | change)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(SpecError, match="'b'"):
        SPEC.validate({key: value for key, value in OBSERVATION.items() if key != "b"})


def test_float64_is_accepted_and_stored_as_declared() -> None:
    checked = SPEC.validate(OBSERVATION | {"a": np.zeros(3, np.float64)})
    assert checked["a"].dtype == np.float32


def test_integers_that_do_not_fit_are_named() -> None:
    with pytest.raises(SpecError, match="int32"):
        ArraySpec((), "int32").validate(np.int64(2**40), "count")
    assert ArraySpec((), "int32").validate(np.int64(7), "count") == 7


@pytest.mark.parametrize("bounds", [(-np.inf, 1.0), (-1.0, np.inf), (np.nan, 1.0)])
def test_action_bounds_must_be_finite(bounds: tuple[float, float]) -> None:
    with pytest.raises(SpecError, match="finite"):
        ActionSpec((bounds[0],), (bounds[1],))


def test_json_round_trip() -> None:
    assert ObservationSpec.from_json(SPEC.to_json()).arrays == SPEC.arrays
    action = ActionSpec(low=(-1.0, 0.0), high=(1.0, 2.0), controller="osc_pose", scale=(0.05, 0.5), rate=20.0)
    assert ActionSpec.from_json(action.to_json()) == action


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=1, max_size=8))
def test_action_bounds_must_be_ordered(bounds: list[tuple[float, float]]) -> None:
    low, high = zip(*bounds, strict=True)
    if all(lo < hi for lo, hi in bounds):
        assert ActionSpec(low, high).dim == len(bounds)
    else:
        with pytest.raises(SpecError):
            ActionSpec(low, high)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import SpecError
from flywheel.core.specs import ActionSpec, ArraySpec, ObservationSpec
from flywheel.datasets import example
from flywheel.datasets.codec import decode_episode, encode_episode, summarize
from flywheel.datasets.schema import Schema
from flywheel.datasets.tfrecord import DamagedError
from tests import point

EVERY_KIND = Schema(
    ObservationSpec(
        {
            "vector": ArraySpec((3,), unit="rad"),
            "half": ArraySpec((2,), "float16"),
            "double": ArraySpec((2, 2), "float64"),
            "scalar": ArraySpec((), "float64"),
            "small": ArraySpec((3,), "int8"),
            "large": ArraySpec((2,), "uint64"),
            "buttons": ArraySpec((4,), "bool"),
            "depth": ArraySpec((4, 5), "uint16"),
        }
    ),
    ActionSpec((-1.0, -2.0), (1.0, 2.0), controller="joint", scale=(0.1, 0.2), rate=20.0),
)


def every_kind(steps: int = 7, **metadata: object) -> Episode:
    rng = np.random.default_rng(3)
    observations = [
        {
            key: rng.normal(size=spec.shape).astype(spec.dtype)
            if np.dtype(spec.dtype).kind == "f"
            else rng.integers(0, np.iinfo(spec.dtype).max if spec.dtype != "bool" else 1, spec.shape, spec.dtype, endpoint=True)
            for key, spec in EVERY_KIND.observation.arrays.items()
        }
        for _ in range(steps)
    ]
    about = EpisodeMetadata(task="é", seed=-1, success=True, started_at_ns=1_790_000_000_123_456_789, **metadata)  # type: ignore[arg-type]
    return Episode.from_transitions(observations, [np.ones(2)] * (steps - 1), [0.25] * (steps - 1), terminal=True, metadata=about)


def assert_equal(found: Episode, expected: Episode) -> None:
    assert found.metadata == expected.metadata
    for key, value in expected.observation.items():
        np.testing.assert_array_equal(found.observation[key], value, strict=True)
    for key in ("action", "reward", "discount", "is_first", "is_last", "is_terminal"):
        np.testing.assert_array_equal(getattr(found, key), getattr(expected, key), strict=True)


def test_an_episode_of_every_dtype_comes_back_exactly() -> None:
    episode = every_kind()
    assert_equal(decode_episode(encode_episode(episode, EVERY_KIND), EVERY_KIND), episode)


def test_a_summary_is_that_of_the_episode() -> None:
    episode = every_kind()
    assert summarize(encode_episode(episode, EVERY_KIND)) == (episode.metadata, 6, 1.5)


def test_a_schema_comes_back_from_json() -> None:
    assert Schema.from_json(EVERY_KIND.to_json()) == EVERY_KIND
    assert Schema.from_json(EVERY_KIND.to_json()).metadata == EVERY_KIND.metadata


def test_a_newer_record_layout_is_refused() -> None:
    with pytest.raises(SpecError, match="format 2"):
        Schema.from_json({**EVERY_KIND.to_json(), "format": 2})


def test_tfds_writes_the_same_features() -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    ours = EVERY_KIND.features_json()
    assert tfds.features.FeatureConnector.from_json(ours).to_json() == ours


@pytest.mark.parametrize(
    ("key", "spec", "reason"),
    [
        ("name", ArraySpec((), "str"), "numbers"),
        ("nothing", ArraySpec((0,)), "at least one element"),
        ("a/b", ArraySpec((2,)), "cannot be stored"),
        ("wave", ArraySpec((2,), "complex64"), "numbers"),
    ],
)
def test_what_cannot_be_stored_is_refused(key: str, spec: ArraySpec, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        Schema(ObservationSpec({key: spec}), EVERY_KIND.action)


def test_a_writer_of_an_older_version_fills_the_fields_it_does_not_know() -> None:
    newer = replace(point.SCHEMA, metadata={**point.SCHEMA.metadata, "weather": "str", "attempt": "int", "rainy": "bool"})
    features = example.parse(encode_episode(point.episode(0), newer))
    assert example.strings(features["episode_metadata/weather"]) == [b""]
    assert example.integers(features["episode_metadata/attempt"]) == [0]
    assert example.integers(features["episode_metadata/rainy"]) == [0]


def test_a_reader_ignores_new_fields_and_fills_missing_ones() -> None:
    payload = encode_episode(point.episode(0), replace(point.SCHEMA, metadata={"weather": "str"}))
    assert decode_episode(payload, point.SCHEMA).metadata == point.episode(0).metadata
    features = {name: example.strings(value) for name, value in example.parse(payload).items() if name.endswith("_id")}
    steps = {"steps/reward": np.zeros(2, np.float32)}
    assert summarize(example.encode({**features, **steps}))[0] == EpisodeMetadata("reach-script-00000", agent_id="script")


def test_a_record_of_another_schema_is_refused() -> None:
    payload = encode_episode(point.episode(0), point.SCHEMA)
    with pytest.raises(DamagedError, match="observation/"):
        decode_episode(payload, EVERY_KIND)
    wider = Schema(ObservationSpec({"position": ArraySpec((3,)), "target": ArraySpec((2,))}), point.SCHEMA.action)
    with pytest.raises(DamagedError, match="observation/position"):
        decode_episode(payload, wider)

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import SpecError
from tests.point import SCHEMA, episode


def _validate(item: Episode) -> Episode:
    return item.validate(SCHEMA.observation, SCHEMA.action)


def _build(terminal: bool) -> Episode:
    observations = [{"position": np.zeros(2), "target": np.ones(2)} for _ in range(4)]
    return Episode.from_transitions(
        observations, [np.ones(2)] * 3, [0.0, 0.5, 1.0], terminal=terminal, metadata=EpisodeMetadata()
    )


def test_step_t_holds_the_action_taken_at_it_and_its_reward() -> None:
    item = _build(terminal=True)
    assert len(item) == 4
    assert item.transitions == 3
    np.testing.assert_array_equal(item.reward, [0.0, 0.5, 1.0, 0.0])
    np.testing.assert_array_equal(item.action[-1], [0, 0])
    assert item.episode_return == pytest.approx(1.5)


def test_terminal_and_truncated_ends_differ() -> None:
    ended, cut = _build(terminal=True), _build(terminal=False)
    assert ended.is_terminal.tolist() == [False, False, False, True]
    assert ended.discount.tolist() == [1, 1, 0, 0]
    assert cut.is_last.tolist() == [False, False, False, True]
    assert not cut.is_terminal.any()
    assert cut.discount.tolist() == [1, 1, 1, 1]


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(SpecError, match="T \\+ 1 observations"):
        Episode.from_transitions([{}], [np.zeros(2)], [0.0], terminal=False, metadata=EpisodeMetadata())
    with pytest.raises(SpecError):
        Episode.from_transitions([{}], [], [], terminal=False, metadata=EpisodeMetadata())


def test_observations_of_different_keys_are_refused() -> None:
    observations = [{"position": np.zeros(2)}, {"position": np.zeros(2), "target": np.ones(2)}]
    with pytest.raises(SpecError, match="same keys"):
        Episode.from_transitions(observations, [np.ones(2)], [0.0], terminal=False, metadata=EpisodeMetadata())


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("reward", np.float32([0, np.nan, 0, 0]), "reward"),
        ("reward", np.zeros((4, 1), np.float32), "reward has shape"),
        ("discount", np.float64([1, 1, 1e39, 1]), "discount"),
        ("action", np.full((4, 2), np.inf, np.float32), "action"),
        ("action", np.zeros((3, 2), np.float32), "rows"),
        ("is_first", np.array([True, True, False, False]), "is_first"),
        ("is_terminal", np.array([False, True, False, False]), "is_terminal"),
        ("observation", {"position": np.zeros((4, 3)), "target": np.zeros((4, 2))}, "position"),
    ],
)
def test_what_is_wrong_is_named(field: str, value: object, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        _validate(dataclasses.replace(_build(terminal=False), **{field: value}))


def test_a_valid_episode_passes_unchanged() -> None:
    item = episode(3)
    checked = _validate(item)
    np.testing.assert_array_equal(checked.action, item.action)
    assert checked.metadata == item.metadata


def test_metadata_from_a_newer_version_is_read() -> None:
    metadata = EpisodeMetadata(task="lift", seed=4)
    assert EpisodeMetadata.from_json(metadata.to_json() | {"mood": "sunny"}) == metadata

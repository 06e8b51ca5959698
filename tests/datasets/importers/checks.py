"""What every importer's tests ask of a source: the numbers of `files`, and nothing half imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.core.episode import Episode
from flywheel.datasets.importers.base import ImportResult, import_episodes
from flywheel.datasets.importers.detect import open_source
from flywheel.datasets.store import EpisodeStore
from tests.datasets.importers import files


def load(tmp_path: Path, path: Path, given: dict[str, Any] | None = None, kind: str = "") -> tuple[ImportResult, list[Episode]]:
    """Import a source whose kind is found out, and give the stored episodes in the source's order."""
    result = import_episodes(open_source(path, kind, given or {}), tmp_path / "stores", "imported")
    return result, stored(result.store)


def stored(store: EpisodeStore) -> list[Episode]:
    """The episodes of a store in the order of their sources."""
    return sorted(store.episodes(), key=lambda episode: about(episode)["index"])


def about(episode: Episode) -> dict[str, Any]:
    """An episode's provenance."""
    value: dict[str, Any] = json.loads(episode.metadata.source)
    return value


def check(
    episode: Episode,
    number: int,
    count: int,
    *,
    terminal: bool,
    key: str = "state",
    repeated: bool = False,
    rewarded: bool = True,
) -> None:
    """The episode is number `number` of `files`, with `count` transitions, each of its steps in its place."""
    expected = files.observations(number, count + 1)
    if repeated:
        expected[-1] = expected[-2]
    np.testing.assert_array_equal(episode.observation[key], expected)
    np.testing.assert_array_equal(episode.action[:-1], files.actions(number, count))
    assert not episode.action[-1].any()
    if rewarded:
        np.testing.assert_array_equal(episode.reward[:-1], files.rewards(number, count))
    assert episode.reward[-1] == 0
    assert episode.is_terminal[-1] == terminal
    assert not episode.is_terminal[:-1].any()
    np.testing.assert_array_equal(episode.discount, [1.0] * (count - 1) + [0.0 if terminal else 1.0] * 2)

"""What was exported comes back: the same steps, metadata, units and action, under a new id and with a note of the old one."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flywheel.datasets.importers.base import import_episodes
from flywheel.datasets.importers.detect import open_source
from tests.datasets.importers.checks import about
from tests.point import make_store


@pytest.mark.parametrize("form", ["rlds", "robomimic", "minari", "lerobot"])
def test_a_round_trip(tmp_path: Path, form: str) -> None:
    store = make_store(tmp_path / "here", range(5))
    path = importlib.import_module(f"flywheel.datasets.exporters.{form}").export(store, store.snapshot(), tmp_path / "exported")
    result = import_episodes(open_source(path), tmp_path / "there", "point")
    assert replace(result.store.schema, metadata={}) == replace(store.schema, metadata={})
    found = {about(episode)["was"]: episode for episode in result.store.episodes()}
    assert len(found) == 5
    for expected in store.episodes():
        episode = found[expected.metadata.episode_id]
        for key, values in expected.observation.items():
            np.testing.assert_array_equal(episode.observation[key], values)
        for name in ("action", "reward", "discount", "is_terminal"):
            np.testing.assert_array_equal(getattr(episode, name), getattr(expected, name))
        for name in ("task", "agent_id", "robot", "seed", "success", "success_detector"):
            assert getattr(episode.metadata, name) == getattr(expected.metadata, name)

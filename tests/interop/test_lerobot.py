from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel.datasets.exporters import lerobot
from flywheel.datasets.importers.base import import_episodes
from flywheel.datasets.importers.detect import open_source
from tests.arm import make_store
from tests.interop import peers

pytestmark = pytest.mark.interop
VIDEO_LOSS = 6
"""How far a smooth picture's levels may be off behind a video codec, of 255."""


@pytest.mark.parametrize("camera", ["none", "image", "video"])
def test_lerobot_reads_what_we_wrote(tmp_path: Path, camera: str) -> None:
    peers.require("lerobot")
    store = make_store(tmp_path / "store", camera=camera != "none")
    folder = lerobot.export(store, store.snapshot(), tmp_path / "lerobot", video=camera == "video")
    found = peers.read("lerobot", "lerobot_read.py", tmp_path, folder)
    episodes = list(store.episodes(store.snapshot()))
    for key in ("counts", "grid", "touch", "precise"):
        expected = np.concatenate([episode.observation[key][:-1] for episode in episodes])
        expected = expected.astype(np.float32) if key == "precise" else expected  # LeRobot makes every float one of 32 bits
        np.testing.assert_array_equal(found[f"observation.{key}"], expected)
    state = np.concatenate([store.schema.observation.pack_state(episode.observation)[:-1] for episode in episodes])
    np.testing.assert_array_equal(found["observation.state"], state)
    action = np.concatenate([episode.action[:-1] for episode in episodes])
    np.testing.assert_array_equal(found["action"], action)
    np.testing.assert_array_equal(found["next.reward"], np.concatenate([episode.reward[:-1] for episode in episodes]))
    tasks = [episode.metadata.task for episode in episodes for _ in range(episode.transitions)]
    assert found["task"].tolist() == tasks
    np.testing.assert_allclose(found["stats/action/mean"], action.mean(axis=0), rtol=1e-6)
    last = np.cumsum([episode.transitions for episode in episodes]) - 1
    assert found["chunk_is_pad"][last, 1].all()
    assert found["chunk_is_pad"].sum() == len(episodes)
    if camera != "none":
        pictures = np.concatenate([episode.observation["camera"][:-1] for episode in episodes])
        levels = np.moveaxis(found["observation.images.camera"] * 255, 1, -1)
        assert np.abs(levels - pictures).max() <= (VIDEO_LOSS if camera == "video" else 1e-3)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_we_read_what_lerobot_wrote(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "lerobot"
    written = peers.read("lerobot", "lerobot_write.py", tmp_path, kind, folder)
    result = import_episodes(open_source(folder), tmp_path / "stores", "imported")
    episodes = sorted(result.store.episodes(), key=lambda episode: episode.reward[0])
    assert result.stored == 3
    assert result.store.schema.action.rate == 10
    start = 0
    for number, episode in enumerate(episodes):
        length = 6 + number
        # Only the second is a success: of the others the last transition is left out, as what it led to is not known.
        kept = length if number == 1 else length - 1
        assert episode.transitions == kept
        assert episode.is_terminal[-1] == episode.metadata.success == (number == 1)
        assert (episode.metadata.task, episode.metadata.robot) == (f"task {number % 2}", "panda")
        rows = slice(start, start + kept)
        for ours, theirs in (("action", "action"), ("reward", "next.reward")):
            values = written[theirs][rows].reshape(kept, -1)
            np.testing.assert_array_equal(getattr(episode, ours)[:-1].reshape(kept, -1), values)
        np.testing.assert_array_equal(episode.observation["state"][:kept], written["observation.state"][rows])
        np.testing.assert_array_equal(episode.observation["matrix"][:kept], written["observation.matrix"][rows].astype("f4"))
        frames = episode.observation["front"][:kept].astype(int) - written["observation.images.front"][rows]
        assert np.abs(frames).max() <= (VIDEO_LOSS * 2 if kind == "video" else 0)
        start += length

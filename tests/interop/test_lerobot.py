from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flywheel.datasets.exporters import lerobot
from flywheel.datasets.importers.base import import_episodes
from flywheel.datasets.importers.detect import open_source
from tests.arm import make_store
from tests.datasets.importers import test_lerobot as v2
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


def test_lerobot_converts_our_idea_of_v2_to_what_we_read_alike(tmp_path: Path) -> None:
    peers.require("lerobot")
    folder = tmp_path / "local" / "old"
    camera = {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]}
    v2.write_v2(folder, total_chunks=2, total_videos=3, total_episodes=3, total_frames=sum(v2.LENGTHS))
    path = folder / "meta" / "info.json"
    about = json.loads(path.read_text())
    about["features"] |= {"observation.images.top": camera}
    about["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    path.write_text(json.dumps(about))
    stats = {name: {"min": [0.0], "max": [1.0], "mean": [0.5], "std": [0.5], "count": [4]} for name in ("action", "next.reward")}
    rows = [json.dumps({"episode_index": number, "stats": stats}) for number in range(3)]
    (folder / "meta" / "episodes_stats.jsonl").write_text("\n".join(rows) + "\n")
    for number, length in enumerate(v2.LENGTHS):
        names = {"episode_chunk": number // 2, "video_key": "observation.images.top", "episode_index": number}
        file = folder / about["video_path"].format(**names)
        file.parent.mkdir(parents=True, exist_ok=True)
        v2.video(file, length, 10)
    peers.run("lerobot", "lerobot_convert.py", folder)
    sources = [open_source(folder.with_name("old_old")), open_source(folder)]
    assert [source.provenance()["version"] for source in sources] == ["v2.1", "v3.0"]
    assert sources[0].schema() == sources[1].schema()
    for number, length in enumerate(v2.LENGTHS):
        before, after = (source.episode(number) for source in sources)
        assert before is not None
        assert after is not None
        for key in ("state", "top"):
            np.testing.assert_array_equal(before.observation[key], after.observation[key])
        np.testing.assert_array_equal(before.action, after.action)
        levels = before.observation["top"][: length - 1, 24, 32, 0]
        assert np.abs(levels.astype(int) - 8 * np.arange(length - 1)).max() <= 3

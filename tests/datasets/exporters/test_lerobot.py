from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ArraySpec, ObservationSpec
from flywheel.datasets.exporters import lerobot
from flywheel.datasets.exporters.lerobot_features import STATE, Features
from flywheel.datasets.exporters.lerobot_stats import Summary, array_stats, picture_stats
from flywheel.datasets.importers.base import import_episodes
from flywheel.datasets.importers.detect import open_source
from flywheel.datasets.schema import Schema
from flywheel.datasets.store import EpisodeStore
from tests.arm import make_store
from tests.datasets.test_schema import EVERY_KIND, assert_equal, every_kind

parquet = pytest.importorskip("pyarrow.parquet")


def _by_id(store: EpisodeStore) -> dict[str, Episode]:
    """The episodes by the id that they had before they were exported."""
    return {
        json.loads(episode.metadata.source).get("was") or episode.metadata.episode_id: episode for episode in store.episodes()
    }


@pytest.mark.parametrize("camera", [False, True])
def test_what_is_exported_comes_back_as_it_was(tmp_path: Path, camera: bool) -> None:
    store = make_store(tmp_path / "store", camera=camera)
    folder = lerobot.export(store, store.snapshot(), tmp_path / "lerobot")
    result = import_episodes(open_source(folder), tmp_path / "again", "arm")
    assert (result.stored, result.store.schema) == (4, store.schema)
    again = _by_id(result.store)
    for expected in store.episodes():
        found = again[expected.metadata.episode_id]
        for name in ("episode_id", "source"):
            object.__setattr__(found.metadata, name, getattr(expected.metadata, name))
        assert_equal(found, expected)
    assert import_episodes(open_source(folder), tmp_path / "again", "arm").skipped == 4


def test_video_keeps_each_picture_in_its_place(tmp_path: Path) -> None:
    pytest.importorskip("av")
    store = make_store(tmp_path / "store", camera=True)
    folder = lerobot.export(store, store.snapshot(), tmp_path / "lerobot", video=True)
    assert [path.name for path in (folder / "videos" / "observation.images.camera").rglob("*.mp4")] == ["file-000.mp4"]
    again = _by_id(import_episodes(open_source(folder), tmp_path / "again", "arm").store)
    for expected in store.episodes():
        found = again[expected.metadata.episode_id].observation
        off = found["camera"].astype(int) - expected.observation["camera"]
        assert np.abs(off).max() < 8  # neighbouring frames differ by 16
        assert not off[-1].any()  # the final picture is beside the video, exactly
        np.testing.assert_array_equal(found["joints"], expected.observation["joints"])


def test_pictures_that_h264_cannot_hold_are_told(tmp_path: Path) -> None:
    arrays = {"state": ArraySpec((2,)), "camera": ArraySpec((33, 64, 3), "uint8")}
    schema = Schema(ObservationSpec(arrays), EVERY_KIND.action)
    store = EpisodeStore.create(tmp_path / "store", "odd", schema)
    observations = [{"state": np.zeros(2, np.float32), "camera": np.zeros((33, 64, 3), np.uint8)}] * 3
    episode = Episode.from_transitions(observations, [np.zeros(2)] * 2, [0.0] * 2, terminal=False, metadata=EpisodeMetadata())
    with store.writer() as writer:
        writer.append(episode)
    with pytest.raises(FlywheelError, match="leave --video away"):
        lerobot.export(store, store.snapshot(), tmp_path / "lerobot", video=True)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_every_kind_of_array_comes_back(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", "kinds", EVERY_KIND)
    with store.writer() as writer:
        writer.append(every_kind())
    folder = lerobot.export(store, store.snapshot(), tmp_path / "lerobot")
    result = import_episodes(open_source(folder), tmp_path / "again", "kinds")
    assert result.store.schema == EVERY_KIND
    (found,) = result.store.episodes()
    for key, value in every_kind().observation.items():
        np.testing.assert_array_equal(found.observation[key], value, strict=True)


def test_frames_are_those_of_the_transitions(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", camera=False)
    folder = lerobot.export(store, store.snapshot(), tmp_path / "lerobot")
    episodes = list(store.episodes(store.snapshot()))
    table = parquet.read_table(folder / "data" / "chunk-000" / "file-000.parquet")
    assert len(table) == sum(episode.transitions for episode in episodes)
    state = np.stack(table[STATE].to_numpy())
    np.testing.assert_array_equal(state[: episodes[0].transitions, 1:4], episodes[0].observation["joints"][:-1])
    reward = np.concatenate([episode.reward[:-1] for episode in episodes])
    np.testing.assert_array_equal(table["next.reward"].to_numpy(), reward)
    ends = np.flatnonzero(table["next.done"].to_numpy()) + 1
    np.testing.assert_array_equal(ends, np.cumsum([episode.transitions for episode in episodes]))
    truncated = table["next.truncated"].to_numpy()[ends - 1]
    np.testing.assert_array_equal(truncated, [not episode.is_terminal[-1] for episode in episodes])


def test_info_says_where_it_came_from(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", camera=False)
    folder = lerobot.export(store, store.snapshot(), tmp_path / "lerobot")
    info = json.loads((folder / "meta" / "info.json").read_text())
    assert info["flywheel"]["snapshot"] == store.snapshot().hash
    assert (info["codebase_version"], info["fps"], info["total_episodes"]) == ("v3.0", 10, 4)
    assert info["features"][STATE]["names"] == ["grip", "joints.0", "joints.1", "joints.2", "precise.0", "precise.1"]


def test_a_store_without_a_rate_needs_one(tmp_path: Path) -> None:
    schema = type(EVERY_KIND)(EVERY_KIND.observation, type(EVERY_KIND.action)(low=(-1.0, -2.0), high=(1.0, 2.0)))
    store = EpisodeStore.create(tmp_path / "store", "kinds", schema)
    with store.writer() as writer:
        writer.append(every_kind())
    with pytest.raises(FlywheelError, match="--fps"):
        lerobot.export(store, store.snapshot(), tmp_path / "lerobot")
    assert not (tmp_path / "lerobot").exists()
    folder = lerobot.export(store, store.snapshot(), tmp_path / "lerobot", fps=12.5)
    assert json.loads((folder / "meta" / "info.json").read_text())["fps"] == 12.5


def test_a_state_of_one_array_keeps_its_dtype() -> None:
    def features(**arrays: ArraySpec) -> Features:
        return Features.of(type(EVERY_KIND)(ObservationSpec(arrays), EVERY_KIND.action))

    double = features(state=ArraySpec((3,), "float64"))
    assert double.state == ArraySpec((3,), "float64")
    assert not double.own
    both = features(state=ArraySpec((3,), "float64"), tip=ArraySpec((2,)))
    assert both.own == {"observation.state_": "state"}
    observation = {"state": np.linspace(0, 1, 12).reshape(4, 3), "tip": np.ones((4, 2), np.float32)}
    joined = both.join(both.split(observation))
    for key, value in observation.items():
        np.testing.assert_array_equal(joined[key], value, strict=True)


def test_statistics_are_those_of_all_frames() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(count, 3)) for count in (5, 40, 11)]
    summary = Summary()
    for part in parts:
        summary.add({"x": array_stats(part)})
    found, whole = summary.to_json()["x"], np.concatenate(parts)
    np.testing.assert_allclose(found["mean"], whole.mean(axis=0))
    np.testing.assert_allclose(found["std"], whole.std(axis=0))
    np.testing.assert_array_equal(found["min"], whole.min(axis=0))
    assert found["count"] == [56]


def test_pictures_have_statistics_per_channel() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 8, 9, 3), np.uint8)
    found = picture_stats(frames)
    pixels = frames.reshape(-1, 3) / 255
    np.testing.assert_allclose(found["mean"][:, 0, 0], pixels.mean(axis=0))
    np.testing.assert_allclose(found["std"][:, 0, 0], pixels.std(axis=0))
    np.testing.assert_allclose(found["max"][:, 0, 0], pixels.max(axis=0))
    assert np.abs(found["q50"][:, 0, 0] - np.quantile(pixels, 0.5, axis=0)).max() < 2 / 255

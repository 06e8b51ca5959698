"""Strips and recordings of episodes, drawn and read back for real."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rerun
from PIL import Image

from flywheel.core.episode import Episode
from flywheel.report.strip import write_strip
from flywheel.report.viewer import write_recording
from tests.point import SCHEMA, episode


def filmed(seed: int, channels: int = 3) -> Episode:
    plain = episode(seed)
    frames = np.zeros((len(plain), 24, 32, channels), np.uint8)
    frames[:, :, :, 0] = np.linspace(0, 255, len(plain)).astype(np.uint8)[:, None, None]
    return dataclasses.replace(plain, observation={**plain.observation, "wrist": frames, "gripper_qpos": plain.action[:, :1]})


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_strip_shows_frames_over_curves(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "new" / "strip.png"
    write_strip(path, filmed(1, channels), SCHEMA.action)
    with Image.open(path) as picture:
        width, height = picture.size
    assert width == 1320
    assert height > 600
    assert [found.name for found in path.parent.iterdir()] == ["strip.png"]


def test_a_strip_without_cameras_has_curves_alone(tmp_path: Path) -> None:
    write_strip(tmp_path / "strip.png", episode(1), SCHEMA.action)
    with Image.open(tmp_path / "strip.png") as picture:
        assert picture.size[1] < 600


def test_an_episode_of_one_step_is_drawn(tmp_path: Path) -> None:
    write_strip(tmp_path / "strip.png", episode(1, horizon=1), dataclasses.replace(SCHEMA.action, rate=0.0))
    assert (tmp_path / "strip.png").stat().st_size > 1_000


def test_a_recording_holds_every_step_of_every_episode(tmp_path: Path) -> None:
    episodes = [filmed(1), filmed(2)]
    write_recording(tmp_path / "two.rrd", episodes, SCHEMA.action)
    recording = rerun.dataframe.load_recording(tmp_path / "two.rrd")
    for number, one in enumerate(episodes, start=1):
        entity = f"/observation/wrist/{number}-{one.metadata.episode_id[-12:]}"
        table = recording.view(index="step", contents=entity).select().read_all()
        assert table.num_rows == len(one)
    assert [found.name for found in tmp_path.iterdir()] == ["two.rrd"]

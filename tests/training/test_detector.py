from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.detector import DETECTOR_FILE, SuccessDetector
from flywheel.networks.augment import Augmentation
from flywheel.networks.pictures import PictureConfig
from flywheel.training.detector import DetectorConfig, load_config, train_detector
from flywheel.training.held_out import MEASURED_FILE, RELIABILITY_FILE
from tests import arm
from tests.lamp import episode, make_store

SMALL = PictureConfig(network="drq", features=16)


def config(tmp_path: Path, output: str = "run", **settings: object) -> DetectorConfig:
    values = {"updates": 120, "batch_size": 32, "learning_rate": 3e-3, "held_out": 0.4, "save_every": 10, **settings}
    values = {"augment": Augmentation(shift=1), **values}
    return DetectorConfig((tmp_path,), tmp_path / output, pictures=SMALL, hidden=(32,), **values)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, in a folder beside its store."""
    folder = tmp_path_factory.mktemp("detector")
    make_store(folder)
    train_detector(config(folder))
    return folder / "run"


def test_success_is_told_by_pictures_and_task(run: Path) -> None:
    detector = SuccessDetector.load(run)
    measured = detector.header.measured
    assert measured["all"]["balanced_accuracy"] >= 0.95
    assert set(measured["tasks"]) == {"red", "blue"}
    assert measured["all"]["count"] == sum(values["count"] for values in measured["tasks"].values()) > 20
    assert measured["all"]["refused"] > 0.9
    red = episode("red", 101).observation["camera"][-1:]
    assert detector.probabilities({"camera": red}, "red")[0] > 0.5 > detector.probabilities({"camera": red}, "blue")[0]
    assert detector.name == f"detector-{detector.checkpoint[:8]}"
    for name in (MEASURED_FILE, RELIABILITY_FILE):
        assert (run / name).stat().st_size > 0
    assert load_config(run / "config.yaml").updates == 120


@pytest.mark.parametrize("settings", [{}, {"crop": 16, "bottleneck": 0.01}])
def test_a_killed_run_goes_on_to_the_same_detector(run: Path, tmp_path: Path, settings: dict[str, float]) -> None:
    def kill(done: int, total: int) -> None:
        if done == 17:
            raise KeyboardInterrupt

    asked = replace(config(run.parent, updates=30), pictures=replace(SMALL, **settings), output=tmp_path / "again")
    train_detector(replace(asked, output=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train_detector(asked, kill)
    seen: list[int] = []
    train_detector(asked, lambda done, total: seen.append(done))
    assert seen[0] == 11
    again, whole = (SuccessDetector.load(folder).network.state_dict() for folder in (asked.output, tmp_path / "whole"))
    for name, tensor in whole.items():
        np.testing.assert_array_equal(again[name], tensor)
    assert train_detector(asked).checkpoint == SuccessDetector.load(asked.output).checkpoint


def test_a_detector_goes_on_from_another(run: Path, tmp_path: Path) -> None:
    asked = replace(config(run.parent), output=tmp_path / "next", initial=run, updates=10)
    after = train_detector(asked)
    assert after.header.parent == SuccessDetector.load(run).checkpoint
    with pytest.raises(FlywheelError, match="other tasks, cameras or networks"):
        train_detector(replace(asked, output=tmp_path / "other", tasks=("red",)))


def test_what_cannot_be_learned_is_refused_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    asked = replace(config(run.parent), output=tmp_path / "refused")
    for changes, sentence in (
        ({"tasks": ("green",)}, "no episode of green"),
        ({"tasks": ("red", "red")}, "named twice"),
        ({"cameras": ("wrist",)}, "There is no camera 'wrist'"),
        ({"where": "success"}, "no failure of blue to learn from"),
        ({"held_out": 0.0}, "must lie between 0 and 1"),
        ({"batch_size": 0}, "must be at least 1"),
        ({"store": (run.parent, run.parent)}, "A store is named twice"),
        ({"seed": 2**50}, "a seed from 0 to"),
        ({"hidden": ()}, "at least one width"),
        ({"hidden": (0,)}, "at least one width"),
        ({"learning_rate": float("nan")}, "The learning rate must be above 0"),
        ({"weight_decay": -1.0}, "the weight decay at least 0"),
        ({"pictures": PictureConfig("nature")}, "cannot see pictures of 20 x 20"),
    ):
        with pytest.raises(FlywheelError, match=sentence):
            train_detector(replace(asked, **changes))
    assert not (asked.output / "last.ckpt").exists()
    with pytest.raises(FlywheelError, match="other settings \\(seed\\)"):
        train_detector(replace(config(run.parent), seed=1))
    arm.make_store(tmp_path / "blind", camera=False)
    with pytest.raises(FlywheelError, match="no camera in common"):
        train_detector(replace(asked, store=(tmp_path / "blind",)))


def test_a_file_that_is_no_detector_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="train one first"):
        SuccessDetector.load(tmp_path)
    damaged = tmp_path / DETECTOR_FILE
    damaged.write_bytes((run / DETECTOR_FILE).read_bytes()[:-100])
    with pytest.raises(FlywheelError, match="not a readable detector"):
        SuccessDetector.load(damaged)
    with pytest.raises(FlywheelError, match="did you mean 'red'"):
        SuccessDetector.load(run).check_task("rad")

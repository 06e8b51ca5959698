from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywheel.cli.background import in_background
from flywheel.core.errors import FlywheelError
from flywheel.policy import LearnedPolicy
from flywheel.training.recipe import DataConfig
from flywheel.training.train import TrainConfig, algorithm_class, train
from tests.point import make_store

ROOT = Path(__file__).parents[2]
ENDLESS = 10**8

DEMO = """
import signal
from flywheel.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with Ctrl-C ignored
main()
"""


def config(folder: Path, updates: int) -> TrainConfig:
    make_store(folder / "store", range(5))
    algorithm = algorithm_class("bc").Config(hidden=(8, 8))
    data = DataConfig(batch_size=8)
    return TrainConfig("bc", algorithm, folder / "store", folder / "run", updates, data=data, save_every=50)


def wait_for(path: Path) -> None:
    for _ in range(4800):  # minutes, where the machine is busy: several processes import torch first
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def test_it_trains_beside_and_tells_how_far_it_is(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with in_background("pretrain", config(tmp_path, 100)) as training:
        assert training.wait(lambda done, total: seen.append((done, total))) > 0
    assert seen[0] == (0, 100)
    assert seen[-1] == (100, 100)
    assert LearnedPolicy.load(tmp_path / "run").header.updates == 100


def test_one_that_was_killed_is_told_in_one_sentence(tmp_path: Path) -> None:
    with in_background("pretrain", config(tmp_path, ENDLESS)) as training:
        wait_for(tmp_path / "run" / "last.ckpt")
        training.end()
        with pytest.raises(FlywheelError, match=r"'pretrain' was killed .*; start the demo again and it goes on"):
            training.wait(lambda done, total: None)


def test_it_ends_with_what_it_runs_beside_and_tells_its_mistakes(tmp_path: Path) -> None:
    endless = config(tmp_path, ENDLESS)
    with in_background("one", endless):
        wait_for(tmp_path / "run" / "last.ckpt")
        with in_background("two", endless) as other, pytest.raises(FlywheelError, match="Another process is training"):
            other.wait(lambda done, total: None)
    with pytest.raises(KeyboardInterrupt):
        train(endless, _interrupt)  # nobody else is training there now


def _interrupt(done: int, total: int) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_ends_a_demo_and_all_that_it_started(tmp_path: Path) -> None:
    sizes = f"--robot fake --processes 1 --episodes 6 --evaluation-episodes 4 --pretrain-updates {ENDLESS}"
    command = [sys.executable, "-c", DEMO, "demo", *sizes.split(), "--output", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    demo = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    wait_for(tmp_path / "pretrain" / "config.yaml")
    wait_for(tmp_path / "evaluations" / "logging" / "evaluation.json")
    os.killpg(demo.pid, signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert errors.splitlines() == ["error: Interrupted. Run the same command again to go on from here."]
    for _ in range(200):
        try:
            os.killpg(demo.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("some process is still there")

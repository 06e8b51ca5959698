"""A run killed at any moment and started again ends bit-identical to an uninterrupted one (issue 2, item 4)."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.point import episode, make_store

ALGORITHMS = ("bc", "iql", "cql", "actionable_models")


def _command(algorithm: str, store: Path, output: Path) -> list[str]:
    arguments = f"train {algorithm} --store {store} --output {output} --updates 330 --save-every 50 --data.batch-size 32"
    code = "import sys; from flywheel.cli.main import main; main(sys.argv[1:])"
    return [sys.executable, "-c", code, *arguments.split(), "--algorithm.hidden", "32", "32"]


def _checkpoint(run: Path) -> dict:
    return torch.load(run / "last.ckpt", weights_only=True)


def _assert_equal(left: object, right: object) -> None:
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            _assert_equal(left[key], right[key])
    elif isinstance(left, list):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            _assert_equal(one, other)
    else:
        assert left == right


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_killed_and_resumed_run_is_bit_identical(tmp_path: Path, algorithm: str) -> None:
    make_store(tmp_path / "store")
    subprocess.run(_command(algorithm, tmp_path / "store", tmp_path / "whole"), check=True, capture_output=True)

    rng = random.Random(algorithm)
    kills = 0
    for attempt in range(30):
        process = subprocess.Popen(_command(algorithm, tmp_path / "store", tmp_path / "killed"), stdout=subprocess.DEVNULL)
        wanted = rng.randint(1, 60) * 5
        while process.poll() is None and _progress(tmp_path / "killed") < wanted:
            time.sleep(0.005)
        if process.poll() is not None:
            assert process.returncode == 0
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if attempt == 0:
            # The store grows meanwhile; the run keeps to the snapshot that it pinned.
            from flywheel.datasets.store import EpisodeStore

            with EpisodeStore.open(tmp_path / "store").writer() as writer:
                writer.append(episode(999))
        if kills == 3:
            subprocess.run(_command(algorithm, tmp_path / "store", tmp_path / "killed"), check=True, capture_output=True)
            break

    assert kills > 0
    assert (tmp_path / "whole/policy.safetensors").read_bytes() == (tmp_path / "killed/policy.safetensors").read_bytes()
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "killed/metrics.csv").read_bytes()
    whole, killed = _checkpoint(tmp_path / "whole"), _checkpoint(tmp_path / "killed")
    for part in ("update", "state_dict", "optimizer_states"):
        _assert_equal(whole[part], killed[part])


def _progress(run: Path) -> int:
    """The update that the run's checkpoint holds, roughly: the length of its metrics file in rows times 50."""
    try:
        return 50 * (len((run / "metrics.csv").read_text().splitlines()) - 1)
    except FileNotFoundError:
        return 0

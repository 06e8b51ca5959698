from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from flywheel.bench.loaders import LOADERS, commands, write_frames
from flywheel.bench.peer_loaders import BATCH, WORKERS, burst
from flywheel.bench.sampling import make_store


def test_the_frames_are_those_of_the_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 2)
    write_frames(store, tmp_path / "frames")
    for number, episode in enumerate(store.episodes()):
        for key, values in {**episode.observation, "action": episode.action}.items():
            np.testing.assert_array_equal(np.load(tmp_path / "frames" / f"{key}.npy", mmap_mode="r")[number], values)


def test_a_burst_counts_as_many_batches_as_workers_give_at_once() -> None:
    given = iter(range(10_000_000))
    assert burst(given, 0.001) > 0
    assert next(given) % WORKERS == 0


def test_a_loader_that_is_not_installed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert commands(make_store(tmp_path / "store", 1), tmp_path) == {}
    assert not (tmp_path / "frames").exists()
    assert "'make test-interop' installs it" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("loader", LOADERS)
def test_an_installed_loader_answers_with_a_rate(tmp_path: Path, loader: str) -> None:
    name, python, target = LOADERS[loader]
    if not python.exists():
        pytest.skip(f"'{target}' installs what {name} needs")
    command = commands(make_store(tmp_path / "store", 2), tmp_path)[name]
    result = subprocess.run(command, input="0.01\n", capture_output=True, text=True, check=True)
    assert float(result.stdout) >= BATCH

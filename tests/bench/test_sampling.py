from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from flywheel.bench.sampling import BATCH, CAMERAS, FRAMES, first_batch, make_store, open_columns
from flywheel.datasets.relabel import Hindsight
from flywheel.datasets.sampler import UniformSampler
from flywheel.datasets.store import EpisodeStore


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sampling")
    make_store(root / "raw", 2)
    for kind in ("half", "jpeg"):
        shutil.copytree(root / "raw", root / kind)
    return {kind: root / kind for kind in ("raw", "half", "jpeg")}


def test_a_batch_is_the_same_however_its_pictures_are_kept(folders: dict[str, Path]) -> None:
    batches = []
    for kind, folder in folders.items():
        columns = open_columns(folder, kind)
        maps = columns.arrays["wrist"].maps
        encoded = np.zeros(402, np.int64) if maps.spans is None else maps.spans[:, 1]
        assert (encoded > 0).sum() == {"raw": 0, "half": 201, "jpeg": 402}[kind]
        rng = np.random.default_rng(0)
        indices = UniformSampler(columns.table).sample(rng, BATCH)
        batches.append(columns.gather(indices, Hindsight()(columns.table, indices, rng), 0.99))
    for batch in batches[1:]:
        for name in ("observation", "next_observation", "goal"):
            for camera in (*CAMERAS, "state"):
                assert torch.equal(getattr(batch, name)[camera], getattr(batches[0], name)[camera])


def test_pictures_are_those_of_the_store(folders: dict[str, Path]) -> None:
    columns = open_columns(folders["half"], "half")
    start = dict(zip(columns.table.episode_id, columns.table.start, strict=True))
    for episode in EpisodeStore.open(folders["raw"]).episodes():
        rows = start[episode.metadata.episode_id] + np.arange(len(episode))
        seen = columns.observations(rows)
        for camera in CAMERAS:
            np.testing.assert_array_equal(seen[camera].permute(0, 2, 3, 1), episode.observation[camera])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["limit", "raw", "half", "jpeg", "independent"])
def test_a_side_answers_with_a_rate(folders: dict[str, Path], kind: str) -> None:
    folder = folders["jpeg" if kind == "independent" else "raw" if kind == "limit" else kind]
    command = [sys.executable, "-m", "flywheel.bench.sampling", "serve", str(folder), kind]
    result = subprocess.run(command, input="0.01\n0.01\n", capture_output=True, text=True, check=True)
    assert len(result.stdout.split()) == 2
    assert min(map(float, result.stdout.split())) > 0


def test_first_batch_is_measured(folders: dict[str, Path]) -> None:
    assert first_batch(folders["jpeg"], "jpeg") > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "cache"])
def test_tf_data_reads_the_same_store(folders: dict[str, Path], kind: str) -> None:
    from flywheel.bench.peer_tfdata import pipeline

    path = next((folders["raw"] / "pictures").iterdir())
    step = next(iter(pipeline(path, kind)))
    assert 3 * len(CAMERAS) == FRAMES
    for name in ("observation", "next", "goal"):
        for camera in CAMERAS:
            assert step[name][camera].shape == (BATCH, 84, 84, 3)

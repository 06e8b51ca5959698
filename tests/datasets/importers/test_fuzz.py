"""Damaged files: one sentence that names the file, or a whole import; never another exception, and never part of an episode."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.importers.base import import_episodes
from flywheel.datasets.importers.detect import open_source
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.upkeep.verify import verify
from tests.datasets.importers import files

LENGTHS = [5, 3, 4]
ROUNDS = int(os.environ.get("FLYWHEEL_FUZZ_ROUNDS", "15"))


def _npz(folder: Path) -> Path:
    arrays = files.flat(LENGTHS, following=True)
    path = folder / "a.npz"
    np.savez_compressed(path, **arrays, episode_ends=np.cumsum(LENGTHS), terminal=files.marked(LENGTHS, [0]))
    return path


def _rlds(folder: Path) -> Path:
    records = [files.oxe_record(number, count + 1, terminal=number == 0) for number, count in enumerate(LENGTHS)]
    return files.rlds(folder, files.OXE, files.OXE_METADATA, [records[:2], records[2:]])


SOURCES: dict[str, Callable[[Path], Path]] = {
    "d4rl": lambda folder: files.d4rl(folder / "a.hdf5", LENGTHS, [0], [1], following=True),
    "robomimic": lambda folder: files.robomimic(folder / "a.hdf5", LENGTHS, success=[0]),
    "ogbench": lambda folder: files.ogbench(folder / "a.npz", LENGTHS),
    "npz": _npz,
    "rlds": _rlds,
    "minari": lambda folder: files.minari_hdf5(folder, LENGTHS, [0]),
    "minari arrow": lambda folder: files.minari_arrow(folder, LENGTHS, [0], "arrow"),
    "minari parquet": lambda folder: files.minari_arrow(folder, LENGTHS, [0], "parquet"),
}


def _damage(rng: np.random.Generator, folder: Path) -> None:
    """Cut one file of a folder, or change a few bits or bytes of it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = found[rng.integers(len(found))]
    data = bytearray(path.read_bytes())
    kind = rng.integers(4)
    if kind == 0:
        del data[rng.integers(len(data)) :]
    else:
        for _ in range(1 if kind == 1 else 8):
            place = int(rng.integers(len(data)))
            data[place] = int(rng.integers(256)) if kind == 3 else data[place] ^ (1 << int(rng.integers(8)))
    path.write_bytes(data)


def _refusal(source: Path, kind: str, stores: Path, folder: Path) -> str:
    """Import, and give the one sentence of what is wrong; empty if nothing was found."""
    message = ""
    try:
        import_episodes(open_source(source, kind), stores, "imported")
    except FlywheelError as error:
        message = str(error)
    assert not message or str(folder) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", SOURCES)
def test_damaged_files(tmp_path: Path, name: str) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    path = SOURCES[name](whole)
    rng = np.random.default_rng(7)
    refused = 0
    for number in range(ROUNDS):
        folder = tmp_path / f"source{number}"
        shutil.copytree(whole, folder)
        _damage(rng, folder)
        source, stores = folder / path.relative_to(whole), tmp_path / f"stores{number}"
        started = time.monotonic()
        refused += _refusal(source, name.split()[0], stores, folder) != ""
        assert time.monotonic() - started < 30  # nothing hangs; a hundredth of this is usual
        if stores.exists():
            assert verify(EpisodeStore.open(stores)).sound
        shutil.rmtree(folder)
        shutil.rmtree(stores, ignore_errors=True)
    assert refused

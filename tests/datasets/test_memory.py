"""Sampling takes no more memory however large the columns are: they are mapped, and all buffers are bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SAMPLE = """
import os, sys
from pathlib import Path
import numpy as np
from flywheel.core.specs import ArraySpec
from flywheel.datasets.cache.array_cache import ArrayCache
from flywheel.datasets.columns import Columns
from flywheel.datasets.cache.frames import Frames
from flywheel.datasets.relabel import Hindsight
from flywheel.datasets.sampler import UniformSampler
from flywheel.datasets.table import EpisodeTable
from flywheel.training import data

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

folder, size = Path(sys.argv[1]), int(sys.argv[2])
spec = ArraySpec((256, 256, 3), "uint8")
length = 100
count = size // (spec.size * (length + 1))
rows = count * (length + 1)
cache = ArrayCache(folder, spec, "cache")  # all holes, which take no disk and are read like any other page
state = np.memmap(folder / "state", np.float32, "w+", shape=(rows, 4))
table = EpisodeTable(
    episode_id=tuple(map(str, range(count))),
    start=np.arange(count) * (length + 1),
    transitions=np.full(count, length),
    success=np.zeros(count, bool), terminal=np.zeros(count, bool),
    episode_return=np.zeros(count), task=np.full(count, "lift"),
)
columns = Columns(table, state, state[:, :2], state[:, 0], {"camera": Frames(cache.maps(rows))})
data._GATHER_BYTES = 1  # one batch at a time
source = data.ChunkSource(columns, UniformSampler(table), Hindsight(), batch_size=4, discount=0.9, seed=0)
seen = []
for number, batch in enumerate(source.updates(0, 100)):
    if number >= 10:
        seen.append(resident())
print(max(seen) - seen[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's figures")
def test_columns_of_ten_times_the_memory_are_sampled_in_flat_memory(tmp_path: Path) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    command = [sys.executable, "-c", _SAMPLE, str(tmp_path), str(10 * memory)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 16 << 20


_DECODE = """
import sys
from pathlib import Path
import numpy as np
from flywheel.core.specs import ArraySpec
from flywheel.datasets.cache.array_cache import ArrayMaps
from flywheel.datasets.cache.decoded import DecodedRows
from flywheel.datasets.cache.frames import Frames
from flywheel.datasets.columns import Columns
from flywheel.datasets.pictures import encode_many
from flywheel.datasets.relabel import Hindsight
from flywheel.datasets.sampler import UniformSampler
from flywheel.datasets.table import EpisodeTable
from flywheel.training import data

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

length, pool = 10, int(sys.argv[1])
spec = ArraySpec((64, 64, 3), "uint8")
rows = 10 * pool // spec.size
count = rows // (length + 1)
(jpeg,) = encode_many(np.zeros((1, 64, 64, 3), np.uint8), "jpeg")
spans = np.tile(np.array([0, len(jpeg)]), (rows, 1))
maps = ArrayMaps(spec, np.broadcast_to(np.zeros(spec.size, np.uint8), (rows, spec.size)), spans, np.frombuffer(jpeg, np.uint8))
state = np.zeros((rows, 4), np.float32)
table = EpisodeTable(
    episode_id=tuple(map(str, range(count))),
    start=np.arange(count) * (length + 1),
    transitions=np.full(count, length),
    success=np.zeros(count, bool), terminal=np.zeros(count, bool),
    episode_return=np.zeros(count), task=np.full(count, "lift"),
)
frames = Frames(maps, DecodedRows(rows, pool // spec.size, spec.size))
columns = Columns(table, state, state[:, :2], state[:, 0], {"camera": frames})
data._GATHER_BYTES = 1  # one batch at a time
source = data.ChunkSource(columns, UniformSampler(table), Hindsight(), batch_size=16, discount=0.9, seed=0)
seen = [resident()]
for batch in source.updates(0, 400):
    seen.append(resident())
print(source.pool.slots, max(seen) - seen[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's figures")
def test_encoded_columns_of_ten_times_the_pool_take_no_more_than_the_pool() -> None:
    pool = 24 << 20
    command = [sys.executable, "-c", _DECODE, str(pool)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    slots, grown = map(int, result.stdout.split())
    assert slots == pool // (64 * 64 * 3) // 11
    assert pool // 2 < grown < pool + (16 << 20)

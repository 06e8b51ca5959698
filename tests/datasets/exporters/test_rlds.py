from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets import example
from flywheel.datasets.codec import decode_episode
from flywheel.datasets.exporters import rlds
from flywheel.datasets.rlds import validate
from flywheel.datasets.schema import Pictures
from flywheel.datasets.tfrecord import Record, scan
from tests.arm import make_store as make_arm
from tests.datasets.test_schema import assert_equal
from tests.point import make_store


def _records(path: Path) -> list[bytes]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return [item.payload for item in scan(descriptor) if isinstance(item, Record)]
    finally:
        os.close(descriptor)


def test_shards_have_tfds_names_and_the_chosen_size(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", range(12))
    path = rlds.export(store, store.snapshot(), tmp_path / "out", shard_mb=0.01)
    validate(path)
    assert path == tmp_path / "out" / "point" / "1.0.0"
    shards = sorted(path.glob("*.tfrecord-*"))
    assert [shard.name for shard in shards] == [
        f"point-train.tfrecord-{number:05d}-of-{len(shards):05d}" for number in range(len(shards))
    ]
    info = json.loads((path / "dataset_info.json").read_text())
    (split,) = info["splits"]
    payloads = [_records(shard) for shard in shards]
    assert split["shardLengths"] == [str(len(records)) for records in payloads]
    assert all(shard.stat().st_size >= 10_000 for shard in shards[:-1])
    found = [decode_episode(payload, store.schema) for records in payloads for payload in records]
    for episode, expected in zip(found, store.episodes(store.snapshot()), strict=True):
        assert_equal(episode, expected)


def test_every_step_has_the_instruction_and_the_folder_its_provenance(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", range(2))
    path = rlds.export(store, store.snapshot(), tmp_path / "out")
    (shard,) = path.glob("*.tfrecord-*")
    features = example.parse(_records(shard)[0])
    steps = len(example.floats(features["steps/reward"]))
    assert example.strings(features["steps/language_instruction"]) == [b"reach"] * steps
    about = json.loads((path / "metadata.json").read_text())["flywheel"]
    assert about["snapshot"] == store.snapshot().hash
    assert "language_instruction" in (path / "features.json").read_text()


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan])
def test_a_size_that_is_none_is_refused(tmp_path: Path, size: float) -> None:
    store = make_store(tmp_path / "store", range(2))
    with pytest.raises(FlywheelError, match="shard_mb"):
        rlds.export(store, store.snapshot(), tmp_path / "out", shard_mb=size)


@pytest.mark.parametrize("pictures", ["png", "jpeg", "raw"])
def test_pictures_are_copied_as_they_are_stored(tmp_path: Path, pictures: Pictures) -> None:
    store = make_arm(tmp_path / "store", camera=True, count=2, pictures=pictures)
    store.label(["episode-1"], "trim", (1, 3), by="anna")
    path = rlds.export(store, store.snapshot(), tmp_path / "out")
    (shard,) = path.glob("*.tfrecord-*")
    whole, trimmed = (example.parse(record) for record in _records(shard))
    name = "steps/observation/camera"
    stored = [example.parse(store.payload(f"episode-{number}"))[name] for number in range(2)]
    assert example.strings(whole[name]) == example.strings(stored[0])
    assert example.strings(trimmed[name]) == example.strings(stored[1])[1:4]
    assert_equal(decode_episode(_records(shard)[1], store.schema), store.read("episode-1"))

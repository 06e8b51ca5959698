from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets import rlds
from flywheel.datasets.store import EpisodeStore
from tests.datasets.test_schema import EVERY_KIND, every_kind
from tests.point import SCHEMA, episode, make_store


def _change_list(path: Path, changes: dict[str, Any]) -> None:
    """Change fields of dataset_info.json, or those of its split."""
    value = json.loads((path / "dataset_info.json").read_text())
    target = value if changes.keys() & {"fileFormat", "splits"} else value["splits"][0]
    target.update(changes)
    (path / "dataset_info.json").write_text(json.dumps(value))


def test_tfds_reads_every_kind_of_array_exactly(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    store = EpisodeStore.create(tmp_path, "kinds", EVERY_KIND)
    with store.writer() as writer:
        writer.append(every_kind())
    (found,) = rlds.load(store.path).as_dataset(split="train")
    expected = every_kind()
    (steps,) = found["steps"].batch(100)
    for key, value in expected.observation.items():
        np.testing.assert_array_equal(steps["observation"][key].numpy(), value, strict=True)
    for key in ("action", "reward", "discount", "is_first", "is_last", "is_terminal"):
        np.testing.assert_array_equal(steps[key].numpy(), getattr(expected, key), strict=True)
    assert found["episode_metadata"]["started_at_ns"].numpy() == expected.metadata.started_at_ns
    assert found["episode_metadata"]["seed"].numpy() == -1
    assert found["episode_metadata"]["task"].numpy().decode() == "é"


def test_rlds_transformations_work_without_reverb(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    store = make_store(tmp_path, range(3))
    transformations = rlds.transformations()
    assert "reverb" not in sys.modules
    episodes = rlds.load(store.path).as_dataset(split="train")
    steps = transformations.map_nested_steps(episodes, lambda step: {**step, "reward": step["reward"] + 1.0})
    for found, expected in zip(steps, store.episodes(), strict=True):
        total = transformations.sum_dataset(found["steps"], lambda step: step["reward"])
        assert float(total) == pytest.approx(expected.episode_return + len(expected))


def test_fields_of_another_version_do_not_stop_tfds(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    older = {name: kind for name, kind in SCHEMA.metadata.items() if name not in ("operator", "seed")}
    newer = {**SCHEMA.metadata, "weather": "str", "attempt": "int"}
    for number, metadata in enumerate((older, newer)):
        schema = type(SCHEMA)(SCHEMA.observation, SCHEMA.action, metadata)
        with EpisodeStore.create(tmp_path, f"store{number}", schema).writer() as writer:
            writer.append(episode(5))
        store = EpisodeStore.create(tmp_path, f"store{number}", SCHEMA)
        assert store.read("reach-script-00005").metadata == episode(5).metadata
        (found,) = rlds.load(store.path).as_dataset(split="train")
        assert found["episode_metadata"].keys() == metadata.keys()


def test_an_empty_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="holds no episodes yet"):
        rlds.load(EpisodeStore.create(tmp_path, "point", SCHEMA).path)
    with pytest.raises(FlywheelError, match="no TFDS data set"):
        rlds.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"filepathTemplate": "../outside/{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"},
        {"filepathTemplate": "/etc/{DATASET}-{SHARD_INDEX}"},
        {"filepathTemplate": "a/../../{SHARD_INDEX}"},
        {"filepathTemplate": "{DATASET.__class__}-{SHARD_INDEX}"},
        {"filepathTemplate": "{DATASET[0]}-{SHARD_INDEX}"},
        {"filepathTemplate": "{DATASET!r}-{SHARD_INDEX}"},
        {"filepathTemplate": "{SHARD_INDEX:>999999999}"},
        {"filepathTemplate": "{"},
        {"filepathTemplate": 7},
        {"filepath_template": "../{SHARD_INDEX}"},
        {"name": "../../train"},
        {"name": 3},
        {"shardLengths": ["-1"]},
        {"shardLengths": "many"},
        {"fileFormat": "../tfrecord"},
        {"splits": [7]},
    ],
)
def test_a_hostile_list_of_shards_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = make_store(tmp_path, range(2)).path
    rlds.validate(path)
    _change_list(path, changes)
    with pytest.raises(FlywheelError, match="refused"):
        rlds.validate(path)


def test_a_shard_that_links_outside_is_refused(tmp_path: Path) -> None:
    path = make_store(tmp_path, range(2)).path
    (shard,) = path.glob("*.tfrecord-*")
    shard.rename(tmp_path / "outside")
    shard.symlink_to(tmp_path / "outside")
    with pytest.raises(FlywheelError, match="which is outside"):
        rlds.validate(path)


@pytest.mark.parametrize(
    "features",
    [
        {"type": "hostile.Feature", "content": {}},
        {"pythonClassName": "os.path.Feature"},
        {
            "type": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
            "content": '{"pythonClassName": "hostile.Feature"}',
        },
        {
            "type": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
            "content": {"python_class_name": "hostile.Feature"},
        },
        {"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict/../../hostile"},
        {"a": [{"b": {"pythonClassName": "hostile.Feature"}}]},
        {"content": "{"},
        {},
        [],
    ],
)
def test_features_that_name_foreign_classes_are_refused_and_not_imported(tmp_path: Path, features: Any) -> None:
    path = make_store(tmp_path, range(1)).path
    (path / "features.json").write_text(json.dumps(features))
    with pytest.raises(FlywheelError, match="refused"):
        rlds.load(path)
    assert "hostile" not in sys.modules


def test_deep_and_broken_json_is_refused(tmp_path: Path) -> None:
    path = make_store(tmp_path, range(1)).path
    for content in (b"[" * 100_000, b'{"a":' * 200 + b"1" + b"}" * 200, b"\xff\xfe", b"null"):
        (path / "features.json").write_bytes(content)
        with pytest.raises(FlywheelError, match="refused"):
            rlds.validate(path)


def test_importing_the_module_imports_no_tensorflow() -> None:
    code = "import sys, flywheel.datasets.rlds; print('tensorflow' in sys.modules, 'rlds' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == [
        "False",
        "False",
    ]

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.bench.compaction import CompactionConfig, main, make_store, measure
from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore


def test_a_store_has_a_shard_per_episode(tmp_path: Path) -> None:
    info = make_store(tmp_path, 5).info()
    assert (info.shards, info.episodes, info.unsealed) == (5, 5, 0)


def test_many_shards_become_few_beside_writers_and_readers(tmp_path: Path) -> None:
    path = make_store(tmp_path, 60).path
    found = measure(path, 60, processes=2)
    assert found.listed < 60
    assert found.seconds > 0
    assert len(EpisodeStore.open(path).rows()) >= 60 + 2 + len(found.append_beside)


def test_figures_are_kept_run_by_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(CompactionConfig(shards=(8, 16), processes=0, runs=2, folder=tmp_path, output=tmp_path / "figures.json"))
    compactions = json.loads((tmp_path / "figures.json").read_text())["compactions"]
    assert [item["shards"] for item in compactions] == [8, 8, 16, 16]
    assert [item["listed"] for item in compactions] == [1, 1, 1, 1]
    assert "| 16 | 1 |" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_sizes_that_cannot_be_compacted_are_refused() -> None:
    with pytest.raises(FlywheelError, match="--shards"):
        main(CompactionConfig(shards=(1,)))

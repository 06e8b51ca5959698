from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flywheel.bench.append import Figures, measure_rates, measure_seen
from flywheel.bench.append_side import open_store
from flywheel.bench.peers import Side


@pytest.mark.parametrize("kind", ["raw", "file"])
def test_a_side_appends_until_it_is_closed(tmp_path: Path, kind: str) -> None:
    with Side([sys.executable, "-m", "flywheel.bench.append_side", str(tmp_path), kind]) as side:
        assert side.burst(0.01) > 0
    left = list(tmp_path.iterdir())
    assert left == ([] if kind == "file" else [tmp_path / "append_raw"])
    if kind == "raw":
        store = open_store(tmp_path, kind)
        assert len(store.rows()) >= 2
        assert store.info().unsealed == 0


def test_another_process_reads_what_was_acknowledged(tmp_path: Path) -> None:
    assert len(measure_seen(tmp_path, episodes=3)) == 2


def test_ratios_are_taken_round_by_round() -> None:
    figures = Figures({"raw": [8.0, 9.0], "file": [4.0, 3.0]}, {}, [])
    assert figures.ratios() == {"flywheel raw / a raw file + fsync": [2.0, 3.0]}


@pytest.mark.slow
def test_every_side_that_is_installed_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    rates = measure_rates(tmp_path, bursts=1, seconds=0.01)
    assert {"raw", "jpeg", "png", "file", "tfds-jpeg", "tfds-png"} <= rates.keys()
    assert all(len(found) == 1 and found[0] > 0 for found in rates.values())

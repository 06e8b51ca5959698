"""Apache Beam's own local runner over stores: statistics and conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.beam import statistics
from tests.point import make_store

pytest.importorskip("apache_beam")
pytestmark = pytest.mark.interop


def test_statistics_are_numpys(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(150))
    found = statistics(tmp_path)
    expected = {"action": [episode.action[:-1] for episode in store.episodes()]}
    expected["observation/position"] = [episode.observation["position"] for episode in store.episodes()]
    for name, parts in expected.items():
        values = np.concatenate(parts).astype(np.float64)
        assert found[name].count == len(values)
        np.testing.assert_allclose(found[name].mean, values.mean(axis=0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found[name].std, values.std(axis=0), rtol=1e-12)
        np.testing.assert_array_equal(found[name].low, values.min(axis=0))
        np.testing.assert_array_equal(found[name].high, values.max(axis=0))


def test_statistics_of_a_query_on_several_processes(tmp_path: Path) -> None:
    store = make_store(tmp_path, range(130))
    options = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    found = statistics(tmp_path, "success", options)
    assert found["reward"].count == sum(row.length for row in store.rows() if row.success)


def test_an_empty_choice_is_said(tmp_path: Path) -> None:
    make_store(tmp_path, range(3))
    with pytest.raises(FlywheelError, match="holds no such episodes"):
        statistics(tmp_path, "task = 'unknown'")

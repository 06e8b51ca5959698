from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from reproductions.offline_to_online import Config, draw, load, reproduce, table


def test_a_row_is_made_once_from_a_copy_of_the_scripts_store(tmp_path: Path) -> None:
    config = Config(
        "lift",
        "iql",
        logged=4,
        offline_updates=2,
        episodes=20,
        updates_per_step=0.01,
        evaluations=2,
        robot="fake",
        root=tmp_path / "runs",
        results=tmp_path / "results",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flywheel.training.train.code_version", lambda: "the commit that trains")
        (found,) = reproduce(config)
    assert found.machine["code"] == "the commit that trains"
    assert found.logged[0] == 4
    assert found.offline[1] == found.final[1] == 2
    assert [point["episodes"] for point in found.curve["points"]] == [0, 20]
    assert len(EpisodeStore.open(tmp_path / "runs" / "data").rows()) == 4
    assert reproduce(replace(config, robot="none")) == [found] == load(tmp_path / "results")
    with pytest.raises(FlywheelError, match="no robot 'none'"):  # another row, which is not done
        reproduce(replace(config, robot="none", evaluations=4))
    assert len(table([found]).splitlines()) == 3
    assert "iql (flywheel)" in draw([found], "lift")


def test_a_row_that_the_table_lacks_is_refused() -> None:
    with pytest.raises(FlywheelError, match="has no row 'bc'"):
        reproduce(Config("lift", "bc"))

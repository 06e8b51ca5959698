from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.bench.simulation import Result, SimulationConfig, main


def test_ratios_are_of_neighbouring_bursts() -> None:
    result = Result("control steps", [400.0, 200.0, 300.0], [100.0, 40.0, 100.0])
    assert result.ratios == [4.0, 5.0, 3.0]
    assert result.row() == "| control steps | 300.0 (200.0 to 400.0) | 100.0 (40.0 to 100.0) | 4.00 (3.00 to 5.00) |"


@pytest.mark.slow
def test_measures_steps_resets_and_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "figures.json"
    main(SimulationConfig(bursts=1, seconds=0.05, output=output))
    figures = json.loads(output.read_text())
    assert [len(result["ratios"]) for result in figures["results"]] == [1] * 4
    assert figures["differences"]["joints"] == 0.0, "the control step is robosuite's to the bit"
    for camera in ("agentview", "eye_in_hand"):
        mean, share = figures["differences"][camera]
        assert 0 < mean < 4, "simplified meshes, no mirror and no multisampling change little"
        assert share < 0.08
    assert "| control steps, no camera | " in capsys.readouterr().out

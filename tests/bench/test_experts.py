import json
from pathlib import Path

import pytest

from flywheel.bench.experts import ExpertsConfig, main, measure

CONFIG = ExpertsConfig(tasks=("lift",), robots=("fake",), imperfections=(0.0,), episodes=3)


def test_counts_the_successes_of_a_script() -> None:
    result = measure(CONFIG, "lift", "fake", 0.0)
    assert (result.successes, result.episodes, result.first_seed) == (3, 3, 30_000_000)
    assert result.steps is not None
    assert 0 < result.steps < 80


def test_a_table_and_a_file_that_is_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "experts.json"
    config = ExpertsConfig(tasks=("lift",), robots=("fake",), imperfections=(0.0,), episodes=3, output=path)
    main(config)
    assert "| lift | fake | 3 of 3 (44% to 100%) |" in capsys.readouterr().out
    content = json.loads(path.read_text())
    content["results"][0]["successes"] = 1  # what is there is not run again
    path.write_text(json.dumps(content))
    main(config)
    assert "| lift | fake | 1 of 3" in capsys.readouterr().out

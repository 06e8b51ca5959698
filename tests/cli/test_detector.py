from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.cli.label import BackgroundRetraining, LabelConfig, open_session
from flywheel.cli.main import main
from flywheel.core.errors import FlywheelError
from flywheel.detector import SuccessDetector
from flywheel.training.detector import load_config
from tests.lamp import make_store

SETTINGS = (
    *("--updates", "4", "--batch-size", "8", "--held-out", "0.4", "--pictures.network", "impala", "--hidden", "8"),
    *("--pictures.pooling", "average"),
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A detector that learned next to nothing, beside its store in data."""
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "data", seeds=range(20))
    main(["detector", "train", "--store", "data", "--output", "run", *SETTINGS])
    output = capsys.readouterr().out
    assert "balanced" in output
    assert "is in run" in output
    return tmp_path / "run"


def test_train_label_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(run.parent / "data", seeds=range(0))
    name = SuccessDetector.load(run).name
    store.label(["red-0000"], "success", True, by="anna")
    main(["detector", "label", "--detector", "run", "--store", "data", "--where", "task = 'red'"])
    assert "1 that a person labelled were left alone" in capsys.readouterr().out
    by = {row.episode_id: row.success_detector for row in store.rows()}
    assert (by["red-0000"], by["red-0001"], by["blue-0001"]) == ("anna", name, "lamp-1")
    main(["detector", "report", "run"])
    assert f"{name} sees camera 20 x 20" in capsys.readouterr().out


def test_a_session_needs_pictures_and_something_to_label(run: Path) -> None:
    store = make_store(run.parent / "data", seeds=range(0))
    rows = store.rows()
    store.label([row.episode_id for row in rows], "success", True, by="anna")
    with pytest.raises(FlywheelError, match="--again"):
        open_session(LabelConfig(Path("data")))
    session = open_session(LabelConfig(Path("data"), run, again=True, operator="bert"))
    assert session.state()["total"] == len(rows)
    assert session.state()["episode"]["opinion"] is not None
    with pytest.raises(FlywheelError, match="needs the run folder"):
        open_session(LabelConfig(Path("data"), again=True, retrain_after=2))
    make_store(run.parent / "other", seeds=range(2))
    with pytest.raises(FlywheelError, match="did not learn from"):
        open_session(LabelConfig(Path("other"), run, retrain_after=2))


@pytest.mark.slow
def test_retraining_goes_on_beside_the_person(run: Path) -> None:
    retraining = BackgroundRetraining(load_config(run / "config.yaml"))
    retraining.start()
    assert retraining._process is not None
    retraining._process.join()
    after = retraining.poll()
    assert after is not None
    assert after.header.parent == SuccessDetector.load(run).checkpoint
    assert (run.parent / "run-2" / "detector.safetensors").exists()
    assert retraining.poll() is None

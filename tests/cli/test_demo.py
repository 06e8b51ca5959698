"""The whole loop, small and on the kinematic arm: every stage runs, the report and the summary say what happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.cli import demo
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy

_SIZES = (
    "--robot fake --processes 1 --episodes 12 --own-episodes 5 --evaluation-episodes 4 --pretrain-updates 50 "
    "--goal-bc-updates 50 --rounds 2"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo")
    demo.run([*_SIZES.split(), "--offline-updates", "50", "--online-updates", "50", "--output", str(output)])
    return output


def test_the_summary_has_every_result_with_its_interval(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    for name in ("logging", "pretrained", "goal_bc", "offline", "final"):
        low, high = summary[name]["ci95"]
        assert 0 <= low <= summary[name]["success"] <= high <= 1
    assert summary["final"]["episodes"] == 4
    assert summary["wall_seconds"] >= max(summary["stages"].values())
    store = EpisodeStore.open(folder / "store")
    assert summary["store"] == {
        "episodes": 22,
        "steps": sum(row.length for row in store.rows()),
        "snapshot": store.snapshot().hash,
    }


def test_lineage_leads_from_the_final_policy_to_the_script(folder: Path) -> None:
    runs = ("pretrain", "offline", "online-1", "online-2")
    pretrained, offline, first, second = policies = [LearnedPolicy.load(folder / run) for run in runs]
    assert [policy.header.parent for policy in policies] == ["", *(policy.checkpoint for policy in policies[:-1])]
    assert len({policy.snapshot for policy in policies}) == 3
    assert offline.snapshot == pretrained.snapshot
    own = [row for row in EpisodeStore.open(folder / "store").rows() if row.policy_checkpoint]
    assert {row.policy_checkpoint for row in own} == {offline.checkpoint, first.checkpoint}
    assert {row.policy_snapshot for row in own} == {offline.snapshot, first.snapshot}
    report = (folder / "report.html").read_text()
    for policy in (pretrained, offline, first, second):
        assert policy.checkpoint in report
        assert policy.snapshot in report


def test_no_evaluation_seed_is_in_the_store(folder: Path) -> None:
    trained = {row.seed for row in EpisodeStore.open(folder / "store").rows()}
    evaluated = {
        result["seed"]
        for path in folder.glob("evaluations/*/evaluation.json")
        for result in json.loads(path.read_text())["results"]
    }
    assert evaluated
    assert not trained & evaluated


def test_started_again_it_does_nothing_twice(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.glob("**/policy.safetensors")}
    demo.run([*_SIZES.split(), "--offline-updates", "50", "--online-updates", "50", "--output", str(folder)])
    assert {path: path.read_bytes() for path in folder.glob("**/policy.safetensors")} == before
    assert len(EpisodeStore.open(folder / "store").rows()) == 22

"""From a demo's folder to summary.json and report.html: every figure is read from what the stages left there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from flywheel.bench.machine import describe
from flywheel.core.files import write_atomically
from flywheel.core.lineage import code_version
from flywheel.datasets.index import IndexRow
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy
from flywheel.report.page import Comparison, Curve, Growth, LineageStep, Report, Result, VideoPair, render
from flywheel.rollout.results import Evaluation, compare
from flywheel.training.callbacks import read_metrics

_LABELS = {
    "logging": ("Logging policy (script)", "the imperfect script that collected the first episodes"),
    "goal_bc": ("Goal-conditioned BC", "the baseline: hindsight behaviour cloning, given held-out goals to reach"),
    "pretrained": ("Pretrained, goals only", "Actionable Models without any reward, given held-out goals to reach"),
    "offline": ("Offline finetuned", "IQL from the pretrained networks, on the script's episodes"),
    "final": ("Final (after its own episodes)", "IQL on the store that now also holds the policy's own episodes"),
}
_RUNS = {"pretrain": "Actionable Models", "goal-bc": "Goal-conditioned BC", "offline": "IQL, offline"}


@dataclass(frozen=True)
class Demo:
    """What a demo has left behind."""

    folder: Path
    store: Path
    evaluations: dict[str, Evaluation]
    """By the names of `_LABELS`."""
    rounds: int
    """How often the policy collected and was finetuned on what it made."""
    stages: dict[str, float]
    """Seconds per stage."""
    wall_seconds: float

    @property
    def runs(self) -> dict[str, str]:
        """What every run is called, in order."""
        online = {run: f"IQL, online, round {number}" for number, run in enumerate(tuned_runs(self.rounds)[1:], start=1)}
        return {**_RUNS, **online}


def tuned_runs(rounds: int) -> list[str]:
    """The run folders of the finetuned policies, in order."""
    return ["offline", *(f"online-{number}" for number in range(1, rounds + 1))]


def write_report(demo: Demo) -> Path:
    """Write summary.json and report.html into the demo's folder; returns the report's path."""
    rows = sorted(EpisodeStore.open(demo.store).rows(), key=lambda row: row.started_at_ns)
    write_atomically(demo.folder / "summary.json", json.dumps(_summary(demo, rows), indent=1).encode())
    path = demo.folder / "report.html"
    write_atomically(path, render(_report(demo, rows)).encode())
    return path


def _summary(demo: Demo, rows: list[IndexRow]) -> dict[str, Any]:
    def result(name: str) -> dict[str, Any]:
        evaluation = demo.evaluations[name]
        return {
            "success": evaluation.success,
            "ci95": list(evaluation.ci95),
            "episodes": len(evaluation.results),
            "mean_length": evaluation.mean_length,
            "checkpoint": evaluation.policy,
        }

    final, logging = demo.evaluations["final"], demo.evaluations["logging"]
    return {
        **{name: result(name) for name in _LABELS},
        "comparison": {"final_against_logging": compare(final, logging).to_json()},
        "wall_seconds": demo.wall_seconds,
        "stages": {name: seconds for name, seconds in demo.stages.items() if name != "all"},
        "store": {
            "episodes": len(rows),
            "steps": sum(row.length for row in rows),
            "snapshot": EpisodeStore.open(demo.store).snapshot().hash,
        },
        "code_version": code_version(),
        "machine": describe(),
    }


def _report(demo: Demo, rows: list[IndexRow]) -> Report:
    return Report(
        title="One turn of the flywheel",
        created=time.strftime("%Y-%m-%d %H:%M"),
        results=[_result(name, evaluation) for name, evaluation in _ordered(demo)],
        comparisons=[_comparison(demo, "final", "logging"), _comparison(demo, "pretrained", "goal_bc")],
        videos=_videos(demo),
        video_note=_video_note(demo),
        growth=list(_growth(rows)),
        curves=[Curve(label, read_metrics(demo.folder / run / "metrics.csv")) for run, label in demo.runs.items()],
        lineage=list(_lineage(demo, rows)),
        stages=[(name, seconds) for name, seconds in demo.stages.items() if name != "all"],
        machine={**describe(), "code": code_version()},
        store={
            "episodes": f"{len(rows):,}",
            "steps": f"{sum(row.length for row in rows):,}",
            "snapshot": EpisodeStore.open(demo.store).snapshot().hash,
        },
    )


def _ordered(demo: Demo) -> list[tuple[str, Evaluation]]:
    return [(name, demo.evaluations[name]) for name in _LABELS]


def _result(name: str, evaluation: Evaluation) -> Result:
    label, description = _LABELS[name]
    low, high = evaluation.ci95
    checkpoint = "" if evaluation.policy == "expert" else evaluation.policy
    return Result(
        label, description, evaluation.successes, len(evaluation.results), low, high, evaluation.mean_length, checkpoint
    )


def _comparison(demo: Demo, name: str, baseline: str) -> Comparison:
    pair = compare(demo.evaluations[name], demo.evaluations[baseline])
    difference = pair.difference
    return Comparison(
        label=_LABELS[name][0],
        baseline=_LABELS[baseline][0],
        difference=difference.difference,
        low=difference.ci95[0],
        high=difference.ci95[1],
        p_value=pair.p_value,
        both=pair.both,
        only_first=pair.only_a,
        only_second=pair.only_b,
        neither=pair.neither,
    )


def _videos(demo: Demo) -> list[VideoPair]:
    pairs = []
    for before, after in zip(demo.evaluations["logging"].results, demo.evaluations["final"].results, strict=False):
        if before.video or after.video or before.video_problem:
            names = (("logging", before), ("final", after))
            paths = [demo.folder / "evaluations" / name / item.video if item.video else None for name, item in names]
            labels = [f"{_LABELS[name][0]}: {'success' if item.success else 'failure'}" for name, item in names]
            pairs.append(VideoPair(f"Initial state {before.seed}", labels[0], paths[0], labels[1], paths[1]))
    return pairs


def _video_note(demo: Demo) -> str:
    problems = [
        item.video_problem for evaluation in demo.evaluations.values() for item in evaluation.results if item.video_problem
    ]
    return problems[0] if problems else ""


def _growth(rows: list[IndexRow]) -> Iterator[Growth]:
    for agent, group in groupby(rows, key=lambda row: row.agent_id):
        items = list(group)
        yield Growth(agent, len(items), sum(row.success for row in items), sum(row.length for row in items))


def _lineage(demo: Demo, rows: list[IndexRow]) -> Iterator[LineageStep]:
    """Which checkpoint made which episodes from which snapshot, in the order in which it happened."""
    yield _episodes(rows, "")
    tuned = tuned_runs(demo.rounds)
    for run in ("pretrain", *tuned):
        policy = LearnedPolicy.load(demo.folder / run)
        if run != "offline":  # which learns from the snapshot that was pretrained on
            snapshot = Snapshot.load(demo.folder / run / "snapshot.json")
            yield LineageStep("snapshot", f"{len(snapshot.entries)} episodes", snapshot.hash, "the store as the run pinned it")
        detail = f"{policy.header.updates:,} updates, from snapshot {policy.snapshot[:8]}"
        yield LineageStep("checkpoint", demo.runs[run], policy.checkpoint, detail)
        if run in tuned[:-1]:
            yield _episodes(rows, policy.checkpoint)


def _episodes(rows: list[IndexRow], checkpoint: str) -> LineageStep:
    made = [row for row in rows if row.policy_checkpoint == checkpoint]
    maker, successes = (made[0].agent_id if made else "nobody"), sum(row.success for row in made)
    return LineageStep("episodes", f"{len(made)} episodes", checkpoint, f"made by {maker}, {successes} successes")

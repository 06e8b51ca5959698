"""flywheel detector: learn to tell success by pictures, and label episodes with what was learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape

from flywheel.cli.console import console, progress, say
from flywheel.cli.store_common import make_table
from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.detector import SuccessDetector
from flywheel.labelling.verdicts import label_episodes
from flywheel.training.detector import DetectorConfig, train_detector
from flywheel.training.held_out import RELIABILITY_FILE

_PATIENCE = 2.0


def train(config: Annotated[DetectorConfig, tyro.conf.arg(name="")]) -> None:
    """Train a success detector on labelled episodes with pictures, and measure it on episodes that it never saw.

    A run that was interrupted goes on when the same command is given again.
    """
    with progress("Reading pictures", "episodes", after=_PATIENCE) as reading, progress("Training", "updates") as training:
        detector = train_detector(config, training, reading)
    _print_measured(detector)
    say(f"Detector {detector.name} is in {config.output}; {config.output / RELIABILITY_FILE} shows how reliable it is.")


def label(detector: Path, store: Path, where: str = "", threshold: float = 0.5, override: bool = False) -> None:
    """Label episodes as a detector judges their final pictures; what a person said stands, and every label can be undone.

    Args:
        detector: The detector's run folder, or its file.
        store: The store's folder, or a root that holds one store.
        where: Label only episodes for which this holds, as in 'flywheel store query'.
        threshold: The probability from which on an episode is a success.
        override: Judge episodes that a person labelled, too.
    """
    judge, opened = SuccessDetector.load(detector), EpisodeStore.open(store)
    rows = opened.query(where) if where else opened.rows()
    if not rows:
        raise FlywheelError(f"No episode of {opened.path} is to be labelled; 'flywheel store query' shows what there is.")
    with progress("Judging", "episodes", after=_PATIENCE) as report:
        found = label_episodes(opened, judge, rows, threshold=threshold, override=override, on_progress=report)
    kept = f" {found.kept:,} that a person labelled were left alone." if found.kept else ""
    say(f"{judge.name} accepts {found.accepted:,} episodes and refuses {found.refused:,}; {found.changed:,} changed.{kept}")


def report(detector: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]) -> None:
    """Show how a detector did on episodes that it never saw.

    Args:
        detector: The detector's run folder, or its file.
    """
    judge = SuccessDetector.load(detector)
    _print_measured(judge)
    seen = ", ".join(f"{name} {height} x {width}" for name, (height, width, _) in judge.header.cameras.items())
    say(f"{judge.name} sees {seen}, has had {judge.header.updates:,} updates, and scales by {judge.header.scale:.2f}.")


def _print_measured(detector: SuccessDetector) -> None:
    measured = detector.header.measured
    table = make_table(
        "task",
        "held out >",
        "successes >",
        "missed >",
        "false alarms >",
        "balanced accuracy >",
        "calibration error >",
        "refused >",
    )
    for name, values in {**measured["tasks"], "all": measured["all"]}.items():
        counts = (f"{values[key]:,}" for key in ("count", "successes", "missed", "false_alarms"))
        shares = (_percent(values["balanced_accuracy"]), _number(values["calibration_error"]), _percent(values["refused"]))
        table.add_row(escape(name), *counts, *shares)
    console.print(table)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


SUBCOMMANDS = {"train": train, "label": label, "report": report}

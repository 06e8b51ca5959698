"""A detector's verdicts as labels: which episodes of a store ended in success. What a person said stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flywheel.core.errors import FlywheelError
from flywheel.datasets.index import IndexRow
from flywheel.datasets.label_log import standing
from flywheel.datasets.labels import Label
from flywheel.datasets.moments import check_cameras
from flywheel.datasets.store import EpisodeStore
from flywheel.detector import SuccessDetector, is_detector


@dataclass(frozen=True)
class Verdicts:
    """What a detector said, as counts of episodes."""

    accepted: int
    refused: int
    changed: int
    """How many of those were labelled or recorded otherwise before."""
    kept: int
    """How many have a person's label, which was left alone."""


def label_episodes(
    store: EpisodeStore,
    detector: SuccessDetector,
    rows: Sequence[IndexRow],
    *,
    threshold: float = 0.5,
    override: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verdicts:
    """Label episodes as successes where the detector gives them at least `threshold`, else as failures.

    Doing it again adds nothing. `override` judges those that a person labelled, too. Raises `FlywheelError` for cameras or tasks
    that do not fit, before anything is labelled.
    """
    if not 0.0 < threshold < 1.0:
        raise FlywheelError(f"The threshold is a probability between 0 and 1, not {threshold}.")
    check_cameras(store, detector.header.cameras)
    for task in sorted({row.task for row in rows}):
        detector.check_task(task)
    judged = [row for row in rows if override or not labelled_by_person(store, row)]
    found = []
    for done, row in enumerate(judged, start=1):
        found.append(detector.judge(store, row))
        on_progress(done, len(judged))
    labels: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for row, probability in zip(judged, found, strict=True):
        success = probability >= threshold
        if (row.success, row.success_detector) != (success, detector.name):
            labels[success, f"p = {probability:.2f}"].append(row.episode_id)
    for (success, reason), episode_ids in labels.items():
        store.label(episode_ids, "success", success, by=detector.name, reason=reason)
    accepted = sum(probability >= threshold for probability in found)
    changed = sum(row.success != (p >= threshold) for row, p in zip(judged, found, strict=True))
    return Verdicts(accepted, len(found) - accepted, changed, len(rows) - len(judged))


def success_label(store: EpisodeStore, row: IndexRow) -> Label | None:
    """The label that says whether an episode succeeded; None where what was recorded holds."""
    given = standing(store.history(row.episode_id), "success") if row.labels else []
    return given[-1] if given and given[-1].value is not None else None


def labelled_by_person(store: EpisodeStore, row: IndexRow) -> bool:
    """Whether anyone but a detector labelled an episode's success, or its operator said so while it was recorded."""
    label = success_label(store, row)
    if label is not None:
        return not is_detector(label.by)
    return bool(row.operator) and row.success_detector == row.operator

"""Which episode a person is asked about next: the one that the detector is least sure of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from flywheel.datasets.index import IndexRow
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamagedError
from flywheel.detector import SuccessDetector

Opinions = dict[str, float]
"""By episode: how likely a detector thinks that it succeeded."""


def form_opinions(
    store: EpisodeStore,
    detector: SuccessDetector,
    rows: Sequence[IndexRow],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Opinions:
    """The detector's opinion of each episode; of a task that it has not learned, and of a damaged record, it has none."""
    found = {}
    for done, row in enumerate(rows, start=1):
        if row.task in detector.header.tasks:
            with suppress(DamagedError):  # it is skipped where it would be shown, too, and says why there
                found[row.episode_id] = detector.judge(store, row)
        on_progress(done, len(rows))
    return found


def arrange(episode_ids: Sequence[str], opinions: Opinions, seed: int) -> list[str]:
    """The episodes that the detector is least sure of first; those of which there is no opinion last, in an order by seed."""
    shuffled = [episode_ids[place] for place in np.random.default_rng(seed).permutation(len(episode_ids))]
    return sorted(shuffled, key=lambda name: abs(opinions[name] - 0.5) if name in opinions else 1.0)

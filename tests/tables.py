"""Episode tables for tests: episodes of given lengths lie in the columns in a shuffled order with gaps between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from flywheel.datasets.table import EpisodeTable

lengths = st.lists(st.one_of(st.just(1), st.integers(1, 8), st.integers(200, 900)), min_size=1, max_size=12)
"""Transitions per episode: single ones, short ones and long ones together."""


def make_table(transitions: Sequence[int], seed: int = 0) -> EpisodeTable:
    """A table of episodes with these numbers of transitions."""
    rng = np.random.default_rng(seed)
    count = len(transitions)
    start, row = np.zeros(count, np.int64), 3
    for episode in rng.permutation(count):
        start[episode] = row
        row += transitions[episode] + 1 + int(rng.integers(4))
    return EpisodeTable(
        episode_id=tuple(f"e{number}" for number in range(count)),
        start=start,
        transitions=np.array(transitions, np.int64),
        success=rng.random(count) < 0.5,
        terminal=rng.random(count) < 0.5,
        episode_return=rng.random(count),
        task=np.where(rng.random(count) < 0.5, "lift", "stack"),
    )


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's statistic in standard deviations from its mean: near 0 if `counts` follow `expected`, far above 5 if not."""
    used = expected > 0
    assert counts[~used].sum() == 0
    freedom = used.sum() - 1
    statistic = ((counts[used] - expected[used]) ** 2 / expected[used]).sum()
    return float((statistic - freedom) / np.sqrt(2 * max(freedom, 1)))

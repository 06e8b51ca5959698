"""Whether probabilities mean what they say: the temperature that makes them so, and how far they are from it.

Temperature scaling and the expected calibration error are those of Guo et al. 2017 (arXiv 1706.04599); the targets that the
temperature is fitted to are softened as Platt 1999 does, so that a set without a single mistake does not ask for certainty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BINS = 15
_TEMPERATURES = np.geomspace(0.25, 16.0, 1201)


@dataclass(frozen=True)
class Bin:
    """Predictions of about the same probability."""

    count: int
    mean: float
    """Their mean probability of success."""
    share: float
    """The share of them that are successes."""


def fit_temperature(logits: Floats, success: Bools) -> float:
    """What to divide logits (N,) by, so that they are least surprised by the outcomes (N,); 1 where there are none.

    In [0.25, 16]; both outcomes weigh the same together, as they do while learning.
    """
    positives, negatives = int(success.sum()), int((~success).sum())
    if not positives or not negatives:
        return 1.0
    target = np.where(success, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    weight = np.where(success, 0.5 / positives, 0.5 / negatives)
    scaled = logits / _TEMPERATURES[:, None]
    losses = (weight * (np.logaddexp(0.0, scaled) - target * scaled)).sum(axis=1)
    return float(_TEMPERATURES[losses.argmin()])


def calibration_error(probability: Floats, success: Bools, *, adaptive: bool = False) -> float:
    """The mean distance of probability and share over 15 bins, weighted by their counts; NaN without predictions.

    The bins are equally wide, or with `adaptive` hold equally many predictions.
    """
    total = len(probability)
    found = bins(probability, success, adaptive=adaptive)
    return float(sum(part.count * abs(part.mean - part.share) for part in found) / total) if total else float("nan")


def bins(probability: Floats, success: Bools, *, adaptive: bool = False) -> list[Bin]:
    """The bins that hold any prediction, from 0 to 1."""
    return [
        Bin(len(part), float(probability[part].mean()), float(success[part].mean()))
        for part in _parts(probability, adaptive)
        if len(part)
    ]


def balanced_accuracy(probability: Floats, success: Bools) -> float:
    """The mean of the shares of successes and of failures that are told as such at a threshold of 0.5; NaN without either."""
    if not success.any() or success.all():
        return float("nan")
    accepted = probability >= 0.5
    return float((accepted[success].mean() + (~accepted[~success]).mean()) / 2)


def measure(probability: Floats, success: Bools) -> dict[str, Any]:
    """Everything of the above about N predictions, as plain numbers; what is undefined is None."""
    accepted = probability >= 0.5
    values: dict[str, Any] = {
        "count": len(success),
        "successes": int(success.sum()),
        "missed": int((~accepted & success).sum()),
        "false_alarms": int((accepted & ~success).sum()),
        "balanced_accuracy": balanced_accuracy(probability, success),
        "calibration_error": calibration_error(probability, success),
        "adaptive_calibration_error": calibration_error(probability, success, adaptive=True),
    }
    return {name: None if value != value else value for name, value in values.items()}


def _parts(probability: Floats, adaptive: bool) -> Iterator[NDArray[np.intp]]:
    if adaptive:
        yield from np.array_split(np.argsort(probability, kind="stable"), BINS)
    else:
        place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
        yield from (np.flatnonzero(place == number) for number in range(BINS))

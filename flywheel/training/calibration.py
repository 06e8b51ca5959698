"""Whether probabilities mean what they say: the scale and offsets that make them so, and how far they are from it.

Logits z of a task k become s z + b_k, as Platt 1999 has it with one scale for all tasks. A temperature alone (Guo et al. 2017,
arXiv 1706.04599) leaves successes in doubt where failures are easier to tell than they. Normal priors, of standard deviation 1 on
s - 1 and 3 on each b_k, keep few outcomes, or a set without a single mistake, from asking for certainty. The calibration error is
Guo's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

BINS = 15
_SPREAD = 3.0
"""The standard deviation of an offset's prior."""
_STEPS = 200
"""Of the fit, at most; it takes about ten."""


@dataclass(frozen=True)
class Bin:
    """Predictions of about the same probability."""

    count: int
    mean: float
    """Their mean probability of success."""
    share: float
    """The share of them that are successes."""


@dataclass(frozen=True)
class Calibration:
    """What makes a logit of some task a probability that means what it says."""

    scale: float
    offsets: tuple[float, ...]
    """Of each task."""

    def probability(self, logits: Floats, task: Ints) -> Floats:
        """(N,) logits of the tasks with these numbers (N,) -> (N,) in [0, 1]."""
        calibrated = self.scale * logits + np.array(self.offsets)[task]
        probability: Floats = np.exp(-np.logaddexp(0.0, -calibrated))
        return probability


def calibrate(logits: Floats, success: Bools, task: Ints, tasks: int) -> Calibration:
    """The likeliest calibration of so many tasks, given logits, outcomes and tasks' numbers (N,); none change nothing."""
    values, outcomes, which = torch.from_numpy(logits), torch.from_numpy(success).double(), torch.from_numpy(task)
    stretch = torch.zeros((), dtype=torch.double, requires_grad=True)  # s - 1
    offsets = torch.zeros(tasks, dtype=torch.double, requires_grad=True)
    search = torch.optim.LBFGS([stretch, offsets], max_iter=_STEPS, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def surprise() -> torch.Tensor:
        search.zero_grad()
        calibrated = (1.0 + stretch) * values + offsets[which]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(calibrated, outcomes, reduction="sum")
        loss = loss + 0.5 * (stretch.square() + (offsets / _SPREAD).square().sum())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    search.step(surprise)  # type: ignore[no-untyped-call]
    return Calibration(1.0 + stretch.item(), tuple(offsets.tolist()))


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

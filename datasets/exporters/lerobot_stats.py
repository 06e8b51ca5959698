"""The statistics of LeRobot's stats.json: per feature, with which its policies normalise.

Minimum, maximum, mean and deviation are exact over all frames. As in LeRobot, a quantile of all is the mean of the episodes'
quantiles weighted by their lengths, and pictures count as numbers in [0, 1] per channel, from at most 100 frames of an episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel.core.specs import Array

Stats = dict[str, npt.NDArray[np.float64]]
"""min, max, mean, std, q01, q10, q50, q90 and q99, each of the feature's shape, or (C, 1, 1) for pictures; count, (1,)."""
_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_MOST_FRAMES = 100


def array_stats(values: Array) -> Stats:
    """Of an episode's numbers, (T, *shape)."""
    numbers = values.astype(np.float64).reshape(len(values), *(values.shape[1:] or (1,)))
    quantiles = np.quantile(numbers, list(_QUANTILES.values()), axis=0)
    return {
        "min": numbers.min(axis=0),
        "max": numbers.max(axis=0),
        "mean": numbers.mean(axis=0),
        "std": numbers.std(axis=0),
        "count": np.array([float(len(numbers))]),
        **dict(zip(_QUANTILES, quantiles, strict=True)),
    }


def picture_stats(frames: Array) -> Stats:
    """Of an episode's pictures, (T, H, W, C) uint8, from a histogram per channel."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(len(frames), _MOST_FRAMES)).round().astype(int)]
    counts = np.stack([np.bincount(channel.reshape(-1), minlength=256) for channel in np.moveaxis(chosen, -1, 0)])
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    below = share.cumsum(axis=1)
    stats = {
        "min": levels[(counts > 0).argmax(axis=1)],
        "max": levels[255 - (counts[:, ::-1] > 0).argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1)),
        **{name: levels[(below >= quantile).argmax(axis=1)] for name, quantile in _QUANTILES.items()},
    }
    return {name: value[:, None, None] for name, value in stats.items()} | {"count": np.array([float(len(chosen))])}


class Summary:
    """The statistics of all episodes, one added at a time."""

    def __init__(self) -> None:
        self._stats: dict[str, Stats] = {}

    def add(self, episode: Mapping[str, Stats]) -> None:
        """Take in an episode's statistics."""
        for name, stats in episode.items():
            self._stats[name] = _merge(self._stats[name], stats) if name in self._stats else stats

    def to_json(self) -> dict[str, Any]:
        """The content of stats.json."""
        return {name: to_lists(stats) for name, stats in self._stats.items()}


def to_lists(stats: Stats) -> dict[str, Any]:
    """The statistics as lists; the count is an integer."""
    return {key: value.astype(np.int64).tolist() if key == "count" else value.tolist() for key, value in stats.items()}


def _merge(all_of: Stats, new: Stats) -> Stats:
    total = all_of["count"] + new["count"]
    weight = float((new["count"] / total)[0])

    def blend(old: Array, added: Array) -> npt.NDArray[np.float64]:
        blended: npt.NDArray[np.float64] = old + (added - old) * weight
        return blended

    distance = new["mean"] - all_of["mean"]
    variance = blend(all_of["std"] ** 2, new["std"] ** 2) + weight * (1 - weight) * distance**2
    return {
        "min": np.minimum(all_of["min"], new["min"]),
        "max": np.maximum(all_of["max"], new["max"]),
        "mean": blend(all_of["mean"], new["mean"]),
        "std": np.sqrt(variance),
        "count": total,
        **{name: blend(all_of[name], new[name]) for name in _QUANTILES},
    }

"""A success detector's reliability: what share of its predictions comes true, for each probability that it gives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flywheel.report.plots import GRID, INK, MUTED, PALETTE

_BINS = 15
_STYLE: Any = {"text.parse_math": False, "font.size": 9, "axes.edgecolor": GRID, "text.color": INK, "axes.labelcolor": MUTED}


def write_reliability(
    path: Path, probability: NDArray[np.float64], success: NDArray[np.bool_], task: NDArray[np.int64], tasks: Sequence[str]
) -> None:
    """Draw the reliability diagram of N predictions as a PNG, and beside it every prediction by task; whole or not at all.

    Args:
        path: Where to.
        probability: (N,) of success.
        success: (N,) whether it was one.
        task: (N,) the numbers of their tasks.
        tasks: The tasks' names.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.0, max(3.6, 0.42 * len(tasks) + 1.2)), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
        _draw_diagram(left, probability, success)
        _draw_predictions(right, probability, success, task, tasks)
        for axes in (left, right):
            axes.set_xlim(-0.02, 1.02)
            axes.set_xlabel("predicted probability of success")
            axes.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        figure.savefig(temporary, format="png", dpi=120)
    temporary.replace(path)


def _draw_diagram(axes: Axes, probability: NDArray[np.float64], success: NDArray[np.bool_]) -> None:
    """A dot for each bin at its mean probability and share of successes, the larger the more predictions it holds."""
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    place = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    for number in np.unique(place):
        own = place == number
        mean, share = float(probability[own].mean()), float(success[own].mean())
        axes.plot([mean, mean], [mean, share], color=PALETTE[1], linewidth=2, alpha=0.5)
        size = 4 + 14 * float(np.sqrt(own.mean()))
        axes.plot(mean, share, "o", color=PALETTE[0], markersize=size, alpha=0.85, clip_on=False)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("share of successes")
    axes.set_title(f"Reliability, {len(success):,} held-out episodes", loc="left")
    axes.grid(color=GRID, linewidth=0.5)


def _draw_predictions(
    axes: Axes, probability: NDArray[np.float64], success: NDArray[np.bool_], task: NDArray[np.int64], tasks: Sequence[str]
) -> None:
    """Each task's predictions on a line of its own: successes above it, failures below."""
    axes.axvline(0.5, color=MUTED, linewidth=1, linestyle="--")
    for outcome, colour, name, shift in ((True, PALETTE[0], "success", -0.16), (False, PALETTE[1], "failure", 0.16)):
        own = success == outcome
        axes.plot(
            probability[own], task[own] + shift, "|", color=colour, markersize=9, markeredgewidth=1.6, label=name, alpha=0.7
        )
    axes.set_yticks(range(len(tasks)), tasks)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_title("Every prediction", loc="left")
    axes.legend(loc="upper center", ncols=2, frameon=False)
    axes.grid(axis="y", color=GRID, linewidth=0.5)

"""Success over the episodes that a policy collected while it learned: a figure in a file of its own."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from flywheel.report.plots import GRID, INK, MUTED, PALETTE


@dataclass(frozen=True)
class Line:
    """One policy's way."""

    name: str
    points: Sequence[tuple[int, float, float, float]]
    """(episodes, success, and the 95 % interval's low and high end), each share in [0, 1]."""


def learning_curve(lines: Sequence[Line], title: str) -> str:
    """An SVG: each line with its intervals, its name beside the plot, and a thin level where it began, so that a dip is seen."""
    look: Any = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 11, "text.color": INK, "axes.labelcolor": MUTED}
    with mpl.rc_context({**look, "text.parse_math": False, "xtick.color": MUTED, "ytick.color": MUTED}):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for number, line in enumerate(lines):
            colour, style = PALETTE[number % len(PALETTE)], "--" if number >= len(PALETTE) else "-"
            episodes, success, low, high = zip(*line.points, strict=True)
            axes.axhline(success[0], color=colour, linewidth=0.7, linestyle=":")
            axes.fill_between(episodes, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(episodes, success, color=colour, linewidth=2, linestyle=style, marker="o", markersize=4, label=line.name)
        axes.set_ylim(0, 1.03)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.set_xlabel("episodes collected online")
        axes.set_title(title, loc="left")
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(frameon=False, loc="outside right upper")  # beside the lines, which may end anywhere
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()

"""The report's figures as inline SVG: their colours are the page's, light or dark, and their text stays text.

Every figure is drawn for a width in CSS pixels, so that letters keep their size on a phone: draw it twice, show one.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

if TYPE_CHECKING:
    from flywheel.report.page import Curve, Growth, Result

Floats = NDArray[np.float64]

INK, MUTED, GRID = "#101010", "#707070", "#d0d0d0"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours told apart with any colour vision (Okabe and Ito 2008); blue first, vermillion second."""
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", **{colour: f"c{i}" for i, colour in enumerate(PALETTE)}}
"""Drawn colour to CSS variable; the page gives each its value for light, dark and print."""

_SIZE = 13
"""Letters in CSS pixels, which are the figure's points."""
_EM = 0.58
"""A sans-serif letter's mean width over its size; the browser's font is not known here."""
UNKNOWN = "unknown"
"""What stands for a number that is not finite."""
_NARROW = 500
_ROUNDS_SHOWN = 12
_STRETCHES = 300
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a policy's name is a dollar sign
    "font.size": _SIZE,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def forest(results: Sequence[Result], name: str, width: int) -> str:
    """Success rates as dots on their 95 % intervals, one row each; `name` makes the ids unique within the page."""
    narrow = width < _NARROW
    row = 66 if narrow else 50
    with _canvas(name, width, row * len(results)) as (figure, axes):
        for i, result in enumerate(results):
            colour = PALETTE[0] if i == len(results) - 1 else PALETTE[1] if i == 0 else MUTED
            top, line = i * row, (i + 1) * row - 16
            counts = f"{result.successes} of {result.episodes}, interval {interval(result.low, result.high)}"
            axes.text(0, top + 16, elide(result.label, 0.85 * (width if narrow else width - 300)), weight="bold")
            axes.text(0 if narrow else 1, top + (33 if narrow else 16), counts, color=MUTED, ha="left" if narrow else "right")
            axes.plot([0, 1], [line, line], color=GRID, linewidth=1)
            if result.episodes:
                band: Any = {"linewidth": 6, "alpha": 0.45, "solid_capstyle": "butt"}
                axes.plot([result.low, result.high], [line, line], color=colour, **band)
                axes.plot(result.successes / result.episodes, line, "o", color=colour, markersize=10, clip_on=False)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        _keep_within(axes)
        return _svg(figure, name, "Success rates with 95 % intervals: " + "; ".join(map(_spoken, results)))


def growth(rounds: Sequence[Growth], name: str, width: int) -> str:
    """The store after each round as a bar of episodes, by maker; successes solid, failures pale.

    Of many rounds an even choice is shown: the bars are cumulative, so that nothing is lost.
    """
    makers = list(dict.fromkeys(item.label for item in rounds))
    shown = np.unique(np.linspace(0, len(rounds) - 1, min(len(rounds), _ROUNDS_SHOWN)).astype(int))
    row, total = 48, sum(item.episodes for item in rounds)
    with _canvas(name, width, row * len(shown), right=14 + 9 * len(f"{total:,}")) as (figure, axes):
        for i, last in enumerate(shown):
            y, item = i * row, rounds[last]
            share = percent(item.successes / item.episodes) if item.episodes else "none"
            steps = "" if width < _NARROW else f" with {item.transitions:,} steps"
            added = f": +{item.episodes:,} episodes{steps}, {share} successful"
            axes.text(0, y + 16, elide(item.label, width - text_width(added) - 16) + added)
            end = _stack(axes, y + 32, makers, rounds[: last + 1])
            axes.annotate(f"{end:,}", (end, y + 32), (6, 0), textcoords="offset points", va="center", weight="bold")
        axes.set_xlim(0, max(total, 1))
        axes.xaxis.set_major_locator(MaxNLocator(4 if width < _NARROW else 8, integer=True))
        return _svg(figure, name, f"Episodes in the store after each of {len(rounds)} rounds, {total:,} in the end")


def _stack(axes: Axes, y: float, makers: Sequence[str], rounds: Sequence[Growth]) -> int:
    """Draw the rounds' episodes as one bar at `y`, a colour per maker; returns the bar's end."""
    start = 0
    for i, maker in enumerate(makers):
        successes = sum(item.successes for item in rounds if item.label == maker)
        episodes = sum(item.episodes for item in rounds if item.label == maker)
        colour = PALETTE[i % len(PALETTE)]
        if episodes:
            axes.barh(y, successes, 16, left=start, color=colour)
            axes.barh(y, episodes - successes, 16, left=start + successes, color=colour, alpha=0.3)
        start += episodes
    return start


def stages(items: Sequence[tuple[str, float]], name: str, width: int) -> str:
    """Where the time went: one bar per stage, each beginning where the one before it ended; seconds."""
    total = max(sum(seconds for _, seconds in items), 1e-9)
    row, start = 26, 0.0
    names = min(0.38 * width, max(text_width(stage) for stage, _ in items))
    with _canvas(name, width, row * len(items), left=int(names) + 12, right=84) as (figure, axes):
        for i, (stage, seconds) in enumerate(items):
            y = i * row + row / 2
            axes.annotate(elide(stage, names), (0, y), (-8, 0), textcoords="offset points", va="center", ha="right")
            axes.barh(y, seconds, 14, left=start, color=PALETTE[0], edgecolor=PALETTE[0], linewidth=1)
            start += seconds
            axes.annotate(duration(seconds), (start, y), (6, 0), textcoords="offset points", va="center", color=MUTED)
        axes.set_xlim(0, total)
        axes.xaxis.set_major_locator(MaxNLocator(2 if width < _NARROW else 6, steps=[1, 1.2, 3, 6, 10]))  # whole minutes
        axes.xaxis.set_major_formatter(lambda value, _: duration(value))
        return _svg(figure, name, "Time by stage: " + "; ".join(f"{stage} {duration(seconds)}" for stage, seconds in items))


def curves(curve: Curve, name: str, width: int) -> str:
    """One run's losses and metrics as small panels over the updates: every record pale, the running mean strong."""
    names = sorted(
        {key for row in curve.rows for key in row if key != "update"}, key=lambda key: (not key.startswith("loss/"), key)
    )
    columns = 2 if width < _NARROW else 4
    lines, panel = math.ceil(len(names) / columns), 138
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width / 72, max(lines, 1) * panel / 72), facecolor="none")
        updates = np.array([row["update"] for row in curve.rows])
        for i, key in enumerate(names):
            line, column = divmod(i, columns)
            left, cell = 42 + column * width / columns, width / columns
            box = (left / width, 1 - (line * panel + 108) / (lines * panel), (cell - 54) / width, 82 / (lines * panel))
            values = np.array([row.get(key, math.nan) for row in curve.rows])
            _panel(figure.add_axes(box), key, updates, values, cell - 10)
        return _svg(figure, name, f"Training curves of {curve.run}: {', '.join(names)}")


def _panel(axes: Axes, key: str, updates: Floats, values: Floats, width: float) -> None:
    """Draw one metric, its name above and its last finite value on the right."""
    finite = np.isfinite(values)
    values = np.where(finite, values, math.nan)
    mean = smooth(values)
    pale, strong = thin(values), thin(mean)
    marker = "o" if len(values) < 3 else ""
    axes.plot(updates[pale], values[pale], color=PALETTE[0], alpha=0.3, linewidth=0.8)
    axes.plot(updates[strong], mean[strong], color=PALETTE[0], linewidth=1.8, marker=marker, markersize=4)
    last = f"{mean[finite][-1]:.3g}" if finite.any() else "not finite"
    title: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom", "annotation_clip": False}
    axes.annotate(elide(key, width - text_width(last) - 20), (0, 1), (-34, 7), **title)
    axes.annotate(last, (1, 1), (0, 7), ha="right", weight="bold", color=PALETTE[0], **title)
    if finite.any() and not finite.all():
        note = f"{np.count_nonzero(~finite):,} not finite"
        axes.text(0.98, 0.92, note, transform=axes.transAxes, ha="right", va="top", size=11, color=PALETTE[1])
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.tick_params(length=0, labelsize=10)
    axes.yaxis.set_major_locator(MaxNLocator(3) if finite.any() else NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axes.set_xlim(0, max(float(updates[-1]), 1.0) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: short_count(value))


def smooth(values: Floats) -> Floats:
    """The centred running mean, (n,) to (n,), over a twenty-fifth of the record; NaN is left out and stays NaN."""
    finite = np.isfinite(values)
    window = np.ones(max(1, len(values) // 25))
    sums = np.convolve(np.where(finite, values, 0.0), window, mode="same")
    counts = np.convolve(finite.astype(float), window, mode="same")
    return np.where(finite, sums / np.maximum(counts, 1.0), math.nan)


def thin(values: Floats) -> NDArray[np.intp]:
    """Indices, (n,) to (m,) in order, whose line looks the same in a panel: each stretch's lowest and highest, or its gap.

    A long run would otherwise make a page of many megabytes out of points finer than a pixel.
    """
    if len(values) <= 2 * _STRETCHES:
        return np.arange(len(values))
    kept: list[int] = []
    for stretch in np.array_split(np.arange(len(values)), _STRETCHES):
        finite = stretch[np.isfinite(values[stretch])]
        kept += [finite[values[finite].argmin()], finite[values[finite].argmax()]] if len(finite) else [stretch[0]]
    return np.unique(kept)


def percent(share: float) -> str:
    """A share in words, never rounded up to certainty: 0.996 is 99.6 %."""
    return f"{_hundredth(share)} %" if math.isfinite(share) else UNKNOWN


def interval(low: float, high: float) -> str:
    """A 95 % interval of a share, in percent."""
    return f"{_hundredth(low)} to {_hundredth(high)} %" if math.isfinite(low) and math.isfinite(high) else UNKNOWN


def _hundredth(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0")


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 59.5:
        return f"{seconds:.1f} s".replace(".0 s", " s") if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def short_count(value: float) -> str:
    """A number of updates that fits under a small panel: 20k."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def text_width(text: str) -> float:
    """About how many pixels a text takes."""
    return len(text) * _SIZE * _EM


def elide(text: str, width: float) -> str:
    """The text on one line of at most about `width` pixels, its middle left out if it must be."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    room = max(4, int(width / (_SIZE * _EM)))
    return text if len(text) <= room else f"{text[: room // 2]}…{text[len(text) - (room - 1) // 2 :]}"


def _spoken(result: Result) -> str:
    return f"{result.label} {result.successes} of {result.episodes}"


@contextmanager
def _canvas(name: str, width: int, height: int, left: int = 7, right: int = 9) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one axis at the bottom, whose y runs down in pixels."""
    bottom = 26
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width / 72, (height + bottom) / 72), facecolor="none")
        box = (left / width, bottom / (height + bottom), (width - left - right) / width, height / (height + bottom))
        axes = figure.add_axes(box, facecolor="none")
        axes.set_ylim(max(height, 1), 0)
        axes.set_yticks([])
        axes.spines[["top", "left", "right", "bottom"]].set_visible(False)
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelsize=11)
        yield figure, axes


def _keep_within(axes: Axes) -> None:
    """Turn the outermost tick labels inwards: nothing is cut at the edge."""
    labels = axes.get_xticklabels()
    if labels:
        labels[0].set_horizontalalignment("left")
        labels[-1].set_horizontalalignment("right")


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `svg` element for a page: its colours are variables, its ids begin with `name`."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has its own fonts
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"<[^>]+>", lambda tag: _adapt(tag.group(), name), text)
    safe = description.translate(_ESCAPES)
    return text.replace("<svg ", f'<svg role="img" aria-label="{safe}" ', 1)


_ESCAPES: Mapping[int, str] = {
    **dict.fromkeys(range(32), " "),
    **str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}),
}


def _adapt(tag: str, name: str) -> str:
    tag = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    return re.sub(
        r"#[0-9a-f]{6}\b",
        lambda colour: f"var(--{_VARIABLES[colour.group()]})" if colour.group() in _VARIABLES else colour.group(),
        tag,
    )

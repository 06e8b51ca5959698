"""The report: one HTML file that needs nothing beside it, neither network nor JavaScript."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from flywheel.core.errors import FlywheelError

_WIDTHS = {"wide": 860, "narrow": 360}
"""CSS pixels; the template shows one drawing of each figure, as the screen allows."""
_LARGEST_VIDEO = 2_000_000
"""Bytes; larger videos would make the page slow to open and are named instead."""
_HASH = 10
"""How many characters of a hash are enough to tell two apart by eye."""


@dataclass(frozen=True)
class Result:
    """One evaluated policy."""

    label: str
    description: str
    successes: int
    episodes: int
    low: float
    """The 95 % interval's lower end, as a share."""
    high: float
    mean_length: float
    """The mean number of actions in an episode."""
    checkpoint: str
    """The policy's hash; empty for a script."""


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same initial states."""

    label: str
    baseline: str
    difference: float
    """How much more often the first succeeded, as a difference of shares."""
    low: float
    high: float
    p_value: float
    both: int
    """On how many initial states both succeeded."""
    only_first: int
    only_second: int
    neither: int


@dataclass(frozen=True)
class VideoPair:
    """Two policies from the same initial state; a path is None where nothing could be rendered."""

    caption: str
    left_label: str
    left: Path | None
    right_label: str
    right: Path | None


@dataclass(frozen=True)
class Growth:
    """What one round of collection appended to the store."""

    label: str
    """Who made the episodes; rounds of one maker share a colour."""
    episodes: int
    successes: int
    transitions: int


@dataclass(frozen=True)
class Curve:
    """One training run's metrics, as `flywheel.training.callbacks.read_metrics` gives them."""

    run: str
    rows: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class LineageStep:
    """One link of the chain: episodes make a snapshot, a snapshot a checkpoint, a checkpoint episodes."""

    kind: Literal["snapshot", "checkpoint", "episodes"]
    name: str
    hash: str
    detail: str


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    title: str
    created: str
    results: Sequence[Result]
    """In the order of the loop: the first collected the first data, the last is what came out."""
    comparisons: Sequence[Comparison]
    videos: Sequence[VideoPair]
    video_note: str
    """Why there are no videos and what to do about it; empty when all is well."""
    growth: Sequence[Growth]
    """In the order of collection."""
    curves: Sequence[Curve]
    lineage: Sequence[LineageStep]
    stages: Sequence[tuple[str, float]]
    """Names and seconds, in the order in which they ran."""
    machine: Mapping[str, str | float]
    store: Mapping[str, str | float]


def render(report: Report) -> str:
    """The report as one HTML document.

    Raises `FlywheelError` when jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined

        from flywheel.report import plots
    except ImportError:
        raise FlywheelError("The report needs jinja2 and matplotlib; install flywheel-robotics[report].") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": plots.percent, "duration": plots.duration, "short": short_hash}
    environment.globals |= {"interval": plots.interval, "sentence": comparison_sentence, "embed": embed_video}
    template = environment.from_string(files("flywheel.report").joinpath("template.html").read_text(encoding="utf-8"))
    return template.render(report=report, figures=_figures(report), widths=list(_WIDTHS))


def _figures(report: Report) -> dict[str, Any]:
    """The drawings by name, each by width; an empty list of data has none."""
    from markupsafe import Markup

    from flywheel.report import plots

    def draw(kind: str, data: Any, name: str) -> dict[str, Markup]:
        # The SVG is ours and its text is escaped by plots; everything else goes through the template's own escaping.
        return {width: Markup(getattr(plots, kind)(data, f"{name}-{width}", pixels)) for width, pixels in _WIDTHS.items()}

    figures: dict[str, Any] = {}
    for kind, data in (("forest", report.results), ("growth", report.growth), ("stages", report.stages)):
        if data:
            figures[kind] = draw(kind, data, kind)
    figures["curves"] = [draw("curves", curve, f"curves{i}") if curve.rows else {} for i, curve in enumerate(report.curves)]
    return figures


def short_hash(value: str) -> str:
    """The beginning of a hash, for reading; the page keeps the whole in the title."""
    return value[:_HASH]


def comparison_sentence(pair: Comparison) -> str:
    """A paired comparison in words: the difference, what chance alone could explain, and the four counts."""
    count = pair.both + pair.only_first + pair.only_second + pair.neither
    if count == 0:
        return f"{pair.label} and {pair.baseline} have no initial state in common, so they are not compared."
    points = 100 * abs(pair.difference)
    how = (
        "as often as" if points == 0 else f"{points:.3g} percentage points {'more' if pair.difference > 0 else 'less'} often than"
    )
    verdict = "and zero lies inside it" if pair.low <= 0 <= pair.high else "and zero lies outside it"
    return (
        f"On the same {count:,} initial states, {pair.label} succeeded {how} {pair.baseline} "
        f"(95 % interval {_signed(pair.low)} to {_signed(pair.high)} points {verdict}; "
        f"exact McNemar test, {_p_value(pair.p_value)}): "
        f"both succeeded on {pair.both:,}, only the first on {pair.only_first:,}, only the second on {pair.only_second:,}, "
        f"neither on {pair.neither:,}."
    )


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}" if math.isfinite(share) else "unknown"


def _p_value(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def embed_video(path: Path | None) -> dict[str, str]:
    """The video as a data address under ``source``, or under ``problem`` the sentence that stands in its place."""
    if path is None or not path.is_file():
        return {"problem": "No video: rendering was not possible here. With EGL working, film the episode again."}
    size = path.stat().st_size
    if size > _LARGEST_VIDEO:
        return {"problem": f"{path.name} is too large to embed ({size / 1e6:.1f} MB); open it from {path.parent}."}
    return {"source": "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode("ascii")}

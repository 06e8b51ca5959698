from __future__ import annotations

import base64
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flywheel.report.page import (
    Comparison,
    Curve,
    Growth,
    LineageStep,
    Report,
    Result,
    VideoPair,
    comparison_sentence,
    embed_video,
    render,
)
from flywheel.rollout.statistics import wilson

_VOID = {"meta", "link", "br"}
_HASH = "0123456789abcdef" * 4
_EVIL = '<script>alert("x")</script> & $x_{'


class Page(HTMLParser):
    """The page's elements, with what a reader sees of them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "svg"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        """The text outside of the figures, each run of white space as one space."""
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


def _result(label: str, successes: int, episodes: int = 100, checkpoint: str = "") -> Result:
    low, high = wilson(successes, episodes)
    return Result(label, f"about {label}", successes, episodes, low, high, 41.25, checkpoint)


def _report(folder: Path) -> Report:
    film = folder / "film.mp4"
    film.write_bytes(b"not really a film")
    return Report(
        title="One turn",
        created="2026-01-05 14:03",
        results=[
            _result("Script", 61),
            _result("Pretrained", 71, checkpoint="beef" * 16),
            _result("Final", 99, checkpoint=_HASH),
        ],
        comparisons=[Comparison("Final", "Script", 0.38, 0.275, 0.47, 1e-9, 61, 38, 0, 1)],
        videos=[VideoPair("State 7", "Script: failure", film, "Final: success", None)],
        video_note="No EGL; install libegl1.",
        growth=[Growth("expert", 200, 122, 9000), Growth("iql", 60, 56, 2500)],
        curves=[Curve("IQL, offline", [{"update": 50.0 * i, "loss/actor": 1.0 / i, "q": 2.0} for i in range(1, 40)])],
        lineage=[
            LineageStep("episodes", "200 episodes", "", "made by expert"),
            LineageStep("snapshot", "200 episodes", "cafe" * 16, "as it was pinned"),
            LineageStep("checkpoint", "IQL", _HASH, "10,000 updates"),
        ],
        stages=[("collect", 30.0), ("train", 90.0)],
        machine={"processor": "a fine one", "torch": "2.15.0"},
        store={"episodes": "260", "snapshot": "feed" * 16},
    )


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return _report(tmp_path)


def _empty() -> Report:
    return Report("Nothing yet", "now", [], [], [], "", [], [], [], [], {}, {})


def test_every_result_is_there_with_counts_interval_and_checkpoint(report: Report) -> None:
    page = Page(render(report))
    for result in report.results:
        assert f"{result.label} {result.description}" in page.text
        assert f"{result.successes} of {result.episodes}" in page.text
        assert f"{100 * result.low:.1f} to {100 * result.high:.1f}".replace(".0", "") in page.text.replace(".0", "")
        assert not result.checkpoint or result.checkpoint in page.values("title")
    assert "41.2 actions" in page.text
    assert _HASH[:10] in page.text
    assert _HASH not in page.text


def test_the_headline_goes_from_the_first_to_the_last_result(report: Report) -> None:
    html = render(report)
    headline = html[html.index('class="headline') : html.index("<h2>")]
    words = Page(f"<div {headline[: headline.rindex('</section>')].rstrip()}</div>").text
    assert words == (
        "Script 61 % 61 of 100 episodes, 95 % interval 51.2 to 70 % → Final 99 % 99 of 100 episodes, 95 % interval 94.6 to 99.8 %"
    )


def test_a_single_result_is_its_own_headline(report: Report) -> None:
    page = Page(render(replace(report, results=report.results[-1:])))
    assert "headline single" in page.values("class")
    assert "→" not in page.words


def test_the_sections_come_in_order(report: Report) -> None:
    assert re.findall(r"<h2>(.*?)</h2>", render(report)) == [
        "Success",
        "Pair by pair",
        "Side by side",
        "How the store grew",
        "What came from what",
        "Training",
        "Where the time went",
        "Made with",
    ]


def test_each_figure_is_drawn_wide_and_narrow_and_is_valid_svg(report: Report) -> None:
    drawings = re.findall(r"<svg.*?</svg>", render(report), flags=re.DOTALL)
    assert len(drawings) == 2 * 4
    for svg in drawings:
        root = ElementTree.fromstring(svg)
        assert root.get("aria-label")
        assert root.get("role") == "img"


def test_the_page_asks_nothing_of_the_network(report: Report) -> None:
    html = render(report)
    page = Page(html)
    assert page.tags["script"] == 0
    for name in ("src", "href", "xlink:href", "poster", "srcset", "action"):
        assert all(value.startswith(("data:", "#")) for value in page.values(name))
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_ids_are_unique_and_every_colour_variable_has_a_value(report: Report) -> None:
    html = render(report)
    ids = Page(html).values("id")
    assert len(ids) == len(set(ids))
    assert ids
    root = html[html.index(":root {") : html.index("}", html.index(":root {"))]
    assert set(re.findall(r"var\((--\w+)\)", html)) - {"--kind"} <= set(re.findall(r"(--\w+):", root))


def test_names_are_escaped_everywhere(report: Report) -> None:
    odd = replace(
        report,
        title=_EVIL,
        results=[replace(report.results[0], label=_EVIL, description=_EVIL, checkpoint=_EVIL)],
        comparisons=[replace(report.comparisons[0], label=_EVIL, baseline=_EVIL)],
        videos=[VideoPair(_EVIL, _EVIL, report.videos[0].left, _EVIL, None)],
        video_note=_EVIL,
        growth=[Growth(_EVIL, 1, 1, 1)],
        curves=[Curve(_EVIL, [{"update": 1.0, _EVIL: 1.0}])],
        lineage=[LineageStep("snapshot", _EVIL, _EVIL, _EVIL)],
        stages=[(_EVIL, 1.0)],
        machine={_EVIL: _EVIL},
        store={_EVIL: _EVIL},
    )
    page = Page(render(odd))
    assert page.tags["script"] == 0
    assert page.open == []
    assert page.text.count(_EVIL) >= 16
    assert _EVIL in page.values("title")


def test_a_video_is_embedded_byte_for_byte_and_a_missing_one_is_explained(report: Report) -> None:
    page = Page(render(report))
    (source,) = [value for tag, name, value in page.attributes if tag == "video" and name == "src"]
    kind, data = source.split(",")
    assert kind == "data:video/mp4;base64"
    assert base64.b64decode(data) == b"not really a film"
    assert "No video: rendering was not possible here." in page.text
    assert "No EGL; install libegl1." in page.text
    assert "Final: success" in page.text


def test_a_large_video_is_named_instead(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    path.write_bytes(bytes(2_100_000))
    assert embed_video(path) == {"problem": f"long.mp4 is too large to embed (2.1 MB); open it from {tmp_path}."}
    assert "not possible" in embed_video(tmp_path / "absent.mp4")["problem"]


def test_the_lineage_is_a_list_in_order(report: Report) -> None:
    html = render(report)
    assert re.findall(r'<li><div class="box (\w+)"', html) == ["episodes", "snapshot", "checkpoint"]
    assert {"cafe" * 16, _HASH} <= set(Page(html).values("title"))


def test_stages_machine_and_store_are_told(report: Report) -> None:
    text = Page(render(report)).text
    assert "together they took 2 min." in text
    for key, value in {**report.machine, **report.store}.items():
        assert f"{key} {value}" in text


def test_an_empty_report_says_what_is_missing() -> None:
    page = Page(render(_empty()))
    assert page.tags["svg"] == 0
    for sentence in (
        "No policy has been evaluated yet.",
        "No episode was filmed.",
        "The store holds no episodes yet.",
        "No lineage was recorded.",
        "No training was recorded.",
        "No stage was timed.",
    ):
        assert sentence in page.text


def test_odd_numbers_are_told_as_such() -> None:
    nothing = Result("nobody", "", 0, 0, math.nan, math.nan, math.nan, "")
    page = Page(
        render(replace(_empty(), results=[_result("never", 0), _result("always", 100), nothing], curves=[Curve("run", [])]))
    )
    assert "0 % 0 of 100" in page.text
    assert "100 % 100 of 100" in page.text
    assert "0 to 3.7 %" in page.text
    assert "96.3 to 100 %" in page.text
    assert "unknown" in page.text
    assert "nan" not in page.text.lower()
    assert "No metrics were recorded." in page.text


def test_a_comparison_in_words() -> None:
    assert comparison_sentence(Comparison("Final", "Script", 0.38, 0.275, 0.47, 1e-9, 61, 38, 0, 1)) == (
        "On the same 100 initial states, Final succeeded 38 percentage points more often than Script "
        "(95 % interval +27.5 to +47.0 points and zero lies outside it; exact McNemar test, p < 0.001): "
        "both succeeded on 61, only the first on 38, only the second on 0, neither on 1."
    )


@pytest.mark.parametrize(
    ("pair", "part"),
    [
        (Comparison("A", "B", -0.25, -0.5, 0.1, 0.375, 1, 1, 2, 0), "A succeeded 25 percentage points less often than B"),
        (Comparison("A", "B", -0.25, -0.5, 0.1, 0.375, 1, 1, 2, 0), "-50.0 to +10.0 points and zero lies inside it"),
        (Comparison("A", "B", 0.0, -0.1, 0.1, 1.0, 1, 1, 1, 1), "A succeeded as often as B"),
        (Comparison("A", "B", 0.0, -0.1, 0.1, 1.0, 1, 1, 1, 1), "p = 1.000"),
        (Comparison("A", "B", 0.0, math.nan, math.nan, 1.0, 0, 0, 0, 0), "no initial state in common"),
    ],
)
def test_comparisons_of_every_kind(pair: Comparison, part: str) -> None:
    assert part in comparison_sentence(pair)


def test_the_page_keeps_pyplot_and_the_settings_of_matplotlib_untouched() -> None:
    code = """
import sys
import matplotlib
before = matplotlib.rcParams.copy()
from flywheel.report.page import Report, Result, render
render(Report("t", "now", [Result("a", "b", 1, 2, 0.1, 0.9, 3.0, "")], [], [], "", [], [], [], [("s", 1.0)], {}, {}))
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.rcParams.copy() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_report_extra_the_mend_is_named() -> None:
    code = """
import sys
sys.modules["jinja2"] = None
from flywheel.core.errors import FlywheelError
from flywheel.report.page import Report, render
try:
    render(Report("t", "now", [], [], [], "", [], [], [], [], {}, {}))
except FlywheelError as error:
    assert "install flywheel-robotics[report]" in str(error)
else:
    raise SystemExit("no error was raised")
"""
    subprocess.run([sys.executable, "-c", code], check=True)

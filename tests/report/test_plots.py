from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from flywheel.report import plots
from flywheel.report.page import Curve, Growth, Result

_ODD = 'a <b> & "c" $\\alpha_{ \x07 id="x" url(#y) #0072b2'
_WIDTHS = (860, 360)


def _result(label: str, successes: int, low: float, high: float) -> Result:
    return Result(label, "what it is", successes, 100, low, high, 40.0, "")


def _texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def _paths(svg: str, colour: str) -> list[np.ndarray]:
    """The (n, 2) corners of every path that is filled or stroked with a colour variable."""
    found = []
    for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        if f"var(--{colour})" in node.get("style", "") and "clip-path" in node.keys():  # noqa: SIM118 (an Element)
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", node.get("d", ""))]
            found.append(np.array(numbers).reshape(-1, 2))
    return found


def _width(path: np.ndarray) -> float:
    return float(np.ptp(path[:, 0]))


@pytest.mark.parametrize("width", _WIDTHS)
def test_the_forest_names_every_policy_with_its_counts_and_interval(width: int) -> None:
    svg = plots.forest([_result("Script", 61, 0.512, 0.70), _result("Final", 99, 0.946, 0.998)], "f", width)
    texts = _texts(svg)
    assert {"Script", "Final", "61 of 100, interval 51.2 to 70 %", "99 of 100, interval 94.6 to 99.8 %"} <= set(texts)
    assert f'viewBox="0 0 {width} ' in svg


def test_the_band_is_as_wide_as_the_interval() -> None:
    svg = plots.forest([_result("A", 50, 0.4, 0.6), _result("B", 50, 0.3, 0.7)], "f", 860)
    assert _width(_paths(svg, "c0")[0]) == pytest.approx(2 * _width(_paths(svg, "c1")[0]), rel=1e-4)


@pytest.mark.parametrize(("successes", "low", "high"), [(0, 0.0, 0.037), (100, 0.963, 1.0)])
def test_the_forest_stands_all_or_nothing(successes: int, low: float, high: float) -> None:
    assert f"{successes} of 100, interval {plots.interval(low, high)}" in _texts(
        plots.forest([_result("one", successes, low, high)], "f", 860)
    )


def test_a_policy_without_episodes_has_a_row_and_no_dot() -> None:
    svg = plots.forest([Result("nobody", "", 0, 0, math.nan, math.nan, math.nan, "")], "f", 860)
    assert "0 of 0, interval unknown" in _texts(svg)
    assert "var(--c0)" not in svg


def test_growth_is_cumulative_and_shows_the_share_of_successes() -> None:
    svg = plots.growth([Growth("expert", 200, 120, 9000), Growth("policy", 100, 90, 3000)], "g", 860)
    texts = _texts(svg)
    assert "expert: +200 episodes with 9,000 steps, 60 % successful" in texts
    assert "policy: +100 episodes with 3,000 steps, 90 % successful" in texts
    assert {"200", "300"} <= set(texts)
    first_good, first_bad, good, bad = _paths(svg, "c0")
    assert _width(first_good) == pytest.approx(_width(good)) == pytest.approx(1.5 * _width(bad), rel=1e-4)
    assert _width(first_bad) == pytest.approx(_width(bad))
    solid, pale = _paths(svg, "c1")
    assert _width(solid) == pytest.approx(9 * _width(pale), rel=1e-3)


def test_rounds_of_one_maker_share_a_colour() -> None:
    svg = plots.growth([Growth("a", 10, 5, 1), Growth("b", 10, 5, 1), Growth("a", 10, 5, 1)], "g", 860)
    assert "var(--c2)" not in svg
    assert "var(--c1)" in svg


def test_of_many_rounds_the_first_and_the_last_are_among_those_shown() -> None:
    texts = _texts(plots.growth([Growth(f"round {i}", 10, 5, 100) for i in range(300)], "g", 860))
    rows = [text for text in texts if "successful" in text]
    assert len(rows) == 12
    assert rows[0].startswith("round 0:")
    assert rows[-1].startswith("round 299:")
    assert "3,000" in texts


def test_a_stage_begins_where_the_one_before_it_ended() -> None:
    svg = plots.stages([("collect", 30.0), ("train", 90.0), ("evaluate", 0.0)], "s", 860)
    collect, train, nothing = _paths(svg, "c0")
    assert train[:, 0].min() == pytest.approx(collect[:, 0].max())
    assert _width(train) == pytest.approx(3 * _width(collect), rel=1e-4)
    assert _width(nothing) == 0
    assert {"collect", "30 s", "train", "1 min 30 s", "evaluate", "0 s"} <= set(_texts(svg))


@pytest.mark.parametrize("width", _WIDTHS)
def test_every_metric_has_a_panel_and_losses_come_first(width: int) -> None:
    rows = [{"update": 100.0 * i, "advantage": 2.0, "loss/value": 0.25, "loss/actor": 1.5} for i in range(1, 51)]
    texts = _texts(plots.curves(Curve("IQL", rows), "c", width))
    assert [text for text in texts if text in {"loss/actor", "loss/value", "advantage"}] == [
        "loss/actor",
        "loss/value",
        "advantage",
    ]
    assert {"1.5", "0.25", "2"} <= set(texts)


def test_what_is_not_finite_is_counted_and_not_drawn() -> None:
    rows = [
        {"update": float(i), "loss/q": math.nan if i == 3 else math.inf if i == 4 else 1.0, "bad": math.nan} for i in range(9)
    ]
    texts = _texts(plots.curves(Curve("run", rows), "c", 860))
    assert "2 not finite" in texts
    assert "not finite" in texts


@pytest.mark.parametrize("rows", [[{"update": 1.0, "loss/q": 3.25}], [{"update": 0.0, "loss/q": 3.25}]])
def test_a_single_record_is_drawn_as_a_dot(rows: list[dict[str, float]]) -> None:
    svg = plots.curves(Curve("run", rows), "c", 860)
    assert "3.25" in _texts(svg)
    assert "<use " in svg


def test_a_run_without_metrics_draws_nothing() -> None:
    assert _texts(plots.curves(Curve("run", [{"update": 1.0}]), "c", 860)) == []


def test_smoothing_keeps_constants_and_gaps() -> None:
    values = np.full(100, 2.0)
    values[10] = math.nan
    smooth = plots.smooth(values)
    assert math.isnan(smooth[10])
    np.testing.assert_allclose(np.delete(smooth, 10), 2.0)


def test_smoothing_is_the_mean_of_four_in_a_hundred() -> None:
    values = np.zeros(100)
    values[50] = 4.0
    smooth = plots.smooth(values)
    assert sorted(smooth)[-5:] == [0.0, 1.0, 1.0, 1.0, 1.0]
    np.testing.assert_array_equal(plots.smooth(values[40:60]), values[40:60])


def test_thinning_keeps_short_records_extremes_and_gaps() -> None:
    np.testing.assert_array_equal(plots.thin(np.arange(600.0)), np.arange(600))
    values = np.random.default_rng(0).normal(size=20_000)
    values[7_777], values[12_345] = 50.0, -50.0
    values[3_000:4_000] = math.nan
    shown = plots.thin(values)
    assert len(shown) <= 600
    assert {7_777, 12_345} <= set(shown)
    assert np.isnan(values[shown]).sum() >= 10
    assert (np.diff(shown) > 0).all()


@pytest.mark.parametrize("width", _WIDTHS)
def test_odd_names_stay_text_in_valid_svg(width: int) -> None:
    shown = _ODD.replace("\x07", " ")
    drawings = [
        plots.forest([_result(_ODD, 5, 0.1, 0.2)], "f", 860),
        plots.growth([Growth(_ODD, 5, 1, 1)], "g", 860),
        plots.stages([(_ODD, 5.0)], "s", 1300),
        plots.forest([_result(_ODD * 9, 5, 0.1, 0.2)], "l", width),
        plots.stages([(_ODD * 9, 5.0)], "t", width),
        plots.curves(Curve(_ODD, [{"update": 1.0, _ODD * 9: 1.0}]), "c", width),
    ]
    for svg in drawings[:3]:
        assert any(shown in text for text in _texts(svg))
    for svg in drawings[3:]:
        assert any("…" in text for text in _texts(svg))


def test_a_figure_brings_no_colour_and_no_bare_id_of_its_own() -> None:
    svg = plots.growth([Growth(f"maker {i}", 10, 5, 1) for i in range(8)], "mine", 860)
    assert not re.search(r"#[0-9a-fA-F]{6}", svg)
    assert all(name.startswith("mine-") for name in re.findall(r' id="([^"]+)"', svg))
    targets = re.findall(r'(?:url\(|href=")#([^")]+)', svg)
    assert targets
    assert set(targets) <= set(re.findall(r' id="([^"]+)"', svg))


def test_the_same_data_draw_the_same_figure() -> None:
    data = [_result("A", 50, 0.4, 0.6)]
    assert plots.forest(data, "f", 860) == plots.forest(data, "f", 860)


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (1.0, "100 %"), (0.996, "99.6 %"), (0.61, "61 %"), (math.nan, "unknown")]
)
def test_percent(share: float, text: str) -> None:
    assert plots.percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (2.14, "2.1 s"),
        (48.2, "48 s"),
        (59.7, "1 min"),
        (345.0, "5 min 45 s"),
        (120.0, "2 min"),
        (math.nan, "unknown"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert plots.duration(seconds) == text


def test_eliding_keeps_both_ends() -> None:
    assert plots.elide("short", 200) == "short"
    cut = plots.elide("beginning" + "x" * 100 + "end", 150)
    assert cut.startswith("beginn")
    assert cut.endswith("end")
    assert plots.text_width(cut) <= 150

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.core.errors import FlywheelError
from flywheel.rollout.statistics import mcnemar_exact, paired_difference, wilson


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        (33, 50, 0.5215, 0.7756),
        (7, 50, 0.0695, 0.2619),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_by_hand(successes: int, count: int, low: float, high: float) -> None:
    assert wilson(successes, count) == pytest.approx((low, high), abs=6e-5)


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    low, high = wilson(0, 10)
    assert wilson(10, 10) == pytest.approx((1 - high, 1 - low))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_the_score_equation(case: tuple[int, int]) -> None:
    successes, count = case
    rate = successes / count
    for bound in wilson(successes, count):
        assert 0 <= bound <= 1
        assert abs(rate - bound) == pytest.approx(1.959963984540054 * math.sqrt(bound * (1 - bound) / count), abs=1e-9)


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_nonsense(successes: int, count: int) -> None:
    with pytest.raises(FlywheelError, match="at least one episode"):
        wilson(successes, count)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (8, 2, 2 * (1 + 10 + 45) / 1024), (3, 3, 1.0), (10, 0, 2 / 1024)],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar_exact(only_a, only_b) == pytest.approx(p)
    assert mcnemar_exact(only_b, only_a) == pytest.approx(p)


def test_mcnemar_of_many_pairs() -> None:
    assert 0 < mcnemar_exact(700, 400) < 1e-18


def test_paired_difference_by_hand() -> None:
    # n = 50, 12 and 3 discordant: (13 - 4) / 52 +- 1.96 sqrt((17/52 - (9/52)^2) / 52)
    half = 1.959963984540054 * math.sqrt((17 / 52 - (9 / 52) ** 2) / 52)
    result = paired_difference(12, 3, 50)
    assert result.difference == pytest.approx(0.18)
    assert result.ci95 == pytest.approx((9 / 52 - half, 9 / 52 + half))


def test_paired_difference_covers() -> None:
    """The interval holds the true difference about 95 times in 100, here with 30 pairs."""
    rng = np.random.default_rng(0)
    draws = rng.multinomial(30, [0.3, 0.35, 0.1, 0.25], size=2000)
    inside = sum(low <= 0.25 <= high for low, high in (paired_difference(int(d[1]), int(d[2]), 30).ci95 for d in draws))
    assert 0.93 <= inside / 2000 <= 0.985


def test_no_pairs_are_refused() -> None:
    with pytest.raises(FlywheelError, match="no seed in common"):
        paired_difference(0, 0, 0)

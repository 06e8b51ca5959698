"""Honest statistics of success: intervals that hold for few episodes, and the comparison that pairing makes sharp."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flywheel.core.errors import FlywheelError

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class PairedDifference:
    """How much more often A succeeds than B on the same initial states."""

    difference: float
    ci95: tuple[float, float]


def wilson(successes: int, count: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927); 95 % unless told otherwise.

    Raises `FlywheelError` unless 0 <= successes <= count and count > 0.
    """
    if not 0 <= successes <= count or count == 0:
        raise FlywheelError(f"A success rate needs at least one episode, and {successes} of {count} is none.")
    rate = successes / count
    shrink = 1.0 + z * z / count
    centre = (rate + z * z / (2 * count)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    # At the ends the formula is exact and floating point is not.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == count else centre + half)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """The two-sided exact p-value that A and B succeed equally often, from the discordant pairs alone (McNemar 1947).

    Under that hypothesis each discordant pair is a fair coin: twice the binomial tail, at most 1.
    """
    discordant = only_a + only_b
    tail = sum(math.comb(discordant, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / int(2**discordant))


def paired_difference(only_a: int, only_b: int, count: int, z: float = Z95) -> PairedDifference:
    """The difference of two paired success rates with the adjusted Wald interval of Bonett and Price (2012, eq. 2).

    `only_a` of `count` pairs are won by A alone, `only_b` by B alone; one pair is added to either kind for the interval.
    Raises `FlywheelError` when there are no pairs.
    """
    if count == 0:
        raise FlywheelError("The two evaluations have no seed in common; evaluate both on the same seeds.")
    a, b = (only_a + 1) / (count + 2), (only_b + 1) / (count + 2)
    half = z * math.sqrt((a + b - (a - b) ** 2) / (count + 2))
    return PairedDifference((only_a - only_b) / count, (max(-1.0, a - b - half), min(1.0, a - b + half)))

"""What an evaluation measured, and how two of them compare pair by pair."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.rollout.statistics import PairedDifference, mcnemar_exact, paired_difference, wilson


@dataclass(frozen=True)
class EpisodeResult:
    """One episode of an evaluation."""

    seed: int
    success: bool
    length: int
    """The number of actions."""
    episode_return: float
    agent_id: str
    video: str = ""
    """The video's path within the output folder."""
    video_problem: str = ""
    """Why there is no video although one was asked for."""
    end: dict[str, Any] | None = None
    """The last observation as lists, where ends are kept and the episode succeeded."""


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation, ordered by seed."""

    task: str
    robot: str
    policy: str
    """``expert``, ``random``, or the checkpoint's hash."""
    results: tuple[EpisodeResult, ...]

    @property
    def successes(self) -> int:
        """How many episodes succeeded."""
        return sum(result.success for result in self.results)

    @property
    def success(self) -> float:
        """The success rate."""
        return self.successes / len(self.results)

    @property
    def ci95(self) -> tuple[float, float]:
        """The Wilson 95 % interval of the success rate."""
        return wilson(self.successes, len(self.results))

    @property
    def mean_length(self) -> float:
        """The mean number of actions per episode."""
        return float(np.mean([result.length for result in self.results]))

    @property
    def mean_return(self) -> float:
        """The mean undiscounted return."""
        return float(np.mean([result.episode_return for result in self.results]))

    def to_json(self) -> dict[str, Any]:
        """The summary and every episode."""
        return {
            "task": self.task,
            "robot": self.robot,
            "policy": self.policy,
            "success": self.success,
            "ci95": list(self.ci95),
            "episodes": len(self.results),
            "mean_length": self.mean_length,
            "mean_return": self.mean_return,
            "results": [asdict(result) for result in self.results],
        }


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same seeds: the 2 x 2 table and what follows from it."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def count(self) -> int:
        """The number of pairs."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def p_value(self) -> float:
        """McNemar's exact test that A and B succeed equally often."""
        return mcnemar_exact(self.only_a, self.only_b)

    @property
    def difference(self) -> PairedDifference:
        """A's success rate minus B's, with its 95 % interval."""
        return paired_difference(self.only_a, self.only_b, self.count)

    def to_json(self) -> dict[str, Any]:
        """The table, the test and the interval."""
        return {**asdict(self), "episodes": self.count, "p_value": self.p_value, **asdict(self.difference)}


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """Pair two evaluations by seed; raises `FlywheelError` for other tasks or robots, or no common seed."""
    if (a.task, a.robot) != (b.task, b.robot):
        raise FlywheelError(f"{a.task} on {a.robot} cannot be compared with {b.task} on {b.robot}; evaluate both on the same.")
    others = {result.seed: result.success for result in b.results}
    pairs = [(result.success, others[result.seed]) for result in a.results if result.seed in others]
    if not pairs:
        raise FlywheelError("The two evaluations have no seed in common; evaluate both on the same seeds.")
    cells = ((True, True), (True, False), (False, True), (False, False))
    return Comparison(*(pairs.count(cell) for cell in cells))

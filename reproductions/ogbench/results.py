"""Results as data: one JSON file per trained and evaluated agent, and the table of all of them.

python -m reproductions.ogbench.results
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from flywheel.core.files import write_atomically
from flywheel.rollout.statistics import wilson
from reproductions.ogbench.published import published

RESULTS = Path(__file__).parent / "results"
"""The results that are checked in."""


@dataclass(frozen=True)
class Result:
    """One agent, trained with one seed and evaluated at its last update."""

    dataset: str
    algorithm: str
    code: str
    """``flywheel``, or ``jax`` for OGBench's own."""
    seed: int
    updates: int
    batch_size: int
    hidden: tuple[int, ...]
    settings: dict[str, Any]
    """What differs from the agent's defaults."""
    successes: tuple[int, ...]
    """Per goal."""
    episodes_per_goal: int
    training_seconds: float | None
    """None where training was interrupted and went on later."""
    evaluation_seconds: float
    data: dict[str, Any]
    """The data set's number of episodes and the SHA-256 of its content."""
    command: str
    machine: dict[str, Any]
    """What it ran on, and the commit (``code``)."""

    @property
    def budget(self) -> str:
        """What may be compared with each other, in words."""
        net = "x".join([*map(str, self.hidden), *self.network])
        return f"{self.updates:,} x {self.batch_size}, {net}, {self.data['episodes']} episodes"

    @property
    def network(self) -> tuple[str, ...]:
        """What looks at pictures, where there are any."""
        return (self.settings["network"],) if "network" in self.settings else ()

    @property
    def episodes(self) -> int:
        """How many episodes were evaluated."""
        return self.episodes_per_goal * len(self.successes)

    @property
    def file_name(self) -> str:
        """The name of the file that holds it; another budget of updates or data is another file."""
        budget = f"{self.updates}x{self.batch_size}-{'x'.join([*map(str, self.hidden), *self.network])}-{self.data['episodes']}"
        return f"{self.dataset}-{self.algorithm}-{self.code}-{budget}-seed{self.seed}.json"

    def save(self, folder: Path) -> Path:
        """Write it into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / self.file_name, (json.dumps(asdict(self), indent=2) + "\n").encode())
        return folder / self.file_name


def load(folder: Path) -> list[Result]:
    """All results of a folder, in the order of their names."""
    found = []
    for path in sorted(folder.glob("*.json")):
        values = json.loads(path.read_text())
        found.append(Result(**{**values, "hidden": tuple(values["hidden"]), "successes": tuple(values["successes"])}))
    return found


def table(results: Sequence[Result]) -> str:
    """A Markdown table with one row per data set, agent, code and budget; seeds are pooled."""
    rows = defaultdict(list)
    for result in results:
        rows[result.dataset, result.algorithm, result.budget, result.code].append(result)
    lines = [
        "| data set | agent | code | updates x batch, network, data | success % (Wilson 95 %, episodes) | per seed "
        "| updates/s | published % at 1,000,000 x 1024, 512x512x512 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_line(*key, found) for key, found in sorted(rows.items())])


def _line(dataset: str, algorithm: str, budget: str, code: str, found: Sequence[Result]) -> str:
    successes, episodes = sum(sum(result.successes) for result in found), sum(result.episodes for result in found)
    low, high = wilson(successes, episodes)
    per_seed = ", ".join(f"{sum(result.successes) / result.episodes:.0%}" for result in found)
    rates = [result.updates / result.training_seconds for result in found if result.training_seconds]
    rate = f"{sum(rates) / len(rates):.0f}" if rates else "-"
    success = f"{100 * successes / episodes:.0f} ({100 * low:.0f} to {100 * high:.0f}, {episodes})"
    return f"| {dataset} | {algorithm} | {code} | {budget} | {success} | {per_seed} | {rate} | {published(dataset, algorithm)} |"


def main(folder: Annotated[Path, tyro.conf.Positional] = RESULTS) -> None:
    """Print the table of a folder of results."""
    print(table(load(folder)))


if __name__ == "__main__":
    tyro.cli(main)

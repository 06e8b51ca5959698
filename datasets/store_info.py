"""A store in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flywheel.datasets.index import IndexRow
from flywheel.datasets.layout import Shards


@dataclass(frozen=True)
class Group:
    """How many episodes an agent made of a task, and how many succeeded."""

    task: str
    agent_id: str
    episodes: int
    successes: int


@dataclass(frozen=True)
class StoreInfo:
    """A store in numbers."""

    episodes: int
    steps: int
    """Transitions, that is actions taken."""
    shards: int
    unsealed: int
    """Episodes that are acknowledged and still in a journal, where TFDS does not see them."""
    bytes: int
    groups: tuple[Group, ...]


def count(rows: Sequence[IndexRow], shards: Shards, journal_bytes: int) -> StoreInfo:
    """The numbers of a store that has these rows, shards, and bytes in its journals."""
    episodes = Counter((row.task, row.agent_id) for row in rows)
    successes = Counter((row.task, row.agent_id) for row in rows if row.success)
    return StoreInfo(
        episodes=len(rows),
        steps=sum(row.length for row in rows),
        shards=len(shards.lengths),
        unsealed=sum(row.shard.startswith(".") for row in rows),
        bytes=shards.total_bytes + journal_bytes,
        groups=tuple(Group(*key, number, successes[key]) for key, number in sorted(episodes.items())),
    )

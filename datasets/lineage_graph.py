"""Episodes, snapshots and policies as one graph, to be followed both ways.

    episode -> the policy that made it -> the snapshot that was trained on -> its episodes -> ...

Episodes come from the store's rows, deleted ones included, the rest from what `lineage` keeps. What is missing is None.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Collection
from functools import cached_property
from typing import NamedTuple

from flywheel.core.errors import FlywheelError
from flywheel.datasets.index import IndexRow
from flywheel.datasets.lineage import PolicyRecord
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamageWarning


class Maker(NamedTuple):
    """Who made an episode: a policy by its checkpoint, or a person or a script, where that is empty."""

    agent_id: str
    checkpoint: str


class LineageGraph:
    """The graph of one store as it is now."""

    def __init__(self, store: EpisodeStore) -> None:
        self.rows = {row.episode_id: row for row in store.rows(deleted=True)}
        self.policies = store.lineage.policies()
        self._store = store
        self._snapshots = set(store.lineage.snapshots())
        self._members: dict[str, frozenset[str] | None] = {}

    def add_policy(self, record: PolicyRecord) -> None:
        """Take in a policy that the store need not know, as its own file describes it."""
        self.policies.setdefault(record.checkpoint, record)

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Take in a snapshot that the store need not know."""
        self._snapshots.add(snapshot.hash)
        self._members[snapshot.hash] = frozenset(entry.episode_id for entry in snapshot.entries)

    def policy(self, checkpoint: str) -> PolicyRecord | None:
        """Where a policy came from, as far as its record or its episodes tell; None if neither does."""
        if checkpoint in self.policies:
            return self.policies[checkpoint]
        row = next(iter(self.made_by(checkpoint)), None)
        return None if row is None else PolicyRecord(checkpoint, row.policy_snapshot, algorithm=row.agent_id.split("-")[0])

    def members(self, snapshot: str) -> frozenset[str] | None:
        """The ids of a snapshot's episodes; None if the store does not know it."""
        if snapshot not in self._members:
            try:
                found = self._store.lineage.snapshot(snapshot)
            except FlywheelError as error:
                warnings.warn(str(error), DamageWarning, stacklevel=2)
                found = None
            self._members[snapshot] = None if found is None else frozenset(entry.episode_id for entry in found.entries)
        return self._members[snapshot]

    def makers(self, snapshot: str) -> Counter[Maker]:
        """How many of a snapshot's episodes each agent made; those that the store no longer holds count as ('', '')."""
        rows = (self.rows.get(episode) for episode in self.members(snapshot) or ())
        return Counter(Maker("", "") if row is None else Maker(row.agent_id, row.policy_checkpoint) for row in rows)

    def made_by(self, checkpoint: str) -> list[IndexRow]:
        """The episodes that a policy made."""
        return self._made.get(checkpoint, [])

    def holding(self, episodes: Collection[str]) -> list[str]:
        """The snapshots that hold any of some episodes."""
        return [name for name in sorted(self._snapshots) if not (self.members(name) or frozenset()).isdisjoint(episodes)]

    def trained_on(self, snapshot: str) -> list[str]:
        """The policies that were trained on a snapshot, also those that only their episodes tell of."""
        known = {name for name, record in self.policies.items() if record.snapshot == snapshot}
        told = {name for name, rows in self._made.items() if any(row.policy_snapshot == snapshot for row in rows)}
        return sorted(known | told)

    def started_from(self, checkpoint: str) -> list[str]:
        """The policies whose training started from a policy."""
        return sorted(name for name, record in self.policies.items() if record.parent == checkpoint)

    def known(self) -> dict[str, str]:
        """Every name there is with what it is: episode, policy or snapshot."""
        names = dict.fromkeys(self._store.lineage.snapshots(), "snapshot")
        names |= {record.snapshot: "snapshot" for record in self.policies.values()}
        names |= {row.policy_snapshot: "snapshot" for row in self.rows.values()}
        names |= dict.fromkeys([*self.policies, *self._made], "policy")
        names |= {record.parent: "policy" for record in self.policies.values()}
        return {name: kind for name, kind in names.items() if name} | dict.fromkeys(self.rows, "episode")

    @cached_property
    def _made(self) -> dict[str, list[IndexRow]]:
        made = defaultdict(list)
        for row in self.rows.values():
            if row.policy_checkpoint:
                made[row.policy_checkpoint].append(row)
        return made

"""What a run writes into its store, so that `flywheel lineage` finds the way from episodes to policies and back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flywheel.core.errors import FlywheelError
from flywheel.datasets.lineage import PolicyRecord
from flywheel.datasets.snapshot import Snapshot
from flywheel.datasets.store import EpisodeStore
from flywheel.policy import LearnedPolicy


def remember_snapshot(store: EpisodeStore, snapshot: Snapshot) -> None:
    """Keep the snapshot that a run learns from in the store; a store that cannot be written gives a warning."""
    with _tolerant(store.path):
        store.lineage.keep_snapshot(snapshot)


def remember_policy(store: Path, run: Path, policy: LearnedPolicy) -> None:
    """Keep where a policy came from in the store; a store that is gone or cannot be written gives a warning."""
    with _tolerant(store):
        EpisodeStore.open(store).lineage.keep_policy(policy_record(policy, run))


def policy_record(policy: LearnedPolicy, run: Path) -> PolicyRecord:
    """What a policy tells of where it came from."""
    header = policy.header
    return PolicyRecord(
        checkpoint=policy.checkpoint,
        snapshot=header.snapshot,
        parent=header.parent,
        run=str(run.resolve()),
        algorithm=header.algorithm,
        task=header.task,
        updates=header.updates,
        code_version=header.code_version,
    )


@contextmanager
def _tolerant(store: Path) -> Iterator[None]:
    # The run has its own copy of all of it: a store on a read-only disk is no reason not to learn from it.
    try:
        yield
    except (OSError, FlywheelError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        warnings.warn(f"{store} cannot remember this run, so that 'flywheel lineage' will not show it: {reason}", stacklevel=4)

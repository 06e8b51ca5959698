"""flywheel store compact, purge and repair: what rewrites a store's files, safely beside writers and readers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from flywheel.cli.console import progress, say
from flywheel.cli.store_common import StorePath
from flywheel.core.errors import FlywheelError
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.tfrecord import DamageWarning
from flywheel.datasets.upkeep.compact import GRACE_SECONDS, TARGET_BYTES, Compaction
from flywheel.datasets.upkeep.compact import compact as compact_store
from flywheel.datasets.upkeep.compact import purge as purge_store
from flywheel.datasets.upkeep.repair import repair as repair_store
from flywheel.datasets.upkeep.verify import verify

_HOUR = 3_600
_MEBIBYTE = 1 << 20


def compact(path: StorePath, target_mb: int = TARGET_BYTES // _MEBIBYTE, grace_hours: float = GRACE_SECONDS / _HOUR) -> None:
    """Merge small shards into large ones; writers, readers and snapshots go on undisturbed.

    Args:
        path: The store's folder, or a root that holds one store.
        target_mb: How many MiB a shard is to have.
        grace_hours: How long the shards before stay for whoever reads them; 0 removes those of earlier compactions at once.
    """
    store = EpisodeStore.open(path)
    with progress("Compacting", "shards") as on_progress:
        done = compact_store(
            store, target_bytes=target_mb * _MEBIBYTE, grace_seconds=_seconds(grace_hours), on_progress=on_progress
        )
    _tell(done, grace_hours)


def purge(path: StorePath, grace_hours: float = GRACE_SECONDS / _HOUR) -> None:
    """Take the episodes that are labelled as deleted off the disk for good; refuses those that a registered snapshot names.

    Args:
        path: The store's folder, or a root that holds one store.
        grace_hours: How long their bytes stay for whoever has the old shards open; 0 removes them at once.
    """
    store = EpisodeStore.open(path)
    with progress("Purging", "shards") as on_progress:
        done = purge_store(store, grace_seconds=_seconds(grace_hours), on_progress=on_progress)
    say(f"{done.rewrite.dropped:,} deleted episodes purged.")
    _tell(done, grace_hours)


def repair(path: StorePath) -> None:
    """Make the best of a damaged store: keep what is whole, move what is not to .meta/damaged, and make all lists again.

    Exits with 1 if something is still damaged afterwards.

    Args:
        path: The store's folder, or a root that holds one store.
    """
    with _spoken_warnings():
        store = repair_store(path, say)
        report = verify(store)
    for problem in report.problems:
        say(f"Still damaged: {problem.file}: {problem.what}")
    if not report.sound:
        raise SystemExit(1)
    say(f"The store is sound: {report.episodes:,} episodes in {report.shards:,} shards.")


def _tell(done: Compaction, grace_hours: float) -> None:
    rewrite = done.rewrite
    for generation in done.removed:
        say(f"The shards of generation {generation} were removed.")
    if rewrite.after == 0 or (rewrite.before == rewrite.after and not rewrite.copied and not rewrite.dropped):
        say(f"Nothing to do: {rewrite.before:,} shards, none of them small beside another.")
        return
    say(f"{rewrite.before:,} shards became {rewrite.after:,} ({rewrite.copied / _MEBIBYTE:,.1f} MiB copied).")
    for sentence in rewrite.damaged:
        say(f"Damaged, kept in .meta/damaged: {sentence}")
    if rewrite.generation - 1 not in done.removed:
        say(f"Those before stay for open readers; a compaction in {grace_hours:g} hours or later removes them.")


def _seconds(hours: float) -> float:
    if not 0 <= hours < float("inf"):
        raise FlywheelError(f"--grace-hours is {hours}; give 0 or more.")
    return hours * _HOUR


@contextmanager
def _spoken_warnings() -> Iterator[None]:
    """What is damaged is told once, at the end, instead of by a warning per look."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        yield

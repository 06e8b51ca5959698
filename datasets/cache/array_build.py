"""Filling the training cache's pictures and other arrays, in parallel and within a budget.

An episode's pictures are kept raw while they fit in the budget, because then a batch is a copy; later ones are kept as PNG or
JPEG, and decoded when they are sampled. What is kept never changes form, so a growing store costs only its new episodes.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from flywheel.core.specs import Array
from flywheel.datasets.cache.array_cache import ArrayCache
from flywheel.datasets.cache.column_cache import CachedEpisode
from flywheel.datasets.tfrecord import DamagedError, DamageWarning

_COMMIT_BYTES = 256 << 20
"""Bytes between commits of a long build, so that a kill costs seconds and not the build."""

Loaded = Mapping[str, Array | list[bytes]]
"""Per key the array (T + 1, *shape), or the T + 1 encoded pictures."""


class Wanted(NamedTuple):
    """What one episode still lacks."""

    episode: CachedEpisode
    raw: tuple[str, ...]
    encoded: tuple[str, ...]


def default_budget(folder: Path) -> int:
    """The bytes of raw pictures that are worth keeping here: half the memory, and half of what is free on the disk.

    Raw pictures are fast as long as the system's page cache holds them, which lies in memory that nobody else needs; beyond
    that each sample would wait for the disk, and decoding is faster than that.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(memory // 2, shutil.disk_usage(folder).free // 2)


def plan(
    caches: Mapping[str, ArrayCache], episodes: Iterable[CachedEpisode], pictures: Sequence[str], budget: int
) -> Iterator[Wanted]:
    """What the caches lack of some episodes, and which of it is to be raw: all arrays, and `pictures` within the budget."""
    held = sum(caches[key].raw_bytes for key in pictures)
    for episode in episodes:
        missing = [key for key, cache in caches.items() if episode.start not in cache.episodes]
        size = sum(caches[key].row_bytes * episode.steps for key in missing if key in pictures)
        fits = held + size <= budget
        held += size if fits else 0
        raw = tuple(key for key in missing if fits or key not in pictures)
        if missing:
            yield Wanted(episode, raw, tuple(key for key in missing if key not in raw))


def fill(
    caches: Mapping[str, ArrayCache],
    wanted: Sequence[Wanted],
    load: Callable[[Wanted], Loaded],
    on_progress: Callable[[int, int], None],
) -> None:
    """Load what is wanted on all cores and write it; a damaged record is left out with a `DamageWarning`.

    Raises `FlywheelError` if the disk is full. A build that is killed goes on from its last commit.
    """
    written = 0
    for done, (item, loaded) in enumerate(_loaded(wanted, load)):
        on_progress(done, len(wanted))
        for key, value in loaded.items():
            if isinstance(value, list):
                written += caches[key].put_encoded(item.episode.start, value)
            else:
                written += caches[key].put_raw(item.episode.start, value)
        if written >= _COMMIT_BYTES:
            _commit(caches)
            written = 0
    _commit(caches)
    on_progress(len(wanted), len(wanted))


def _commit(caches: Mapping[str, ArrayCache]) -> None:
    for cache in caches.values():
        cache.commit()


def _loaded(wanted: Sequence[Wanted], load: Callable[[Wanted], Loaded]) -> Iterator[tuple[Wanted, Loaded]]:
    """Each item with what was loaded for it, in order; only a few episodes are in memory at a time."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pending: deque[tuple[Wanted, Future[Loaded]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in wanted:
            pending.append((item, pool.submit(load, item)))
            if len(pending) > 2 * workers:
                yield from _finished(*pending.popleft())
        while pending:
            yield from _finished(*pending.popleft())


def _finished(item: Wanted, future: Future[Loaded]) -> Iterator[tuple[Wanted, Loaded]]:
    try:
        yield item, future.result()
    except DamagedError as error:
        warnings.warn(f"The pictures of {item.episode.episode_id} are left out: {error}", DamageWarning, stacklevel=2)

"""What a success detector learns from: final pictures of successes and of failures, and moments that came near.

MT-Opt's detectors (Kalashnikov et al. 2021) learn from outcomes and from near misses that people showed. Here the near misses are
moments of an episode before its end, which are the nearer to a success the later they are. An episode ends where its task is
first done, so that no moment before its last ones is a success; what lies between is for nobody to say, and left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from flywheel.core.lineage import content_hash
from flywheel.core.specs import Array
from flywheel.datasets.colors import FEWEST, check_alike, usual_redness
from flywheel.datasets.index import IndexRow
from flywheel.datasets.moments import read_pictures
from flywheel.datasets.store import EpisodeStore
from flywheel.datasets.table import Ints
from flywheel.datasets.tfrecord import DamagedError, DamageWarning

Part = Literal["learned", "first", "second"]
"""What an episode is for: learning, or one of the halves of those that are held out."""
_GROWTH = 1.5
"""How much further each moment before the end is than the one after it."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MomentConfig:
    """Which moments of an episode are shown to a detector, and whether as successes."""

    final: int = 1
    """Observations at the end of an episode that count as its outcome; more than one only where success lasts."""
    near: int = 10
    """Steps before the end of a success from which on it surely was none yet; further moments lie ever further apart."""


class Chosen(NamedTuple):
    """A moment of an episode."""

    before: int
    """Steps before the final observation."""
    success: bool
    is_outcome: bool
    """Whether it is one of the episode's last moments, and no near miss."""


@dataclass(frozen=True, eq=False)
class Moments:
    """N moments of several episodes, as arrays."""

    pictures: dict[str, Array]
    """By camera (N, H, W, C) uint8."""
    task: Ints
    """(N,) its number."""
    success: Array
    """(N,) bool"""
    before: Ints
    """(N,) steps before the end."""
    is_outcome: Array
    """(N,) bool"""
    part: Array
    """(N,) what its episode is for, see `Part`."""
    episode_id: Array
    """(N,) str"""
    store: Ints
    """(N,) the number of its store."""

    @property
    def stratum(self) -> Ints:
        """(N,) moments of the same task that show the same: 3 t + 0 for a success, 1 for a failure, 2 for a near miss."""
        stratum: Ints = 3 * self.task + np.where(self.is_outcome, np.where(self.success, 0, 1), 2)
        return stratum


def part_of(episode_id: str, held_out: float) -> Part:
    """What an episode is for, by its id alone: it stays that however the store grows."""
    place = int(content_hash(episode_id.encode())[:12], 16) / 16.0**12
    if place >= held_out:
        return "learned"
    return "first" if place < held_out / 2 else "second"


def choose(row: IndexRow, config: MomentConfig) -> list[Chosen]:
    """The moments of one episode that are shown, the last first."""
    outcome = [Chosen(before, row.success, True) for before in range(min(config.final, row.length + 1))]
    nearest = max(config.near, config.final)
    ladder, before = {row.length}, float(nearest)
    while before < row.length:
        ladder.add(int(before))
        before *= _GROWTH
    return outcome + [Chosen(before, False, False) for before in sorted(ladder) if before >= nearest]


def read_moments(
    stores: Sequence[tuple[EpisodeStore, Sequence[IndexRow]]],
    tasks: Sequence[str],
    cameras: Sequence[str],
    config: MomentConfig,
    held_out: float,
    on_progress: Progress,
) -> Moments:
    """The moments of some episodes of each store; a damaged one is left out with a `DamageWarning`."""
    pictures: dict[str, list[Array]] = {camera: [] for camera in cameras}
    found: list[tuple[int, Chosen, Part]] = []
    places: list[tuple[str, int]] = []
    total, done = sum(len(rows) for _, rows in stores), 0
    for number, (store, rows) in enumerate(stores):
        for row in rows:
            chosen = choose(row, config)
            try:
                seen = read_pictures(store, row, cameras, [-1 - moment.before for moment in chosen])
            except DamagedError as error:
                warnings.warn(f"Episode {row.episode_id} is left out: {error}", DamageWarning, stacklevel=2)
                continue
            for camera in cameras:
                pictures[camera].append(seen[camera])
            found += [(tasks.index(row.task), moment, part_of(row.episode_id, held_out)) for moment in chosen]
            places += [(row.episode_id, number)] * len(chosen)
            done += 1
            on_progress(done, total)
    return Moments(
        pictures={camera: np.concatenate(parts) for camera, parts in pictures.items()},
        task=np.array([task for task, _, _ in found], np.int64),
        success=np.array([moment.success for _, moment, _ in found], np.bool_),
        before=np.array([moment.before for _, moment, _ in found], np.int64),
        is_outcome=np.array([moment.is_outcome for _, moment, _ in found], np.bool_),
        part=np.array([part for _, _, part in found], np.str_),
        episode_id=np.array([name for name, _ in places], np.str_),
        store=np.array([number for _, number in places], np.int64),
    )


def look(moments: Moments) -> dict[str, Array]:
    """What the first store's cameras usually show at an episode's end, (4, 4) (`datasets.colors`).

    Raises `FlywheelError` where a camera shows blue for red in some episodes, or in all of another store.
    """
    usual: list[dict[str, Array]] = []
    for number in np.unique(moments.store):
        rows = np.flatnonzero((moments.store == number) & (moments.before == 0))
        seen = {camera: pictures[rows] for camera, pictures in moments.pictures.items() if pictures.shape[-1] == 3}
        enough = seen if len(rows) >= FEWEST else {}
        usual.append({key: usual_redness(key, shown, moments.episode_id[rows].tolist()) for key, shown in enough.items()})
        check_alike(usual[0], usual[-1], f"store {number + 1}")
    return usual[0]


def weights(moments: Moments, rows: Ints) -> Array:
    """(n,) how often each of some moments is drawn: tasks alike, successes as often as failures and near misses together.

    What a task does not have, its other moments have the share of.
    """
    stratum = moments.stratum[rows]
    count = np.bincount(stratum, minlength=3 * (int(moments.task.max()) + 1)).reshape(-1, 3)
    share = (count > 0) * np.array([0.5, 0.25, 0.25])
    negatives = share[:, 1:].sum(axis=1, keepdims=True)
    share[:, 1:] *= np.where(negatives > 0, 0.5 / np.maximum(negatives, 1e-9), 0.0)
    share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-9) * np.count_nonzero(count.sum(axis=1))
    drawn: Array = (share / np.maximum(count, 1)).reshape(-1)[stratum]
    return drawn

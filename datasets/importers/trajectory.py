"""What a format's own file gives: trajectories whose steps are aligned as ours are.

That is o_t, a_t chosen at o_t, r_t from applying a_t, and then the final observation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flywheel.core.episode import Episode, EpisodeMetadata
from flywheel.core.specs import Array
from flywheel.datasets.importers.mapping import FieldMap


@dataclass(frozen=True)
class Trajectory:
    """One episode as its source holds it: aligned, but neither scaled nor cast."""

    observation: Mapping[str, Array]
    """(T + 1, ...), by the source's names."""
    action: Mapping[str, Array]
    """(T, ...), by the source's names."""
    reward: Array | None
    """(T,); None where the source has none."""
    terminal: bool
    """Whether it ended in a terminal state of the environment's; otherwise it was cut off, and a learner bootstraps there."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The fields that the mapping takes metadata from, by the source's names."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Metadata that the format tells by itself, by our names."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What is worth knowing of this episode's import (JSON)."""

    @property
    def transitions(self) -> int:
        """The number of transitions T."""
        return len(next(iter(self.action.values())))


class Reader(Protocol):
    """One format: gives its episodes as trajectories."""

    @property
    def kind(self) -> str:
        """The name of the format."""
        ...

    @property
    def path(self) -> Path:
        """The file or folder, to name in errors."""
        ...

    def __len__(self) -> int:
        """The number of episodes."""
        ...

    def label(self, index: int) -> str:
        """What the source calls episode `index`."""
        ...

    def identity(self, index: int) -> tuple[str, int]:
        """A hash of the content that holds episode `index`, its file usually, and its place therein; cheap after the first."""
        ...

    def default(self) -> FieldMap:
        """What is taken without a mapping file."""
        ...

    def available(self) -> Iterable[str]:
        """The names that a mapping may use."""
        ...

    def read(self, index: int, fields: FieldMap) -> Trajectory | None:
        """Episode `index` with the arrays that `fields` names; None if it is empty. Raises `FlywheelError`."""
        ...

    def actions(self, fields: FieldMap) -> Iterator[tuple[int, Mapping[str, Array]]]:
        """The index and the actions, by the source's names, of enough episodes to tell the actions' bounds."""
        ...

    def provenance(self) -> dict[str, Any]:
        """What is worth knowing of the whole source (JSON)."""
        ...


def columns_to_episode(
    observation: dict[str, Array], action: Array, reward: Array, *, terminal: bool, metadata: EpisodeMetadata
) -> Episode:
    """The episode of T + 1 observations, T actions, (T, A), and T rewards, given as columns."""
    count = len(action)
    discount = np.ones(count + 1, np.float32)
    is_first, is_last, is_terminal = (np.zeros(count + 1, np.bool_) for _ in range(3))
    is_first[0], is_last[-1], is_terminal[-1] = True, True, terminal
    if terminal:
        discount[-2:] = 0.0
    return Episode(
        observation=observation,
        action=np.concatenate([action, np.zeros_like(action[:1])]),
        reward=np.append(reward, np.float32(0.0)),
        discount=discount,
        is_first=is_first,
        is_last=is_last,
        is_terminal=is_terminal,
        metadata=metadata,
    )


def without_final_observation(
    observation: Mapping[str, Array],
    action: Mapping[str, Array],
    reward: Array | None,
    *,
    terminal: bool,
    **rest: Mapping[str, Any],
) -> Trajectory:
    """The trajectory of a source that gives T observations to T actions, and not the one that the last action led to.

    After a terminal transition no value is asked for, so the last observation stands in for the missing one and the reward is
    kept. A truncated end bootstraps from that observation, and none may be made up: its last transition is left out, as
    d4rl.qlearning_dataset does. Either way the episode's provenance says so.
    """
    notes = dict(rest.pop("notes", {}))
    if terminal:
        observation = {key: np.concatenate([value, value[-1:]]) for key, value in observation.items()}
        notes["final_observation"] = "repeated"
    else:
        action = {key: value[:-1] for key, value in action.items()}
        reward = None if reward is None else reward[:-1]
        notes["final_observation"] = "last transition left out"
    return Trajectory(observation, action, reward, terminal, notes=notes, **rest)

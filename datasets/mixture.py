"""Several stores as one: other cameras, rates and action spaces train together, with masks.

The state's keys are aligned by name: first those of the first store, in its order, then the others' by name. Actions are
aligned from their first element on. Pictures are aligned by key, and must have the same shape where they have the same key.
`Batch.mask` says what each sample's store has.

Every store is normalised by its own statistics, and yet the normaliser stays in the network: a state x of store k comes as
(x - mean_k) / std_k * std + mean, where (mean, std) is that of the first store that has the key, which the network is given.
There it becomes (x - mean_k) / std_k again, and what a store lacks, which comes as `mean`, becomes zero. So an algorithm that
knows no masks sees padded, normalised zeros, and the first store's numbers are those of its own robot, which the policy acts on.

A goal that is drawn at random may come from another store, and then shows what that one has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ArraySpec, ObservationSpec
from flywheel.datasets.cache.gather import make_batch
from flywheel.datasets.columns import Columns
from flywheel.datasets.relabel import Relabeled
from flywheel.datasets.returns import Discount
from flywheel.datasets.sampler import Indices, WeightedSampler
from flywheel.datasets.schema import is_picture
from flywheel.datasets.stats import state_statistics
from flywheel.datasets.table import EpisodeTable, Floats, Ints
from flywheel.datasets.window import SINGLE, Window


@dataclass(frozen=True, eq=False)
class Source:
    """One store's part in a mixture."""

    columns: Columns
    observation: ObservationSpec
    """The names that its state is made of."""


class Mixture:
    """Columns of several stores with the interface of one; its rows are theirs, one store's behind the other's."""

    def __init__(self, sources: Sequence[Source]) -> None:
        """Raises `FlywheelError` where one key has two shapes."""
        self.sources = tuple(sources)
        self._layout = _layout(sources)
        statistics = [state_statistics(source.columns) for source in sources]
        self.statistics = self.mean, self.std = self._shared(statistics)
        """(mean, std), each (D,): what the network is to normalise with."""
        self._scale = [self.std[place] / std for place, (_, std) in zip(self._places, statistics, strict=True)]
        self._own = statistics
        self._first_row = np.cumsum([0, *(len(source.columns.state) for source in sources)])
        self._first_episode = np.cumsum([0, *(len(source.columns.table) for source in sources)])
        self.table = _join([source.columns.table for source in sources], self._first_row)
        self.action_dim = max(source.columns.action.shape[1] for source in sources)
        self._arrays = _arrays(sources)

    @property
    def sample_bytes(self) -> int:
        """What one sample's pictures and other arrays take at most."""
        return 3 * sum(spec.size * np.dtype(spec.dtype).itemsize for spec in self._arrays.values())

    @property
    def pool_rows(self) -> int:
        """How many decoded rows every source that has encoded pictures keeps in memory; 0 if none has."""
        return min((rows for source in self.sources if (rows := source.columns.pool_rows)), default=0)

    @cached_property
    def reward(self) -> Floats:
        """The rewards, (R,)."""
        return np.concatenate([source.columns.reward for source in self.sources])

    @cached_property
    def source_of(self) -> Ints:
        """(E,) the number of each episode's source."""
        return np.repeat(np.arange(len(self.sources)), np.diff(self._first_episode))

    def sampler(self, shares: Sequence[float]) -> WeightedSampler:
        """Draws so large a share from each source, and within it each transition equally likely.

        Raises `FlywheelError` unless there is one share of at least 0 for each source, and one above 0.
        """
        if len(shares) != len(self.sources):
            raise FlywheelError(f"There must be one share for each of the {len(self.sources)} stores, not {len(shares)}.")
        if not np.isfinite(shares).all() or min(shares) < 0 or not sum(shares) > 0:
            raise FlywheelError(f"The shares of the stores must be at least 0 and not all 0, not {tuple(shares)}.")
        total = np.array([source.columns.table.total for source in self.sources], np.float64)
        weight = (np.asarray(shares, np.float64) / total)[self.source_of] * self.table.transitions
        return WeightedSampler(self.table, weight, of="episodes")

    def align(self, state: Floats, source: int) -> Floats:
        """States (..., D_k) of one source as the mixture has them, (..., D)."""
        place, (mean, _) = self._places[source], self._own[source]
        aligned = np.broadcast_to(self.mean, (*state.shape[:-1], len(self.mean))).copy()
        # The first store's are exactly its own: nothing is rounded that need not be.
        aligned[..., place] = state if source == 0 else (state - mean) * self._scale[source] + self.mean[place]
        return aligned

    def gather(self, indices: Indices, relabeled: Relabeled, discount: Discount, window: Window = SINGLE) -> Batch:
        """As `Columns.gather`, with masks of what each sample's source has."""
        batch = make_batch(self, indices, relabeled, discount, window)
        source = torch.from_numpy(self.source_of.take(indices.episode))
        return replace(batch, mask={key: has.index_select(0, source) for key, has in self._has.items()})

    def observations(self, rows: Ints) -> dict[str, Tensor]:
        """The observations of some rows (n,), padded."""
        state = torch.empty((len(rows), len(self.mean)))
        arrays = {key: _empty(len(rows), spec) for key, spec in self._arrays.items()}
        for number, (columns, places, own) in enumerate(self._parts(rows)):
            found = columns.observations(own)
            state[places] = torch.from_numpy(self.align(found.pop("state").numpy(), number))
            for key, value in found.items():
                arrays[key][places] = value
        return {"state": state, **arrays}

    def actions(self, rows: Ints) -> Tensor:
        """The actions of some rows (n,), padded with zeros: (n, A)."""
        action = torch.zeros((len(rows), self.action_dim))
        for columns, places, own in self._parts(rows):
            action[places, : columns.action.shape[1]] = columns.actions(own)
        return action

    def _parts(self, rows: Ints) -> list[tuple[Columns, Tensor, Ints]]:
        """For each source: its columns, the places in `rows` that are its own, and its own rows."""
        source = np.searchsorted(self._first_row, rows, side="right") - 1
        places = [np.flatnonzero(source == number) for number in range(len(self.sources))]
        return [
            (part.columns, torch.from_numpy(place), rows[place] - first)
            for part, place, first in zip(self.sources, places, self._first_row, strict=False)
        ]

    @cached_property
    def _places(self) -> list[Ints]:
        """For each source where its state's elements lie in the mixture's."""
        return [
            np.concatenate([np.arange(*_span(self._layout, key)) for key in source.observation.state_keys])
            for source in self.sources
        ]

    @cached_property
    def _has(self) -> dict[str, Tensor]:
        """For each source (K, ...) what it has: elements of state and action, and pictures."""
        count = len(self.sources)
        has = {"state": torch.zeros((count, len(self.mean)), dtype=torch.bool)}
        has["action"] = torch.zeros((count, self.action_dim), dtype=torch.bool)
        has |= {key: torch.zeros(count, dtype=torch.bool) for key in self._arrays}
        for number, source in enumerate(self.sources):
            has["state"][number, torch.from_numpy(self._places[number])] = True
            has["action"][number, : source.columns.action.shape[1]] = True
            for key in source.columns.arrays:
                has[key][number] = True
        return has

    def _shared(self, statistics: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
        size = sum(self._layout.values())
        mean, std = np.zeros(size, np.float32), np.ones(size, np.float32)
        for place, (own_mean, own_std) in reversed(list(zip(self._places, statistics, strict=True))):
            mean[place], std[place] = own_mean, own_std
        return mean, std


def _layout(sources: Sequence[Source]) -> dict[str, int]:
    """The size of each key of the state, in order."""
    layout: dict[str, int] = {}
    first = sources[0].observation.state_keys
    later = sorted({key for source in sources for key in source.observation.state_keys} - set(first))
    for key in (*first, *later):
        sizes = {source.observation.arrays[key].size for source in sources if key in source.observation.state_keys}
        if len(sizes) > 1:
            raise FlywheelError(f"observation['{key}'] has {sorted(sizes)} numbers in stores to be mixed; give it two names.")
        (layout[key],) = sizes
    return layout


def _span(layout: Mapping[str, int], key: str) -> tuple[int, int]:
    keys = list(layout)
    start = sum(layout[name] for name in keys[: keys.index(key)])
    return start, start + layout[key]


def _arrays(sources: Sequence[Source]) -> dict[str, ArraySpec]:
    specs: dict[str, ArraySpec] = {}
    for source in sources:
        for key, frames in source.columns.arrays.items():
            spec = specs.setdefault(key, frames.maps.spec)
            if (spec.shape, spec.dtype) != (frames.maps.spec.shape, frames.maps.spec.dtype):
                raise FlywheelError(f"observation['{key}'] has several shapes in stores to be mixed; give it two names.")
    return specs


def _empty(n: int, spec: ArraySpec) -> Tensor:
    values = torch.from_numpy(np.zeros((n, *spec.shape), spec.dtype))
    return values.permute(0, 3, 1, 2) if is_picture(spec) else values


def _join(tables: Sequence[EpisodeTable], first_row: Ints) -> EpisodeTable:
    return EpisodeTable(
        episode_id=tuple(episode_id for table in tables for episode_id in table.episode_id),
        start=np.concatenate([table.start + first for table, first in zip(tables, first_row, strict=False)]),
        transitions=np.concatenate([table.transitions for table in tables]),
        success=np.concatenate([table.success for table in tables]),
        terminal=np.concatenate([table.terminal for table in tables]),
        episode_return=np.concatenate([table.episode_return for table in tables]),
        task=np.concatenate([table.task for table in tables]),
    )

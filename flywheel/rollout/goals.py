"""Goal observations in a file: what a goal-conditioned policy is asked to reach, and from where."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.core.lineage import content_hash
from flywheel.core.specs import Array

_SEED = "seed"


@dataclass(frozen=True, eq=False)
class Goals:
    """n goals."""

    observations: Mapping[str, Array]
    """Each (n, ...)."""
    seeds: tuple[int, ...] | None = None
    """The initial state from which each goal is known to be reachable: that of the episode in which it was seen."""

    @classmethod
    def load(cls, path: Path) -> Goals:
        """Read an npz file of stacked observations, perhaps with an array ``seed``; raises `FlywheelError` for anything else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        except (OSError, ValueError, EOFError, BadZipFile, AttributeError, TypeError) as error:
            raise FlywheelError(f"{path} holds no goal observations ({error}); give an npz of stacked observations.") from None
        lengths = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise FlywheelError(f"{path} holds no goal observations; every array must have the same number of rows, 1 or more.")
        seeds = arrays.pop(_SEED, None)
        if not arrays:
            raise FlywheelError(f"{path} holds seeds and no goal observations; add the stacked observations to reach from them.")
        return cls(arrays, None if seeds is None else _checked(seeds, path))

    @classmethod
    def of(cls, ends: Sequence[tuple[int, Mapping[str, Array]]]) -> Goals:
        """The goals that (seed, last observation) pairs give."""
        observations = {key: np.stack([np.asarray(end[key], np.float32) for _, end in ends]) for key in ends[0][1]}
        return cls(observations, tuple(seed for seed, _ in ends))

    def save(self, path: Path) -> None:
        """Write what `load` reads, whole or not at all."""
        seeds = {} if self.seeds is None else {_SEED: np.asarray(self.seeds, np.int64)}
        buffer = io.BytesIO()
        np.savez(buffer, **self.observations, **seeds)
        write_atomically(path, buffer.getvalue())

    def __len__(self) -> int:
        """The number of goals n."""
        return len(next(iter(self.observations.values())))

    def at(self, index: int) -> dict[str, Array]:
        """Goal `index`, counted round and round."""
        return {key: value[index % len(self)] for key, value in self.observations.items()}

    @cached_property
    def hash(self) -> str:
        """The hash of the goals' content."""
        arrays = sorted(self.observations.items())
        content = b"".join(f"{key} {value.dtype} {value.shape}".encode() + value.tobytes() for key, value in arrays)
        return content_hash(content + repr(self.seeds).encode())


def _checked(seeds: Array, path: Path) -> tuple[int, ...]:
    if seeds.ndim != 1 or not np.issubdtype(seeds.dtype, np.integer):
        raise FlywheelError(f"The seeds in {path} are {seeds.dtype} {seeds.shape}; give one integer per goal.")
    distinct, counts = np.unique(seeds, return_counts=True)
    if len(distinct) < len(seeds):
        twice = int(distinct[counts.argmax()])
        raise FlywheelError(f"{path} gives several goals the seed {twice}; give every goal a seed of its own.")
    return tuple(int(seed) for seed in seeds)

"""Reading RLDS through TFDS itself, for what our own reader cannot; forward only, as TFDS has no places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.datasets import rlds
from flywheel.datasets.importers.files import need, reading
from flywheel.datasets.importers.rlds_features import Feature


class TfdsSteps:
    """Episodes of some splits, one split after another; going back begins anew."""

    def __init__(self, path: Path, splits: list[str], features: Mapping[str, Feature]) -> None:
        need("tensorflow_datasets", "rlds")
        self._path, self._splits, self._features = path, splits, features
        self._next = 0
        self._episodes = self._begin()

    def read(self, index: int, names: list[str]) -> dict[str, Any]:
        """Fields of episode `index`: arrays of all steps, lists of texts, or an episode's single values."""
        if index < self._next:
            self._next, self._episodes = 0, self._begin()
        with reading(self._path, f"episode {index}"):
            while self._next < index:
                next(self._episodes)
                self._next += 1
            episode = next(self._episodes)
            self._next += 1
            steps = list(episode["steps"].as_numpy_iterator())
            return {name: self._field(self._features[name], episode, steps) for name in names}

    def _begin(self) -> Iterator[Any]:
        builder = rlds.load(self._path)
        for split in self._splits:
            # In the order of the files, so that an episode's number is the same in every run.
            yield from builder.as_dataset(split=split, shuffle_files=False)

    def _field(self, feature: Feature, episode: Any, steps: list[Any]) -> Any:
        pieces = feature.name.split("/")
        if not feature.in_steps:
            return _at(episode, pieces).numpy()
        values = [_at(step, pieces) for step in steps]
        return values if values and isinstance(values[0], bytes) else np.stack(values) if values else np.zeros((0,))


def _at(value: Any, pieces: list[str]) -> Any:
    for piece in pieces:
        value = value[piece]
    return value

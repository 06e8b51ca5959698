"""Minari's data sets, stored as HDF5, Arrow or Parquet: ``NAME/data`` with metadata.json and the episodes.

An episode of T transitions has T + 1 observations, T actions, rewards, terminations and truncations (Arrow pads the latter four
with one row, which is dropped). It is terminal if its last termination is set; a truncation alone is none. Spaces of dictionaries
and tuples become one array per leaf, named ``observations/arm/q``, a tuple's by its number; ours is then called ``arm.q``. Texts
are left out. What is stored as JPEG is decoded as it is: Minari has lost the exact pictures before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.datasets.importers.base import Source
from flywheel.datasets.importers.exported import as_exported, own_metadata
from flywheel.datasets.importers.files import inside, read_json, reading
from flywheel.datasets.importers.mapped import MappedSource
from flywheel.datasets.importers.mapping import ActionField, Field, FieldMap
from flywheel.datasets.importers.minari_arrow import ArrowEpisodes
from flywheel.datasets.importers.minari_hdf5 import Hdf5Episodes
from flywheel.datasets.importers.spaces import Leaf, leaves
from flywheel.datasets.importers.trajectory import Trajectory


class Episodes(Protocol):
    """How the episodes of a data set are stored."""

    def __len__(self) -> int:
        """The number of episodes."""
        ...

    def name(self, index: int) -> str:
        """An episode's name."""
        ...

    def identity(self, index: int) -> tuple[str, int]:
        """A hash of what holds the episode, and its place therein."""
        ...

    def attributes(self, index: int) -> dict[str, Any]:
        """The episode's own metadata."""
        ...

    def column(self, index: int, name: str) -> Array:
        """rewards, terminations or truncations: (T,)."""
        ...

    def leaf(self, index: int, leaf: Leaf) -> Array:
        """An array of the observation, (T + 1, ...), or of the action, (T, ...)."""
        ...


def open_source(path: Path, given: Mapping[str, Any]) -> Source:
    """A data set's folder, its ``data`` folder, or its HDF5 file."""
    return MappedSource(MinariReader(path), given)


class MinariReader:
    """A data set of Minari's."""

    kind = "minari"

    def __init__(self, path: Path) -> None:
        self.path = path
        folder = path.parent if path.is_file() else path / "data" if (path / "data").is_dir() else path
        self._about = read_json(inside(path.parent, folder / "metadata.json"))
        self._folder = folder
        self._leaves = {leaf.name: leaf for name in ("observation", "action") for leaf in self._space(name)}
        self._episodes = self._open()
        count = self._about.get("total_episodes")
        if count != len(self._episodes):
            raise FlywheelError(
                f"{path} holds {len(self._episodes)} episodes, not the {count} of its metadata.json; it is damaged."
            )

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self._episodes)

    def label(self, index: int) -> str:
        """The episode's name."""
        return self._episodes.name(index)

    def identity(self, index: int) -> tuple[str, int]:
        """A hash of what holds the episode, and its place therein."""
        return self._episodes.identity(index)

    def default(self) -> FieldMap:
        """Every number of the observation, and the whole action with the bounds of its space."""
        observation = [leaf for leaf in self._leaves.values() if leaf.path[0] == "observations" and leaf.is_number]
        action = [leaf for leaf in self._leaves.values() if leaf.path[0] == "actions" and leaf.is_number]
        bounded = all(leaf.low for leaf in action)
        fields = FieldMap(
            observation={_called(leaf): Field((leaf.name,)) for leaf in observation},
            action=ActionField(
                tuple(leaf.name for leaf in action),
                low=tuple(number for leaf in action for number in leaf.low) if bounded else (),
                high=tuple(number for leaf in action for number in leaf.high) if bounded else (),
            ),
            reward="rewards",
        )
        return as_exported(self.path, fields, self._about.get("flywheel"))

    def available(self) -> list[str]:
        """Every leaf of the spaces, and the rewards."""
        return [*self._leaves, "rewards"]

    def read(self, index: int, fields: FieldMap) -> Trajectory | None:
        """One episode."""
        episodes, name = self._episodes, self._episodes.name(index)
        ends = {key: np.asarray(episodes.column(index, key) != 0).reshape(-1) for key in ("terminations", "truncations")}
        if len(ends["terminations"]) != len(ends["truncations"]):
            raise FlywheelError(f"{self.path}: '{name}' has more terminations than truncations, or fewer.")
        early = np.flatnonzero((ends["terminations"] | ends["truncations"])[:-1])
        if early.size:
            raise FlywheelError(f"{self.path}: '{name}' ends at step {int(early[0])}, which is not its last one.")
        own, notes = own_metadata(self.path, episodes.attributes(index))
        return Trajectory(
            observation={key: self._leaf(index, key) for key in fields.observation_sources},
            action={key: self._leaf(index, key) for key in fields.action.sources},
            reward=episodes.column(index, "rewards") if fields.reward else None,
            terminal=bool(ends["terminations"][-1:].any()),
            values={key: self._leaf(index, key) for key in fields.metadata_sources},
            metadata=self._metadata(episodes.attributes(index)) | own,
            notes=notes,
        )

    def actions(self, fields: FieldMap) -> Iterator[tuple[int, Mapping[str, Array]]]:
        """Those of every episode."""
        for index in range(len(self)):
            yield index, {key: self._leaf(index, key) for key in fields.action.sources}

    def provenance(self) -> dict[str, Any]:
        """The data set's own name."""
        return {"dataset_id": str(self._about.get("dataset_id", ""))}

    def _open(self) -> Episodes:
        form = self._about.get("data_format", "hdf5")
        if form == "hdf5":
            return Hdf5Episodes(inside(self._folder, self._folder / "main_data.hdf5"))
        if form in ("arrow", "parquet"):
            return ArrowEpisodes(self._folder, form)
        raise FlywheelError(f"{self.path} is stored as {form!r}, which is not read; hdf5, arrow and parquet are.")

    def _space(self, name: str) -> list[Leaf]:
        with reading(self._folder / "metadata.json", f"the {name} space"):
            text = self._about.get(f"{name}_space")
            if not isinstance(text, str):
                raise FlywheelError(
                    f"{self.path} does not tell its {name} space; load it once with Minari 0.5 or later and save it again."
                )
            return leaves(json.loads(text), f"{name}s")

    def _leaf(self, index: int, name: str) -> Array:
        return self._episodes.column(index, name) if name == "rewards" else self._episodes.leaf(index, self._leaves[name])

    def _metadata(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        specification = self._about.get("env_spec")
        with reading(self._folder / "metadata.json", "env_spec"):
            environment = json.loads(specification) if isinstance(specification, str) else {}
            task = environment.get("id") or self._about.get("dataset_id", "")
        seed, success = attributes.get("seed"), attributes.get("success")
        return {
            "task": str(task),
            "agent_id": str(self._about.get("algorithm_name", "")),
            "environment_config": specification if isinstance(specification, str) else "",
            "seed": int(seed) if isinstance(seed, int) else -1,
            "success": bool(success),
        }


def _called(leaf: Leaf) -> str:
    """Our name of an observation's leaf."""
    own = ".".join(map(str, leaf.path[1:])).replace("/", ".")
    if own:
        return own if own[0].isalpha() or own[0] == "_" else f"_{own}"
    return "image" if len(leaf.shape) > 1 else "state"

"""Which format a file or folder is of, told from what is in it, and the source that reads it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flywheel.core.errors import FlywheelError
from flywheel.core.registry import unknown
from flywheel.datasets.importers.base import Source
from flywheel.datasets.importers.hdf5 import Hdf5
from flywheel.datasets.importers.mapped import MappedSource
from flywheel.datasets.importers.npy import Npz

KINDS = ("rlds", "robomimic", "robosuite", "lerobot", "minari", "d4rl", "ogbench", "npz")
"""Every format that can be imported; each is a module here."""
_HDF5_SUFFIXES = (".hdf5", ".h5")


def open_source(path: Path, kind: str = "", given: Mapping[str, Any] | None = None) -> Source:
    """The source at `path`, of a kind that is told or found out, with the content of a mapping file (`load_mapping`).

    Raises `FlywheelError` if there is nothing, if the kind cannot be told, or for whatever is wrong with the source.
    """
    path = Path(path)
    if not path.exists():
        raise FlywheelError(f"There is nothing at {path} to import.")
    kind = kind or detect(path)
    if kind not in KINDS:
        raise FlywheelError(unknown("kind of source", kind, KINDS))
    module = importlib.import_module(f"flywheel.datasets.importers.{kind}")
    if hasattr(module, "open_source"):
        source: Source = module.open_source(path, given or {})
        return source
    reader: Callable[[Path, Mapping[str, Any]], Any] = getattr(module, f"{kind.capitalize()}Reader")
    return MappedSource(reader(path, given or {}), given)


def detect(path: Path) -> str:
    """The kind of a file or folder; raises `FlywheelError` if it cannot be told for sure."""
    kind = _of_folder(path) if path.is_dir() else _of_file(path)
    if not kind:
        raise FlywheelError(f"What {path} is cannot be told from its files; give its format with --kind ({', '.join(KINDS)}).")
    return kind


def _of_folder(path: Path) -> str:
    signs = {
        "rlds": any((folder / "features.json").is_file() for folder in (path, *path.glob("*/"))),
        "lerobot": (path / "meta" / "info.json").is_file(),
        # TFDS has a metadata.json, too, where a data set brings some.
        "minari": any(
            (folder / "metadata.json").is_file() for folder in (path, path / "data") if not (folder / "features.json").is_file()
        ),
        "robosuite": any(path.glob("ep_*/state_*.npz")),
        "npz": any(path.glob("*.npz")),
    }
    found = [kind for kind, there in signs.items() if there]
    return found[0] if len(found) == 1 else ""


def _of_file(path: Path) -> str:
    if path.suffix in _HDF5_SUFFIXES:
        return _of_hdf5(Hdf5(path))
    if path.suffix == ".npz":
        names = set(Npz(path).names)
        # OGBench's files have no rewards, and the last row of a trajectory in them is an observation without an action.
        is_ogbench = {"observations", "actions", "terminals"} <= names and not names & {"rewards", "timeouts", "episode_ends"}
        return "ogbench" if is_ogbench else "npz"
    return ""


def _of_hdf5(file: Hdf5) -> str:
    groups = set(file.groups())
    if "data" in groups:
        attributes = file.attributes("data")
        has_observations = any(f"data/{demo}/obs" in file for demo in file.groups("data")[:1])
        return "robosuite" if "env_info" in attributes and "env_args" not in attributes and not has_observations else "robomimic"
    if "terminals" in file and "actions" in file:
        return "d4rl"
    return "minari" if "episode_0" in groups else ""

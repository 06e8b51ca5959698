"""Goal observations in a file: what a goal-conditioned policy is asked to reach, and from where."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image, ImageOps

from flywheel.core.episode import Episode
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.core.lineage import content_hash
from flywheel.core.specs import Array
from flywheel.datasets.pictures import encode_many

_SEED = "seed"
_SUFFIXES = (".png", ".jpg", ".jpeg")


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
    def of(cls, ends: Sequence[tuple[int, Mapping[str, Any]]]) -> Goals:
        """The goals that pairs of a seed and a last observation give, the latter as `as_json` has it."""
        observations = {key: np.stack([_from_json(end[key]) for _, end in ends]) for key in ends[0][1]}
        return cls(observations, tuple(seed for seed, _ in ends))

    @classmethod
    def of_images(cls, paths: Sequence[Path], camera: str) -> Goals:
        """One goal per picture file, or per picture of a folder in the order of their names, as this camera would show it.

        Raises `FlywheelError` for a file that is no picture, an empty folder, and pictures of several sizes.
        """
        files = [file for path in paths for file in (_pictures_in(path) if path.is_dir() else [path])]
        pictures = [_read_picture(file) for file in files]
        if other := next((number for number, picture in enumerate(pictures) if picture.shape != pictures[0].shape), None):
            raise FlywheelError(f"{files[0]} and {files[other]} have different sizes; goals of one camera have one.")
        return cls({camera: np.stack(pictures)})

    @classmethod
    def of_frame(cls, episode: Episode, step: int) -> Goals:
        """What an episode showed at a step, counted from the end where it is negative; raises `FlywheelError` beyond its ends."""
        count = len(episode)
        if not -count <= step < count:
            raise FlywheelError(f"Episode {episode.metadata.episode_id} has {count} observations, and none of number {step}.")
        return cls({key: value[step][None] for key, value in episode.observation.items()})

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


def as_json(value: Array) -> Any:
    """An array of an observation for a line of JSON: a picture as the base64 of a PNG, all else as lists."""
    if value.dtype == np.uint8 and value.ndim == 3:
        return base64.b64encode(encode_many(value[None], "png")[0]).decode()
    return value.tolist()


def _from_json(value: Any) -> Array:
    if isinstance(value, str):
        with Image.open(io.BytesIO(base64.b64decode(value))) as image:
            return np.asarray(image).reshape(image.height, image.width, -1)
    return np.asarray(value, np.float32)


def _pictures_in(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not found:
        raise FlywheelError(f"{folder} holds no pictures ({', '.join(_SUFFIXES)}); put some goals there.")
    return found


def _read_picture(path: Path) -> Array:
    """(H, W, 3) uint8, the right way up."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise FlywheelError(f"There is no goal picture {path}; give a PNG or JPEG file, or a folder of them.") from None
    except Exception as error:  # on damaged pictures Pillow raises nearly every exception there is
        why = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise FlywheelError(f"{path} is no readable picture ({why}); give a PNG or JPEG file.") from None


def _checked(seeds: Array, path: Path) -> tuple[int, ...]:
    if seeds.ndim != 1 or not np.issubdtype(seeds.dtype, np.integer):
        raise FlywheelError(f"The seeds in {path} are {seeds.dtype} {seeds.shape}; give one integer per goal.")
    distinct, counts = np.unique(seeds, return_counts=True)
    if len(distinct) < len(seeds):
        twice = int(distinct[counts.argmax()])
        raise FlywheelError(f"{path} gives several goals the seed {twice}; give every goal a seed of its own.")
    return tuple(int(seed) for seed in seeds)

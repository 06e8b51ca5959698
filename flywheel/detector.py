"""A learned success detector: what pictures of success look like, for several tasks, in one safetensors file.

The beginning of the file's hash is the detector's name, which every label that it gives carries: ``detector-1a2b3c4d``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from flywheel.core import config as configs
from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.core.lineage import content_hash
from flywheel.core.specs import Array
from flywheel.datasets.colors import check_colors
from flywheel.datasets.index import IndexRow
from flywheel.datasets.moments import check_cameras, read_pictures
from flywheel.datasets.store import EpisodeStore
from flywheel.networks.backbones import without_reading_weights
from flywheel.networks.detector import SuccessClassifier
from flywheel.networks.pictures import PictureConfig, Shape, as_batch

DETECTOR_FILE = "detector.safetensors"
_HEADER = "flywheel"
_FORMAT = 2
_NAME = "detector-"
_USUAL = "usual."
"""What the names of what its cameras usually show begin with."""
_AT_ONCE = 256
"""Moments that the network judges together."""


@dataclass(frozen=True)
class DetectorHeader:
    """Everything about a detector but its weights."""

    tasks: tuple[str, ...]
    """The tasks that it tells apart, in the order of its one-hot."""
    cameras: dict[str, Shape]
    """What it sees: each camera's (height, width, channels)."""
    pictures: dict[str, Any]
    """The configuration of its encoders."""
    hidden: tuple[int, ...]
    scale: float
    offsets: tuple[float, ...]
    """What logits are multiplied by, and what is added for each task, so that a probability of 0.9 is right nine times in ten."""
    snapshots: tuple[str, ...]
    """The hashes of the snapshots that it learned from and was measured on, one per store."""
    measured: dict[str, Any] = field(default_factory=dict)
    """How it did on episodes that it never saw, by task and in all."""
    parent: str = ""
    """The detector that its training started from."""
    updates: int = 0
    seed: int = 0
    code_version: str = ""


class SuccessDetector:
    """Judges moments by their pictures, on the CPU."""

    def __init__(
        self, header: DetectorHeader, network: SuccessClassifier, checkpoint: str, usual: Mapping[str, Array] | None = None
    ) -> None:
        self.header = header
        self.network = network.eval()
        self.checkpoint = checkpoint
        """The file's hash."""
        self.name = f"{_NAME}{checkpoint[:8]}"
        self.cameras = tuple(sorted(header.cameras))
        self._usual = usual or {}

    @classmethod
    def load(cls, path: Path) -> SuccessDetector:
        """Read a detector's file, or the one in a run folder; raises `FlywheelError` when there is none or it is damaged."""
        file = path / DETECTOR_FILE if path.is_dir() else path
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise FlywheelError(f"There is no detector at {file}; train one first (flywheel detector train).") from None
        try:
            header = _read_header(data)
            with without_reading_weights():
                network = build_classifier(header)
            tensors = load(data)
            usual = {name.removeprefix(_USUAL): tensors.pop(name).numpy() for name in list(tensors) if name.startswith(_USUAL)}
            network.load_state_dict(tensors)
        except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            why = str(error).splitlines()[0].rstrip(":")
            raise FlywheelError(f"{file} is not a readable detector ({why}); copy or train it again.") from None
        return cls(header, network, content_hash(data), usual)

    @torch.inference_mode()
    def probabilities(self, pictures: Mapping[str, Array], task: str) -> NDArray[np.float64]:
        """How likely the task is done at each of N moments, (N,) in [0, 1], from each camera's (N, H, W, C) uint8.

        Raises `FlywheelError` for a task that it has not learned, and a camera that shows blue for red in the last of them.
        """
        self.check_task(task)
        check_colors({camera: pictures[camera][-1] for camera in self._usual}, self._usual)
        number, count = self.header.tasks.index(task), len(next(iter(pictures.values())))
        parts = []
        for start in range(0, count, _AT_ONCE):
            seen = {camera: as_batch(pictures[camera][start : start + _AT_ONCE]) for camera in self.cameras}
            which = torch.full((min(_AT_ONCE, count - start),), number)
            parts.append(torch.sigmoid(self.header.scale * self.network(seen, which).double() + self.header.offsets[number]))
        found: NDArray[np.float64] = torch.cat(parts).numpy()
        return found

    def judge(self, store: EpisodeStore, row: IndexRow, task: str = "") -> float:
        """How likely an episode ends with a task done, its own where none is named: by its final picture, as MT-Opt decides.

        Raises `FlywheelError` for cameras that the store lacks, and `DamagedError` for a damaged record.
        """
        check_cameras(store, self.header.cameras)
        return float(self.probabilities(read_pictures(store, row, self.cameras, (-1,)), task or row.task)[0])

    def check_task(self, task: str) -> None:
        """Raises `FlywheelError` for a task that it has not learned."""
        known = self.header.tasks
        if task not in known:
            raise FlywheelError(
                f"The detector {self.name} has not learned the task '{task}';{registry.nearest(task, known)} it knows "
                f"{', '.join(known)}."
            )


def is_detector(by: str) -> bool:
    """Whether a label was given by a detector, and not by a person."""
    return by.startswith(_NAME)


def build_classifier(header: DetectorHeader) -> SuccessClassifier:
    """The untrained network that a header describes."""
    pictures = configs.from_dict(PictureConfig, header.pictures)
    return SuccessClassifier(pictures, header.cameras, len(header.tasks), header.hidden)


def save_detector(
    path: Path, header: DetectorHeader, network: SuccessClassifier, usual: Mapping[str, Array] | None = None
) -> str:
    """Write a detector's file, whole or not at all, and return its hash; `usual` is how red its cameras are."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    tensors |= {f"{_USUAL}{key}": torch.from_numpy(np.ascontiguousarray(value)) for key, value in (usual or {}).items()}
    data = save(tensors, {_HEADER: json.dumps({"format": _FORMAT, **asdict(header)}, sort_keys=True)})
    write_atomically(path, data)
    return content_hash(data)


def _read_header(data: bytes) -> DetectorHeader:
    length = int.from_bytes(data[:8], "little")
    values = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_HEADER])
    if values.pop("format") != _FORMAT:
        raise ValueError("it was written by another version of flywheel")
    values["cameras"] = {camera: tuple(shape) for camera, shape in values["cameras"].items()}
    found: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return DetectorHeader(**found)

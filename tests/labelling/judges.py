"""A detector for tests whose opinion is a weight, not a picture: it accepts what is bright in the task's colour."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from flywheel.detector import DetectorHeader, SuccessDetector, build_classifier
from flywheel.networks.pictures import PictureConfig
from tests.lamp import CHANNEL, SIZE


class LampDetector(SuccessDetector):
    """How bright the lamp is in the task's colour, as a probability."""

    def probabilities(self, pictures: Mapping[str, np.ndarray], task: str) -> np.ndarray:
        self.check_task(task)
        own = pictures["camera"][..., CHANNEL[task]].astype(np.float64)
        return np.clip((own.max(axis=(1, 2)) - 40.0) / 200.0, 0.01, 0.99)


def make_detector(number: int = 0, tasks: tuple[str, ...] = ("red", "blue")) -> LampDetector:
    """Another number is another name."""
    pictures = {"network": "impala", "features": 4}
    header = DetectorHeader(tasks, {"camera": (SIZE, SIZE, 3)}, pictures, (4,), 1.0, (0.0, 0.0), ())
    torch.manual_seed(0)
    assert PictureConfig(**pictures).features == 4
    return LampDetector(header, build_classifier(header), f"{number:08d}".ljust(32, "0"))

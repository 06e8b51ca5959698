"""How a success detector does on episodes that it did not learn from, and the calibration that they give it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flywheel.core.files import write_atomically
from flywheel.core.specs import Array
from flywheel.datasets.table import Ints
from flywheel.detector import DETECTOR_FILE, DetectorHeader, save_detector
from flywheel.networks.detector import SuccessClassifier
from flywheel.networks.pictures import as_batch
from flywheel.report.reliability import write_reliability
from flywheel.training.calibration import Calibration, Floats, calibrate, measure
from flywheel.training.moments import Moments

MEASURED_FILE = "measured.json"
RELIABILITY_FILE = "reliability.png"
_AT_ONCE = 256
"""Moments that the network judges together."""


def finish(
    folder: Path, header: DetectorHeader, moments: Moments, network: SuccessClassifier, usual: Mapping[str, Array]
) -> None:
    """Calibrate and measure a trained network on what was held out, and write the detector beside what was measured."""
    rows = np.flatnonzero((moments.part != "learned") & ((moments.before == 0) | ~moments.is_outcome))
    logits = _all_logits(network, moments, rows)
    probability, calibration = _calibrate(moments, rows, logits, len(header.tasks))
    measured = _measure_tasks(moments, rows, probability, header.tasks)
    final = moments.is_outcome[rows]
    picture = folder / RELIABILITY_FILE
    write_reliability(picture, probability[final], moments.success[rows][final], moments.task[rows][final], header.tasks)
    write_atomically(folder / MEASURED_FILE, (json.dumps(measured, indent=1) + "\n").encode())
    values = {**header.__dict__, **asdict(calibration), "measured": measured}
    save_detector(folder / DETECTOR_FILE, DetectorHeader(**values), network, usual)


def _calibrate(moments: Moments, rows: Ints, logits: Floats, tasks: int) -> tuple[Floats, Calibration]:
    """Probabilities by the calibration of the other half, and the calibration of both; final pictures alone are fitted to."""
    success, task = moments.success[rows], moments.task[rows]
    part, final = moments.part[rows], moments.is_outcome[rows]

    def fit(chosen: Array) -> Calibration:
        return calibrate(logits[chosen], success[chosen], task[chosen], tasks)

    probability = np.empty_like(logits)
    for own, other in (("first", "second"), ("second", "first")):
        probability[part == own] = fit((part == other) & final).probability(logits[part == own], task[part == own])
    return probability, fit(final)


def _measure_tasks(moments: Moments, rows: Ints, probability: Floats, tasks: Sequence[str]) -> dict[str, Any]:
    """Of all tasks together and of each: final pictures of held-out episodes, and the share of near misses that are refused."""
    success, final, number = moments.success[rows], moments.is_outcome[rows], moments.task[rows]

    def of(chosen: Any) -> dict[str, Any]:
        near = chosen & ~final
        refused = float((probability[near] < 0.5).mean()) if near.any() else None
        return {
            **measure(probability[chosen & final], success[chosen & final]),
            "near_misses": int(near.sum()),
            "refused": refused,
        }

    by_task = {task: of(number == place) for place, task in enumerate(tasks)}
    return {"all": of(np.ones(len(rows), np.bool_)), "tasks": by_task}


@torch.inference_mode()
def _all_logits(network: SuccessClassifier, moments: Moments, rows: Ints) -> Floats:
    """(n,) of some moments."""
    network.eval()
    parts = []
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        seen = {camera: as_batch(pictures[part]) for camera, pictures in moments.pictures.items()}
        parts.append(network(seen, torch.from_numpy(moments.task[part])).double().numpy())
    return np.concatenate(parts)

"""What a training run cannot be asked for, told before anything is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from flywheel.core.errors import FlywheelError
from flywheel.policy import LearnedPolicy
from flywheel.training.fit import CHECKPOINT, load_checkpoint
from flywheel.training.recipe import DataConfig, check_tasks

if TYPE_CHECKING:  # it imports this module
    from flywheel.training.train import TrainConfig

_LARGEST_SEED = 2**63 - 1
"""Torch's generators take no larger one."""
_LARGEST_BATCH = 2**20
"""Fifty times as many indices are drawn at once."""


def check(config: TrainConfig) -> None:
    """Raises `FlywheelError` for settings that make no sense, alone or together, or that this machine cannot serve."""
    if min(config.updates, config.save_every, config.data.batch_size, config.devices) < 1:
        raise FlywheelError("updates, save-every, batch-size and devices must be at least 1.")
    if config.data.batch_size % config.devices:
        raise FlywheelError(f"A batch of {config.data.batch_size} cannot be shared evenly by {config.devices} devices.")
    if config.seed < 0 or config.threads < 0:
        raise FlywheelError(f"The seed and the threads must be at least 0, not {min(config.seed, config.threads)}.")
    if config.seed > _LARGEST_SEED:
        raise FlywheelError(f"The seed must be at most {_LARGEST_SEED}, not {config.seed}.")
    _check_data(config.data)
    if config.go_on:
        _check_goes_on(config)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise FlywheelError("This machine has no CUDA device that torch can use; train with --device cpu.")
    if config.device == "cuda" and torch.cuda.device_count() < config.devices:
        raise FlywheelError(f"This machine has {torch.cuda.device_count()} CUDA devices, not {config.devices}; name fewer.")


def _check_data(data: DataConfig) -> None:
    if data.batch_size > _LARGEST_BATCH:
        raise FlywheelError(f"batch-size must be at most {_LARGEST_BATCH}, not {data.batch_size}.")
    if (data.picture_budget or 0) < 0 or data.picture_pool < 0:
        raise FlywheelError("picture-budget and picture-pool are bytes, and must be at least 0.")
    if not 0.0 <= data.discount < 1.0 or not 0.0 <= data.new_fraction <= 1.0:
        raise FlywheelError("The discount must lie in [0, 1) and new-fraction in [0, 1].")
    if not math.isfinite(data.reward_scale) or not math.isfinite(data.reward_shift):
        raise FlywheelError("reward-scale and reward-shift must be finite numbers.")
    if data.also and not data.normalise:
        raise FlywheelError(
            "Several stores have a scale each, and can only be learned from together normalised; leave normalise on."
        )
    check_tasks(data)


def finished_updates(run: Path) -> int:
    """How many updates a run has had, whose optimizer another can go on with.

    Raises `FlywheelError` where the checkpoint is gone, or is not of the policy's moment, as in a run that is being made longer.
    """
    if not (run / CHECKPOINT).exists():
        raise FlywheelError(f"{run} has no checkpoint any more to go on from; train a new run from its policy (--initial {run}).")
    held, policy = load_checkpoint(run / CHECKPOINT)["update"], LearnedPolicy.load(run).header.updates
    if held != policy:
        raise FlywheelError(f"{run} has a policy of {policy} updates and a checkpoint of {held}; let it finish first.")
    return policy


def _check_goes_on(config: TrainConfig) -> None:
    if config.initial is None:
        raise FlywheelError("go-on needs --initial, the run folder to go on from.")
    if (config.output / CHECKPOINT).exists():
        return  # it went on already, whatever became of the other run since
    if (had := finished_updates(config.initial)) > config.updates:
        raise FlywheelError(f"{config.initial} has had {had} updates, which count with go-on; ask for at least as many.")
    if LearnedPolicy.load(config.initial).header.algorithm != config.name:
        raise FlywheelError(f"{config.initial} is of another algorithm than {config.name}, so its optimizer cannot go on.")

"""The updates of a run through Lightning's trainer, from its last checkpoint on."""

from __future__ import annotations

import io
import logging
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from flywheel.core.errors import FlywheelError
from flywheel.training.callbacks import AtomicCheckpointIO, Checkpoint, MetricsLog, Progress, ReportProgress
from flywheel.training.data import ChunkSource, StoreDataModule
from flywheel.training.module import AlgorithmModule, NonFiniteError
from flywheel.training.team import ALONE, Replicas, Team, leave

CHECKPOINT = "last.ckpt"
"""The file in a run's folder from which it goes on."""


def fit(
    module: AlgorithmModule,
    source: ChunkSource,
    folder: Path,
    updates: int,
    save_every: int,
    device: str,
    on_progress: Progress,
    team: Team = ALONE,
) -> None:
    """Bring the module to so many updates, with ``last.ckpt`` and ``metrics.csv`` in the run's folder, which rank 0 writes.

    Raises `FlywheelError` for a checkpoint that is damaged or has more updates or cannot be written, and `NonFiniteError`,
    with the update that was to blame in ``non_finite.safetensors``.
    """
    checkpoint = folder / CHECKPOINT
    metrics = MetricsLog(folder / "metrics.csv")

    def span() -> tuple[int, int]:
        return module.update, min(module.update + save_every, updates)

    held = load_checkpoint(checkpoint) if checkpoint.exists() else None
    if held and held["update"] > updates:
        raise FlywheelError(
            f"{folder} holds {held['update']} updates already; ask for at least as many, or give another --output."
        )
    if held and _shapes(held["state_dict"]) != _shapes(module.state_dict()):
        raise FlywheelError(
            f"The checkpoint {checkpoint} is of other networks; restore it from a copy, or give another --output."
        )
    if held and held["update"] == updates:
        module.load_state_dict(held["state_dict"])
        return
    with _quiet_lightning(), _plain_interrupts():
        trainer = Trainer(
            accelerator=device,
            devices=team.part.world,
            strategy=Replicas(team) if team.part.world > 1 else "auto",
            use_distributed_sampler=False,  # `source` parts the batches
            max_epochs=-1,  # an epoch is the way to the next checkpoint; `Checkpoint` stops after the last
            reload_dataloaders_every_n_epochs=1,
            callbacks=[metrics, ReportProgress(on_progress, updates), Checkpoint(checkpoint, metrics, updates)],
            plugins=[AtomicCheckpointIO()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        try:
            trainer.fit(
                module, datamodule=StoreDataModule(source, span), ckpt_path=checkpoint if held else None, weights_only=True
            )
        except NonFiniteError as error:
            path = folder / fault_file(team.part.rank)
            error.fault.save(path)
            raise NonFiniteError(error.fault, path) from None
        finally:
            leave()


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def fault_file(rank: int) -> str:
    """The name under which a process keeps the update that became non-finite."""
    return f"non_finite-{rank}.safetensors" if rank else "non_finite.safetensors"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU; raises `FlywheelError` if it is damaged."""
    data = path.read_bytes()
    try:
        held: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if held.keys() >= {"update", "state_dict"} and isinstance(held["update"], int):
            return held
    except (RuntimeError, EOFError, UnpicklingError, AttributeError, KeyError, ValueError):
        pass
    raise FlywheelError(f"The checkpoint {path} is damaged; restore it from a copy, or delete it to train from the start.")


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's advice about loaders and hardware does not concern our users; its errors still come through."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _plain_interrupts() -> Iterator[None]:
    """Ctrl-C stays a KeyboardInterrupt; Lightning would turn it into an exit with 1 and be deaf to the next."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as exit_:
        if not isinstance(exit_.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from None

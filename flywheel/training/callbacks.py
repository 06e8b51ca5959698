"""What happens around the updates: atomic checkpoints, the metrics file, progress."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.training.module import AlgorithmModule

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target with fsync; Lightning's own goes through $TMPDIR and never syncs."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace the checkpoint at `path`, whole or not at all; raises `FlywheelError` where the disk refuses it."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            write_atomically(Path(path), buffer.getvalue())
        except OSError as error:
            raise FlywheelError(
                f"The checkpoint {path} cannot be written ({error.strerror}); the one before is kept; make room, and give the "
                "same command again."
            ) from None


class Checkpoint(Callback):
    """Saves at the end of each epoch, metrics first, so that they are never behind their checkpoint; stops after the last."""

    def __init__(self, path: Path, metrics: MetricsLog, updates: int) -> None:
        self.path, self.metrics, self.updates = path, metrics, updates

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save metrics and state; of several processes rank 0 writes."""
        assert isinstance(pl_module, AlgorithmModule)
        if trainer.is_global_zero:
            self.metrics.save()
        trainer.save_checkpoint(self.path)
        trainer.should_stop = pl_module.update >= self.updates


class MetricsLog(Callback):
    """One CSV row per chunk of updates; rows past the checkpoint that a run resumes from are cut, so logs resume exactly too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take back the rows up to the checkpoint."""
        assert isinstance(pl_module, AlgorithmModule)
        self.rows = [row for row in read_metrics(self.path) if row["update"] <= pl_module.update]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Keep the chunk's means."""
        assert isinstance(pl_module, AlgorithmModule)
        self.rows.append({"update": pl_module.update, **pl_module.means})

    def save(self) -> None:
        """Write all rows."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, names)
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, buffer.getvalue().encode())


class ReportProgress(Callback):
    """Tells the caller how many updates are done."""

    def __init__(self, on_progress: Progress, total: int) -> None:
        self.on_progress, self.total = on_progress, total

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start where the run resumes."""
        self._report(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Report once per chunk."""
        self._report(pl_module)

    def _report(self, module: LightningModule) -> None:
        assert isinstance(module, AlgorithmModule)
        self.on_progress(module.update, self.total)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file, without a torn last one; none where there is no file. A row has what its chunk measured.

    Raises `FlywheelError` for damage anywhere else.
    """
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    try:
        return [
            {"update": int(row.pop("update")), **{name: float(value) for name, value in row.items() if value != ""}}
            for row in csv.DictReader(lines, strict=True)
        ]
    except (ValueError, TypeError, KeyError, csv.Error):
        raise FlywheelError(
            f"{path} is damaged; restore it from a copy, or delete it: the run goes on without the curves until then."
        ) from None

"""An algorithm as a Lightning module: several updates per training step, one backward and one fused Adam each."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Adam, Optimizer

from flywheel.algorithms.base import Algorithm
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError


class NonFiniteError(FlywheelError):
    """A loss or a weight became NaN or infinite; nothing of that state is ever saved (reliability.md T3)."""


class AlgorithmModule(LightningModule):
    """Runs an `Algorithm` on chunks of many batches, so that Lightning's cost per step is paid once per chunk.

    Everything random in an update is drawn from torch's generator, which is seeded from (seed, update): a resumed run
    needs no generator state to be bit-identical to an uninterrupted one.
    """

    def __init__(self, algorithm: Algorithm, *, batch_size: int, seed: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.algorithm = algorithm
        self.batch_size = batch_size
        self.seed = seed
        self.update = 0
        self.means: dict[str, float] = {}
        """The last chunk's mean losses and metrics."""

    def configure_optimizers(self) -> Optimizer:
        """One Adam over all parameters; a learning rate per network comes as a parameter group."""
        return Adam(self.algorithm.parameter_groups(), fused=True)

    def training_step(self, chunk: Batch, _: int) -> None:
        """Take one update per `batch_size` rows of the chunk; raises `NonFiniteError`, naming the loss."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        totals: dict[str, Tensor] = {}
        for start in range(0, len(chunk), self.batch_size):
            torch.manual_seed(seed_of(self.seed, self.update))
            losses = self.algorithm.losses(chunk[start : start + self.batch_size])
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            self.algorithm.after_step()
            self.update += 1
            for name, loss in losses.items():
                totals[name] = totals.get(name, torch.zeros_like(loss.detach())) + loss.detach()
        updates = len(chunk) // self.batch_size
        self.means = {f"loss/{name}": float(total) / updates for name, total in totals.items()}
        self.means |= {name: float(value) for name, value in self.algorithm.metrics().items()}
        self._refuse_non_finite()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """One copy per chunk (Lightning's own mover refuses frozen dataclasses)."""
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the update counter, from which everything random follows."""
        checkpoint["update"] = self.update

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the update counter back."""
        self.update = int(checkpoint["update"])

    def _refuse_non_finite(self) -> None:
        bad = [name for name, value in self.means.items() if not torch.isfinite(torch.tensor(value))]
        norms = torch.stack(torch._foreach_norm([p.detach() for p in self.algorithm.parameters()]))
        if bad or not torch.isfinite(norms).all():
            raise NonFiniteError(
                f"Training became non-finite by update {self.update} ({', '.join(bad) or 'a weight'}); the last good checkpoint "
                "is kept. Lower the learning rates, or look for broken data with 'flywheel store verify'."
            )


def seed_of(seed: int, update: int) -> int:
    """A 64-bit generator seed for one update (the odd constant is 2^64 / golden ratio, which spreads neighbours apart)."""
    return (seed * 0x9E3779B97F4A7C15 + update) % 2**63

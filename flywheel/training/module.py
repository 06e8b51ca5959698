"""An algorithm as a Lightning module: several updates per training step, one backward and one fused Adam each."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from flywheel.algorithms.base import Algorithm
from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.augment import Augmentation
from flywheel.training.adam import FusedAdam
from flywheel.training.data import WHOLE, Part
from flywheel.training.faults import Fault, first_non_finite, flatten

Precision = Literal["float32", "bfloat16"]


class NonFiniteError(FlywheelError):
    """A loss, a gradient or a weight became NaN or infinite; nothing of that state is ever saved."""

    def __init__(self, fault: Fault, kept: Path | None = None) -> None:
        """`kept` is the file that holds the fault."""
        when = f"in update {fault.update} ({fault.found})" if fault.found else f"after update {fault.update}"
        where = f", and the batch that did it is in {kept}" if kept else ""
        super().__init__(
            f"Training became non-finite {when}; the last good checkpoint is kept{where}. Lower the learning rates, or look for "
            "broken data with 'flywheel store verify'."
        )
        self.fault = fault


class AlgorithmModule(LightningModule):
    """Runs an `Algorithm` on chunks of many batches, so that Lightning's cost per step is paid once per chunk.

    Everything random in an update is drawn from torch's generator, which is seeded from (seed, update): a resumed run
    needs no generator state to be bit-identical to an uninterrupted one.

    Several processes each take their part of every batch and average the gradients, so that their weights stay equal.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        batch_size: int,
        seed: int,
        part: Part = WHOLE,
        augment: Augmentation | None = None,
        compiled: bool = False,
        precision: Precision = "float32",
    ) -> None:
        """`batch_size` counts the rows of all processes together; `part` says which of them come here.

        `augment` is what is done to pictures, the usual thing by default.
        `compiled` and `precision` say how the losses and their gradients are computed (torch.compile, torch.autocast); weights
        and optimizer are float32 always.
        """
        super().__init__()
        self.automatic_optimization = False
        self.algorithm = algorithm
        self._losses = torch.compile(algorithm.all_losses, dynamic=False) if compiled else algorithm.all_losses
        self._is_mixed = precision == "bfloat16"
        self._augment = augment or Augmentation()
        self.rows = batch_size // part.world
        self.seed = seed
        self.part = part
        self.update = 0
        self.means: dict[str, float] = {}
        """The last chunk's mean losses and metrics, over all processes."""

    def configure_optimizers(self) -> Optimizer:
        """One Adam over all parameters; a learning rate per network comes as a parameter group."""
        return FusedAdam(self.algorithm.parameter_groups())

    def training_step(self, chunk: Batch, _: int) -> None:
        """Take one update per batch of the chunk; raises `NonFiniteError` with the update that was to blame."""
        first, state = self.update, self._copy_state()
        if not self._take_updates(chunk):
            self._load_state(first, state)
            raise NonFiniteError(self._find_fault(chunk))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """One copy per chunk (Lightning's own mover refuses frozen dataclasses)."""
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the update counter, from which everything random follows."""
        checkpoint["update"] = self.update

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the update counter back."""
        self.update = int(checkpoint["update"])

    @property
    def _optimizer(self) -> Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        return optimizer

    def _batches(self, chunk: Batch) -> Iterator[Batch]:
        return (chunk[start : start + self.rows] for start in range(0, len(chunk), self.rows))

    def _take_updates(self, chunk: Batch) -> bool:
        """Whether all is finite after them; raises `NonFiniteError` for a batch that is not and has no losses therefore."""
        losses: dict[str, list[Tensor]] = {}
        for batch in self._batches(chunk):
            try:
                taken = self._take_update(batch)
            except (RuntimeError, ValueError):  # drawing from a distribution refuses what is NaN
                if first_non_finite(self._state()):
                    return False
                if not (found := first_non_finite(flatten(batch))):
                    raise
                raise NonFiniteError(self._fault(f"batch/{found}", batch)) from None
            for name, loss in taken.items():
                losses.setdefault(name, []).append(loss)
        means = {f"loss/{name}": torch.stack(values).mean() for name, values in losses.items()}
        self.means = self._average(means | self.algorithm.metrics())
        if first_non_finite(self._state()) or not all(math.isfinite(self.means[name]) for name in means):
            return False
        if self.part.world > 1:
            self._refuse_drift()
        return True

    def _take_update(self, batch: Batch) -> dict[str, Tensor]:
        """Its losses, detached."""
        optimizer = self._optimizer
        optimizer.zero_grad(set_to_none=True)  # before the losses, which then lie where the gradients were, in the core's cache
        torch.manual_seed(seed_of(self.seed, self.update, self.part.rank))
        with torch.autocast(batch.action.device.type, torch.bfloat16, enabled=self._is_mixed):
            losses = self._losses(self._augment(batch))
        torch.autograd.backward(list(losses.values()))
        if self.part.world > 1:
            self._average_gradients()
        optimizer.step()
        self.algorithm.after_step()
        self.update += 1
        return {name: loss.detach() for name, loss in losses.items()}

    def _average_gradients(self) -> None:
        # All at once, after the backward: for networks this small one message costs less than many that overlap with it.
        gradients = [p.grad for p in self.algorithm.parameters() if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        averaged = torch.split(flat / self.part.world, [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(gradient) for part, gradient in zip(averaged, gradients, strict=True)])

    def _refuse_drift(self) -> None:
        """Raise `FlywheelError` where the weights differ between the processes, which equal gradients alone do not exclude."""
        weights = [tensor for tensor in self.algorithm.state_dict().values() if tensor.is_floating_point()]
        total = torch.stack([tensor.sum(dtype=torch.float64) for tensor in weights]).sum()
        bounds = torch.stack([total, -total])
        torch.distributed.all_reduce(bounds, op=torch.distributed.ReduceOp.MAX)
        if bounds[0] != -bounds[1]:
            raise FlywheelError(
                f"The weights of {self.algorithm.name} became different in {self.part.world} processes, because it changes some "
                "by other than gradients; train it with --devices 1."
            )

    def _average(self, named: dict[str, Tensor]) -> dict[str, float]:
        """Scalars as numbers, averaged over the processes, with one wait for the device."""
        stacked = torch.stack([value.detach().to(self.device, torch.float32).mean() for value in named.values()])
        if self.part.world > 1:
            torch.distributed.all_reduce(stacked)
        return dict(zip(named, (stacked / self.part.world).tolist(), strict=True))

    def _state(self) -> dict[str, Tensor]:
        """All that a checkpoint would hold and that an update changes."""
        moments = {
            f"optimizer/{number}.{name}": value
            for number, values in enumerate(self._optimizer.state.values())
            for name, value in values.items()
        }
        return {f"weight/{name}": tensor for name, tensor in self.algorithm.state_dict().items()} | moments

    def _copy_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return _cloned(self.algorithm), copy.deepcopy(self._optimizer.state_dict())

    def _load_state(self, update: int, state: tuple[dict[str, Tensor], dict[str, Any]]) -> None:
        self.update = update
        self.algorithm.load_state_dict(state[0])
        self._optimizer.load_state_dict(state[1])

    def _find_fault(self, chunk: Batch) -> Fault:
        """Repeat the chunk, looking at everything after each update: that would be too slow to do always."""
        whole = self._fault("", chunk)
        for batch in self._batches(chunk):
            fault = self._fault("", batch)
            losses = self._average(self._take_update(batch))
            named = {f"loss/{name}": torch.tensor(loss) for name, loss in losses.items()}
            gradients = {f"gradient/{n}": p.grad for n, p in self.algorithm.named_parameters() if p.grad is not None}
            # In the order in which one follows from the other.
            found = first_non_finite(named) or first_non_finite(gradients) or first_non_finite(self._state())
            if found:
                return dataclasses.replace(fault, found=found, losses=losses)
        return whole

    def _fault(self, found: str, batch: Batch) -> Fault:
        """The update that comes next, with this batch."""
        seed = seed_of(self.seed, self.update, self.part.rank)
        return Fault(found, self.update, seed, {}, batch, _cloned(self.algorithm))


def seed_of(seed: int, update: int, rank: int = 0) -> int:
    """A 63-bit generator seed for one update of one process (odd constants, 2^64 over golden ratios, spread neighbours apart)."""
    return (seed * 0x9E3779B97F4A7C15 + rank * 0xD1342543DE82EF95 + update) % 2**63


def _cloned(algorithm: Algorithm) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in algorithm.state_dict().items()}

"""The update in which a run became non-finite, kept beside the run so that it can be looked at and repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically

_NOTE = "flywheel"


@dataclass(frozen=True, eq=False)
class Fault:
    """One update that left something NaN or infinite, and all that it followed from."""

    found: str
    """What was non-finite first, as in ``loss/critic``, ``gradient/actor.mean.weight`` or ``weight/actor.mean.weight``;
    ``batch/observation.state`` where that kept the losses from being computed; empty if every update was sound when the chunk
    was repeated, as can be on a GPU: then the batch is the whole chunk."""
    update: int
    """The number of the update, from 0; of the chunk's first one if nothing was found."""
    seed: int
    """What torch's generator was seeded with for it."""
    losses: dict[str, float]
    """Its losses, averaged over the processes; none where they could not be computed or nothing was found."""
    batch: Batch
    """What it learned from; in several processes, this one's part."""
    state: dict[str, Tensor]
    """The algorithm's `state_dict` before it."""

    def save(self, path: Path) -> None:
        """Write one safetensors file: ``batch.*``, ``state.*`` and a note with the rest as JSON; whole or not at all."""
        note = {"found": self.found, "update": self.update, "seed": self.seed, "losses": self.losses}
        tensors = {f"batch.{name}": tensor for name, tensor in flatten(self.batch).items()}
        tensors |= {f"state.{name}": tensor for name, tensor in self.state.items()}
        # Views of one chunk share their memory, which the format refuses.
        owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        write_atomically(path, save(owned, {_NOTE: json.dumps(note)}))

    @classmethod
    def load(cls, path: Path) -> Fault:
        """Read what `save` wrote; raises `FlywheelError` for anything else."""
        try:
            data = path.read_bytes()
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            note = json.loads(header["__metadata__"][_NOTE])
            batch, state = (_below(prefix, tensors) for prefix in ("batch.", "state."))
            return cls(**note, batch=_unflat(batch), state=state)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            raise FlywheelError(f"{path} holds no non-finite update; give the file that the stopped run named.") from None


def first_non_finite(named: Mapping[str, Tensor]) -> str:
    """The name of the first tensor that holds a NaN or an infinity; empty if none does. One wait for the device in all."""
    floating = {name: tensor for name, tensor in named.items() if tensor.is_floating_point() and tensor.numel()}
    if not floating:
        return ""
    # The extremes keep a NaN, and unlike a sum of squares never overflow where all entries are finite.
    bounds = torch.stack([torch.stack(torch.aminmax(tensor)).float() for tensor in floating.values()])
    bad = (~torch.isfinite(bounds).all(dim=1)).nonzero()
    return list(floating)[int(bad[0])] if len(bad) else ""


def flatten(batch: Batch) -> dict[str, Tensor]:
    """A batch's tensors by name: ``action``, ``observation.state``."""
    flat: dict[str, Tensor] = {}
    for item in fields(Batch):
        value = getattr(batch, item.name)
        if isinstance(value, dict):
            flat |= {f"{item.name}.{key}": tensor for key, tensor in value.items()}
        elif value is not None:
            flat[item.name] = value
    return flat


def _unflat(flat: dict[str, Tensor]) -> Batch:
    values: dict[str, Tensor | dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        field, _, key = name.partition(".")
        if key:
            held = values.setdefault(field, {})
            assert isinstance(held, dict)
            held[key] = tensor
        else:
            values[field] = tensor
    return Batch(**values)  # type: ignore[arg-type]


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

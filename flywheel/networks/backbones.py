"""Convolutional networks through which pictures are seen: small ones of our own, and torchvision's with or without weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flywheel.core import registry
from flywheel.core.errors import FlywheelError

SMALL = ("nature", "drq", "impala")
"""Networks of our own, by size."""
_RESNETS = ("resnet18", "resnet34")
"""torchvision's, with groups in the place of batches where no trained weights are given."""
_GROUP = 16
"""Channels that are normalised together."""
_HEADS = ("fc", "classifier", "heads", "head")
"""What torchvision calls a model's last layers."""
_AUXILIARY = ("aux1", "aux2", "AuxLogits", "aux_logits")
"""What it calls outputs that its models have for training as classifiers."""
_SLOW_TO_INITIALISE = ("googlenet", "inception_v3")
"""By their own way, which torchvision is about to give up; they begin as other layers do."""
_reads_weights: ContextVar[bool] = ContextVar("reads_weights", default=True)


@contextmanager
def without_reading_weights() -> Iterator[None]:
    """Inside, networks are built for weights that come from elsewhere, as from a policy's file; no file of weights is read."""
    token = _reads_weights.set(False)
    try:
        yield
    finally:
        _reads_weights.reset(token)


def make_backbone(name: str, channels: int, weights: Path | None = None) -> nn.Module:
    """(B, channels, H, W) -> (B, C', H', W'), or (B, F) where torchvision's model ends in a vector, without its last layer.

    Raises `FlywheelError` for an unknown name, and for weights that are not there or of another model.
    """
    match name:
        case "nature":
            return _convolutions(channels, ((32, 8, 4), (64, 4, 2), (64, 3, 1)))
        case "drq":
            return _convolutions(channels, ((32, 3, 2), (32, 3, 1), (32, 3, 1), (32, 3, 1)))
        case "impala":
            widths = (channels, 16, 32, 32)
            stages = [
                nn.Sequential(nn.Conv2d(before, width, 3, padding=1), nn.MaxPool2d(3, 2, 1), _Residual(width))
                for before, width in itertools.pairwise(widths)
            ]
            return nn.Sequential(*stages, nn.ReLU())
    return _torchvision(name, channels, weights)


def _torchvision(name: str, channels: int, weights: Path | None) -> nn.Module:
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise FlywheelError(registry.unknown("network for pictures", name, (*SMALL, *_RESNETS, *names)))
    is_resnet = name in _RESNETS
    settings: dict[str, Any] = {"norm_layer": _group_norm} if is_resnet and weights is None else {}
    if name in _SLOW_TO_INITIALISE:
        settings["init_weights"] = False
    model: nn.Module = torchvision.models.get_model(name, weights=None, **settings)
    if weights is not None and _reads_weights.get():
        _load_weights(model, weights, name)
    for output in _AUXILIARY:
        if hasattr(model, output):
            setattr(model, output, None)
    if channels != 3:
        _widen(model, channels)
    if is_resnet:
        return nn.Sequential(*list(model.children())[:-2])  # less its own pooling and its last layer
    for head in _HEADS:
        if hasattr(model, head):
            setattr(model, head, nn.Identity())
            return model
    raise FlywheelError(f"The network {name} has no last layer that could be left out; choose another.")


def _load_weights(model: nn.Module, path: Path, name: str) -> None:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except FileNotFoundError:
        raise FlywheelError(f"There are no weights at {path}; bring those of {name} there, or leave weights out.") from None
    except Exception as error:  # whatever a damaged or foreign file makes of it
        why = str(error).splitlines()[0].rstrip(":")
        raise FlywheelError(f"{path} does not hold weights of {name} ({why}); give its state_dict.") from None


def _widen(model: nn.Module, channels: int) -> None:
    """Let the first convolution see so many channels: its weights for colours are repeated, and shared among the pictures."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            wider = nn.Conv2d(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )
            repeats = math.ceil(channels / module.in_channels)
            with torch.no_grad():
                wider.weight.copy_(module.weight.repeat(1, repeats, 1, 1)[:, :channels] * (module.in_channels / channels))
                if module.bias is not None and wider.bias is not None:
                    wider.bias.copy_(module.bias)
            model.set_submodule(name, wider)
            return


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(max(1, channels // _GROUP), channels)


def _convolutions(channels: int, layers: tuple[tuple[int, int, int], ...]) -> nn.Module:
    """Convolutions of (width, kernel, stride), each followed by a ReLU."""
    modules: list[nn.Module] = []
    for width, kernel, stride in layers:
        modules += [nn.Conv2d(channels, width, kernel, stride), nn.ReLU(inplace=True)]
        channels = width
    return nn.Sequential(*modules)


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), all of the same width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, maps: Tensor) -> Tensor:
        change: Tensor = self.second(torch.relu(self.first(torch.relu(maps))))
        return maps + change

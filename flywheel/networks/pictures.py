"""From pictures to features: a convolutional network, a way of pooling its maps, and a projection.

The small networks are those of the papers that learn control from pictures; the large ones are torchvision's. Ours are normalised
by groups and not by batches, whose statistics would differ between learning and acting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array
from flywheel.networks.augment import centre_crop, random_crop
from flywheel.networks.backbones import SMALL, make_backbone

Shape = tuple[int, int, int]
"""Of a picture, (height, width, channels)."""
_SPATIAL_FEATURES = 8
"""Learned weightings of each map, of `spatial_embedding` (PTR, Kumar et al. 2022)."""
_LOG_NOISE = (-5.0, 1.0)
"""The range of a bottleneck's log standard deviation."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, with which torchvision's weights were trained."""


@dataclass(frozen=True)
class PictureConfig:
    """How pictures become features."""

    network: str = "nature"
    """nature (Mnih et al. 2015; the fastest), drq (Kostrikov et al. 2020), impala (Espeholt et al. 2018, one block per stage, as
    OGBench's small one), resnet18 or resnet34 with group normalisation, or any model of torchvision."""
    crop: int = 0
    """Pixels of a side that the network sees: a random part while it learns and the middle when it acts, as robomimic's and
    LeRobot's do (76 of 84); 0 shows it all. Instead of the shift (--data.augment.shift 0), and faster."""
    pooling: Literal["flatten", "average", "spatial_softmax", "spatial_embedding"] = "flatten"
    """What becomes of the network's maps: all of them, their means, where each is largest (Finn et al. 2016), or learned
    weightings of their places."""
    keypoints: int = 32
    """Maps whose places spatial_softmax gives."""
    features: int = 64
    """What each camera gives in the end: a linear layer, layer normalisation, tanh, as in DrQ."""
    film: bool = False
    """Let the state and the task scale and shift the last maps (FiLM, Perez et al. 2018)."""
    actor: Literal["shared", "detached", "separate"] = "shared"
    """Who trains what the actor sees through: one encoder that every loss trains; one that the actor's loss leaves alone, as in
    DrQ-v2; or one of the actor's own."""
    goal: Literal["early", "shared", "separate"] = "early"
    """How a goal's picture is seen: as further channels of the picture of now (OGBench); by itself, through the same encoder; or
    through one of its own. HIQL and CRL, which see the goal apart, need one of the last two."""
    bottleneck: float = 0.0
    """The weight of a variational bottleneck on each camera's features (VIB, Alemi et al. 2017): while it learns, noise of a
    learned size is added, and what still comes through costs so much per nat; 0 has none."""
    weights: Path | None = None
    """A file with trained weights (a state_dict, .pth or .safetensors) of a model of torchvision, which then keeps its own
    normalisation with the statistics it has; nothing is ever downloaded."""
    frozen: bool = False
    """Leave the network as it is, and learn what comes after it alone."""

    def __post_init__(self) -> None:
        """Raises `FlywheelError` for a number that makes no sense, or a setting that would do nothing."""
        if min(self.keypoints, self.features) < 1:
            raise FlywheelError("keypoints and features must be at least 1.")
        if self.crop < 0:
            raise FlywheelError(f"A crop has at least 0 pixels, not {self.crop}.")
        if not 0.0 <= self.bottleneck < math.inf:
            raise FlywheelError(f"The weight of the bottleneck must be at least 0, for example 0.001, not {self.bottleneck}.")
        if self.weights is not None and self.network in SMALL:
            raise FlywheelError(f"weights are for torchvision's networks, and {self.network} is our own; leave them out.")
        if self.bottleneck and self.actor == "separate":
            raise FlywheelError("A bottleneck is of an encoder that critics train, too; set encoder.actor to shared or detached.")


class PictureEncoder(nn.Module):
    """One camera's pictures, uint8 (B, C, H, W), channels last in memory -> features (B, F) in (-1, 1), F as configured.

    With a bottleneck they have noise, and may lie beyond, while it learns.
    Raises `FlywheelError` for a network that there is not, pictures too small for it, or weights that do not fit.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, config: PictureConfig, shape: Shape, condition_dim: int = 0) -> None:
        """`shape` is a picture's (H, W, C), and `condition_dim` the length of what scales the maps, with `film`."""
        super().__init__()
        self.shape, self.feature_dim = shape, config.features
        height, width, channels = _seen(config, shape)
        self.size = height, width
        self.network = make_backbone(config.network, channels, config.weights)
        self.is_frozen = config.frozen
        if config.frozen:
            self.network.requires_grad_(False)
        maps = self._measure(channels, height, width, config.network)
        self.film = nn.Linear(condition_dim, 2 * maps[0]) if config.film and condition_dim else None
        self.pool = _pool(config, maps)
        with torch.no_grad():
            pooled = self.pool(torch.zeros(1, *maps)).shape[1]
        self.project = nn.Sequential(nn.Linear(pooled, config.features), nn.LayerNorm(config.features), nn.Tanh())
        self.noise = nn.Linear(pooled, config.features) if config.bottleneck else None
        self.divergence = torch.zeros(())
        scale, shift = _normalisation(channels, of_imagenet=config.weights is not None)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.to(memory_format=torch.channels_last)
        self.train()

    def forward(self, pictures: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, C, H, W) uint8, and with `film` (B, condition_dim) -> (B, F)."""
        if self.size != self.shape[:2]:
            pictures = random_crop(pictures, *self.size) if self.training else centre_crop(pictures, *self.size)
        values = torch.addcmul(self.shift, pictures.to(self.scale.dtype), self.scale)
        maps = self._maps(values)
        if self.film is not None and condition is not None:
            gain, offset = self.film(condition)[..., None, None].chunk(2, dim=1)
            maps = maps * (1.0 + gain) + offset
        pooled = self.pool(maps)
        features: Tensor = self.project(pooled)
        return features if self.noise is None or not self.training else self._through_bottleneck(features, self.noise(pooled))

    def _through_bottleneck(self, mean: Tensor, log_std: Tensor) -> Tensor:
        """Features with noise; `divergence` is then that of their Gaussians from the standard one, the mean over samples."""
        log_std = log_std.clamp(*_LOG_NOISE)
        std = log_std.exp()
        self.divergence = (0.5 * (mean.square() + std.square() - 1.0) - log_std).sum(dim=-1).mean()
        return mean + std * torch.randn_like(mean)

    def train(self, mode: bool = True) -> PictureEncoder:
        """Batch normalisation, where torchvision's networks have it, keeps its statistics; a frozen network stays as it acts."""
        super().train(mode)
        for module in self.network.modules():
            if self.is_frozen or isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def _maps(self, values: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'); a network that ends in a vector ends in maps of one place each."""
        maps: Tensor = self.network(values)
        return maps if maps.dim() == 4 else maps[..., None, None]

    def _measure(self, channels: int, height: int, width: int, name: str) -> tuple[int, ...]:
        self.network.eval()
        try:
            with torch.no_grad():
                maps = self._maps(torch.zeros(1, channels, height, width)).shape[1:]
        except (RuntimeError, ValueError, AssertionError) as error:
            why = str(error).splitlines()[0].rstrip(".")
            raise FlywheelError(f"{name} cannot see pictures of {height} x {width} ({why}); choose another.") from None
        return tuple(maps)


def as_batch(pictures: Array) -> Tensor:
    """Arrays (N, H, W, C) as a tensor (N, C, H, W), channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)


class SpatialSoftmax(nn.Module):
    """Where each of K maps is largest, softly: (B, C, H, W) -> (B, 2 K), in [-1, 1] (Finn et al. 2016, as robomimic has it)."""

    places: Tensor

    def __init__(self, channels: int, height: int, width: int, keypoints: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, keypoints, 1)
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        self.register_buffer("places", torch.stack([x.reshape(-1), y.reshape(-1)], dim=1), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2 K)."""
        weights = self.maps(maps).flatten(2).softmax(dim=-1)
        places: Tensor = (weights @ self.places).flatten(1)
        return places


class SpatialEmbedding(nn.Module):
    """Learned weightings of the places of each map: (B, C, H, W) -> (B, 8 C) (PTR, Kumar et al. 2022)."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(height * width)
        self.weight = nn.Parameter(torch.empty(channels, height * width, _SPATIAL_FEATURES).uniform_(-bound, bound))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 8 C)."""
        return torch.einsum("bcp,cpk->bck", maps.flatten(2), self.weight).flatten(1)


def _seen(config: PictureConfig, shape: Shape) -> Shape:
    """What of a picture the network sees."""
    height, width, channels = shape
    if config.crop > min(height, width):
        raise FlywheelError(f"A crop of {config.crop} is larger than the pictures of {height} x {width}; crop less.")
    return (config.crop, config.crop, channels) if config.crop else shape


def _normalisation(channels: int, *, of_imagenet: bool) -> tuple[Tensor, Tensor]:
    """What bytes are multiplied by and what is added then, each (C, 1, 1): to [-0.5, 0.5], or as ImageNet's weights know it."""
    mean, std = (torch.tensor(_MEAN), torch.tensor(_STD)) if of_imagenet else (torch.full((3,), 0.5), torch.ones(3))
    of_color = torch.arange(channels) % 3
    return (1 / (255 * std))[of_color].view(-1, 1, 1), (-mean / std)[of_color].view(-1, 1, 1)


def _pool(config: PictureConfig, maps: tuple[int, ...]) -> nn.Module:
    match config.pooling:
        case "average":
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case "spatial_softmax":
            channels, height, width = maps
            return SpatialSoftmax(channels, height, width, config.keypoints)
        case "spatial_embedding":
            return SpatialEmbedding(*maps)
    return nn.Flatten()

"""Augmentation of pictures: batched, on the device that learns, drawn from torch's generator.

A served policy never comes here: what it sees is what its camera gave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError

_SEEN = ("observation", "next_observation", "goal", "actor_goal", "low_actor_goal", "high_actor_target")
"""The parts of a batch that may hold pictures."""
_GREY = 128
_LARGEST_SEED = 2**62


@dataclass(frozen=True)
class Augmentation:
    """What is done to the pictures of a batch before the networks see them."""

    shift: int = 4
    """Pixels by which a picture is moved at most, its edge being repeated (DrQ, Kostrikov et al. 2020; 4 of 84); 0 moves none."""
    brightness: float = 0.0
    """The largest share by which a picture is made lighter or darker."""
    contrast: float = 0.0
    """The largest share by which differences from a picture's mean are made larger or smaller."""
    saturation: float = 0.0
    """The largest share by which colours are made stronger or weaker."""
    cutout: float = 0.0
    """The side of a grey square at any place, as a share of the picture's (DeVries and Taylor 2017)."""
    probability: float = 1.0
    """The share of samples that are augmented; OGBench augments half."""
    consistent: bool = False
    """Augment what is seen before and after a transition, and the goal, alike; each for itself otherwise, as DrQ does."""

    def __post_init__(self) -> None:
        """Raises `FlywheelError` for numbers that make no sense."""
        if self.shift < 0:
            raise FlywheelError(f"shift must be at least 0 pixels, not {self.shift}.")
        shares = (self.brightness, self.contrast, self.saturation, self.cutout, self.probability)
        if not all(0.0 <= share <= 1.0 for share in shares):
            raise FlywheelError("brightness, contrast, saturation, cutout and probability must lie in [0, 1].")

    @property
    def is_off(self) -> bool:
        """Whether it does nothing."""
        return not self.probability or not (self.shift or self.changes_colors or self.cutout)

    @property
    def changes_colors(self) -> bool:
        """Whether brightness, contrast or saturation are changed."""
        return bool(self.brightness or self.contrast or self.saturation)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with every picture in it augmented, each sample by itself; without pictures nothing is drawn."""
        keys = [key for key, value in sorted(batch.observation.items()) if value.dtype == torch.uint8 and value.dim() == 4]
        if self.is_off or not keys:
            return batch
        seeds = torch.randint(_LARGEST_SEED, (len(_SEEN), len(keys))).tolist()
        changed: dict[str, Any] = {}
        for name, own in zip(_SEEN, seeds, strict=True):
            observation = getattr(batch, name)
            if observation is not None:
                moved = dict(observation)
                for key, seed in zip(keys, seeds[0] if self.consistent else own, strict=True):
                    if key in observation:  # a goal is shown by some cameras
                        generator = torch.Generator(batch.action.device).manual_seed(seed)
                        moved[key] = self.pictures(observation[key], generator)
                changed[name] = moved
        return replace(batch, **changed)

    def pictures(self, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, C, H, W) uint8 -> the same, channels last; the generator is one of their device."""
        augmented = pictures
        if self.shift:
            augmented = random_shift(augmented, self.shift, generator)
        if self.changes_colors:
            augmented = jitter(augmented, self.brightness, self.contrast, self.saturation, generator)
        if self.cutout:
            augmented = cutout(augmented, self.cutout, generator)
        if self.probability < 1.0:
            augmented = torch.where(_uniform(pictures, generator) < self.probability, augmented, pictures)
        return augmented


def random_shift(pictures: Tensor, pixels: int, generator: torch.Generator | None = None) -> Tensor:
    """Move each of (B, C, H, W) pictures by up to so many whole pixels in both directions, repeating its edge."""
    _, _, height, width = pictures.shape
    padded = _with_edge(pictures.permute(0, 2, 3, 1), pixels).permute(0, 3, 1, 2)
    return random_crop(padded, height, width, generator)


def random_crop(pictures: Tensor, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """So many pixels of each of (B, C, H, W) pictures, from anywhere within it: (B, C, height, width), channels last."""
    rows, channels, tall, wide = pictures.shape
    device = pictures.device
    # Every run of `width` pixels of a row; a crop is `height` of them, one from each of its rows.
    runs = pictures.permute(0, 2, 3, 1).flatten(2).unfold(2, width * channels, channels)
    down = torch.randint(tall - height + 1, (rows, 1), generator=generator, device=device)
    right = torch.randint(wide - width + 1, (rows, 1), generator=generator, device=device)
    sample = torch.arange(rows, device=device).unsqueeze(1)
    found = runs[sample, down + torch.arange(height, device=device), right]
    return found.view(rows, height, width, channels).permute(0, 3, 1, 2)


def centre_crop(pictures: Tensor, height: int, width: int) -> Tensor:
    """So many pixels from the middle of (B, C, H, W) pictures: (B, C, height, width)."""
    top, left = (pictures.shape[2] - height) // 2, (pictures.shape[3] - width) // 2
    return pictures[:, :, top : top + height, left : left + width]


def jitter(
    pictures: Tensor, brightness: float, contrast: float, saturation: float, generator: torch.Generator | None = None
) -> Tensor:
    """Change the light and the colours of each of (B, C, H, W) pictures by factors of its own.

    After torchvision's ColorJitter, whose batched form draws one factor for a whole batch; grey is the plain mean. Every three
    channels are red, green and blue; where C is no multiple of 3 there are no colours to make stronger or weaker.
    """
    values = pictures.float()
    values = values * _factors(values, brightness, generator)
    mean = values.mean(dim=(1, 2, 3), keepdim=True)
    values = mean + (values - mean) * _factors(values, contrast, generator)
    if pictures.shape[1] % 3 == 0:
        colors = values.view(len(values), -1, 3, *values.shape[2:])
        grey = colors.mean(dim=2, keepdim=True)
        values = (grey + (colors - grey) * _factors(values, saturation, generator).unsqueeze(1)).flatten(1, 2)
    return values.round().clamp(0, 255).to(pictures.dtype)


def cutout(pictures: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Cover a square of each of (B, C, H, W) pictures with grey, its centre anywhere; its side is so large a share of theirs."""
    _, _, height, width = pictures.shape
    below = _distances(height, _uniform(pictures, generator)) < share / 2
    beside = _distances(width, _uniform(pictures, generator)) < share / 2
    return pictures.masked_fill(below.transpose(2, 3) & beside, _GREY)


def _factors(values: Tensor, largest: float, generator: torch.Generator | None) -> Tensor:
    """(B, 1, 1, 1) in [1 - largest, 1 + largest]."""
    return 1.0 + largest * (2.0 * _uniform(values, generator) - 1.0)


def _uniform(pictures: Tensor, generator: torch.Generator | None) -> Tensor:
    """(B, 1, 1, 1) in [0, 1)."""
    return torch.rand((len(pictures), 1, 1, 1), generator=generator, device=pictures.device)


def _distances(size: int, centre: Tensor) -> Tensor:
    """(B, 1, 1, size): how far pixels lie from a centre (B, 1, 1, 1), as shares of their number."""
    return ((torch.arange(size, device=centre.device) + 0.5) / size - centre).abs()


def _with_edge(pictures: Tensor, pixels: int) -> Tensor:
    """(B, H, W, C) -> (B, H + 2 p, W + 2 p, C): with its outermost pixels repeated around it."""
    rows, height, width, channels = pictures.shape
    padded = pictures.new_empty(rows, height + 2 * pixels, width + 2 * pixels, channels)
    padded[:, pixels:-pixels, pixels:-pixels] = pictures
    padded[:, pixels:-pixels, :pixels] = pictures[:, :, :1]
    padded[:, pixels:-pixels, -pixels:] = pictures[:, :, -1:]
    padded[:, :pixels] = padded[:, pixels : pixels + 1]
    padded[:, -pixels:] = padded[:, -pixels - 1 : -pixels]
    return padded

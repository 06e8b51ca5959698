"""Augmentation of pictures: batched, on the device that learns, drawn from torch's generator.

A served policy never comes here: what it sees is what its camera gave.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flywheel.core.errors import FlywheelError


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

    def __call__(self, pictures: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> the same, channels last, each sample augmented by itself."""
        augmented = pictures
        if self.shift:
            augmented = random_shift(augmented, self.shift)
        if self.changes_colors:
            augmented = jitter(augmented, self.brightness, self.contrast, self.saturation)
        if self.cutout:
            augmented = cutout(augmented, self.cutout)
        if self.probability < 1.0:
            kept = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) >= self.probability
            augmented = torch.where(kept, pictures, augmented)
        return augmented


def random_shift(pictures: Tensor, pixels: int) -> Tensor:
    """Move each of (B, C, H, W) pictures by up to so many whole pixels in both directions, repeating its edge."""
    rows, _, height, width = pictures.shape
    padded = _with_edge(pictures.permute(0, 2, 3, 1), pixels)
    channels = padded.shape[-1]
    # Every run of `width` pixels of a padded row; a picture is `height` of them, one from each of its rows.
    runs = padded.flatten(2).unfold(2, width * channels, channels)
    down, right = torch.randint(0, 2 * pixels + 1, (2, rows, 1), device=pictures.device)
    sample = torch.arange(rows, device=pictures.device).unsqueeze(1)
    moved = runs[sample, down + torch.arange(height, device=pictures.device), right]
    return moved.view(rows, height, width, channels).permute(0, 3, 1, 2)


def jitter(pictures: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Change the light and the colours of each of (B, C, H, W) pictures, C a multiple of 3 or 1, by factors of its own.

    As torchvision's ColorJitter, whose batched form draws one factor for a whole batch.
    """
    values = pictures.float()
    values = values * _factors(values, brightness)
    mean = values.mean(dim=(1, 2, 3), keepdim=True)
    values = mean + (values - mean) * _factors(values, contrast)
    if pictures.shape[1] >= 3:
        grey = values.mean(dim=1, keepdim=True)
        values = grey + (values - grey) * _factors(values, saturation)
    return values.round().clamp(0, 255).to(pictures.dtype)


def cutout(pictures: Tensor, share: float) -> Tensor:
    """Cover a square of each of (B, C, H, W) pictures with grey, its centre anywhere; its side is so large a share of theirs."""
    rows, _, height, width = pictures.shape
    down, right = (_near(size, share, rows, pictures.device) for size in (height, width))
    covered = down.view(rows, 1, height, 1) & right.view(rows, 1, 1, width)
    return pictures.masked_fill(covered, 128)


def _factors(values: Tensor, largest: float) -> Tensor:
    """(B, 1, 1, 1) in [1 - largest, 1 + largest]."""
    return 1.0 + largest * (2.0 * torch.rand(len(values), 1, 1, 1, device=values.device) - 1.0)


def _near(size: int, share: float, rows: int, device: torch.device) -> Tensor:
    """(B, size) bool: the places of a row or column that are covered."""
    centre = torch.rand(rows, 1, device=device) * size
    return (torch.arange(size, device=device) + 0.5 - centre).abs() < share * size / 2


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

"""Whether a task is done, as pictures show it: one classifier for several tasks, after MT-Opt (Kalashnikov et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flywheel.networks.mlp import MLP, Layers
from flywheel.networks.pictures import PictureConfig, PictureEncoder, Shape


class SuccessClassifier(nn.Module):
    """Pictures of one moment and a task's number -> the logit of success; an encoder per camera, and an output for each task.

    A task that is told as an input alone is hardly learned where what is a success of one task is a failure of another.
    """

    def __init__(self, pictures: PictureConfig, shapes: Mapping[str, Shape], tasks: int, hidden: Sequence[int]) -> None:
        """`shapes` gives each camera's (H, W, C)."""
        super().__init__()
        self.tasks, self.cameras = tasks, tuple(sorted(shapes))
        self.encoders = nn.ModuleList(PictureEncoder(pictures, shapes[camera], tasks) for camera in self.cameras)
        self.trunk = MLP(len(self.cameras) * pictures.features + tasks, Layers(tuple(hidden)))
        self.head = nn.Linear(hidden[-1], tasks)
        self.divergence = torch.zeros(())
        """What the encoders' bottlenecks let through in the last forward pass in training mode, in nats per sample."""

    def forward(self, pictures: Mapping[str, Tensor], task: Tensor) -> Tensor:
        """By camera (B, C, H, W) uint8, and (B,) the tasks' numbers -> (B,) logits."""
        which = nn.functional.one_hot(task, self.tasks).float()
        seen = [encode(pictures[camera], which) for camera, encode in zip(self.cameras, self.encoders, strict=True)]
        passed: list[Any] = [encode.divergence for encode in self.encoders]
        self.divergence = torch.stack(passed).sum()
        logits: Tensor = self.head(self.trunk(torch.cat([*seen, which], dim=1)))
        return logits.gather(1, task[:, None]).squeeze(1)

"""What an encoder of pictures can learn beside what its algorithm asks of it: remedies where rewards or episodes are few.

    contrastive       -E[log softmax(z W k^T)],  k another augmentation of the same picture   (CURL; Laskin et al. 2020)
    time_contrastive  the same with k what follows the transition                             (TCN, R3M)
    reconstruction     E[|decode(z) - picture|^2], the picture averaged to 16 x 16            (SAC-AE; Yarats et al. 2019)
    dr3                E[z(s) . z(s')]                                                        (Kumar et al. 2021)

z are the encoder's features of the batch; k and z(s') are encoded by the same weights without gradient, where CURL has a slow
copy and DR3 takes the critic's last features. The workflow for offline learning from pictures (Kumar et al. 2021) answers
overfitting with a bottleneck (`PictureConfig.bottleneck`) and underfitting with DR3 and a larger network.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn

from flywheel.core.batch import Batch
from flywheel.core.errors import FlywheelError
from flywheel.networks.augment import random_shift
from flywheel.networks.encoders import CameraEncoder

_SHIFT = 4
"""Pixels by which a key's picture is moved."""
_SIDE = 16
"""Pixels of what is reconstructed."""


@dataclass(frozen=True)
class RepresentationConfig:
    """Weights of what the encoder learns beside its algorithm's losses; 0 leaves it out."""

    contrastive: float = 0.0
    """Tell two augmentations of a picture from other pictures (CURL)."""
    time_contrastive: float = 0.0
    """Tell what follows from what does not (time-contrastive, as in R3M)."""
    reconstruction: float = 0.0
    """Give the picture back, at 16 x 16."""
    dr3: float = 0.0
    """Keep the features of neighbouring observations apart (DR3; 0.001 is usual)."""

    def __post_init__(self) -> None:
        """Raises `FlywheelError` for a weight below 0."""
        if min(astuple(self)) < 0.0:
            raise FlywheelError("The weights of a representation's objectives must be at least 0.")

    @property
    def is_off(self) -> bool:
        """Whether nothing is learned beside."""
        return not any(astuple(self))


class Representation(nn.Module):
    """The networks of the objectives, over an encoder that is not its own."""

    def __init__(self, config: RepresentationConfig, encoder: CameraEncoder, bottleneck: float = 0.0) -> None:
        super().__init__()
        self.config, self.keys, self.bottleneck = config, encoder.keys, bottleneck
        self.similarity = nn.Linear(encoder.feature_dim, encoder.feature_dim, bias=False)
        self.similarity.requires_grad_(bool(config.contrastive or config.time_contrastive))
        channels = encoder.channels.values() if config.reconstruction else ()
        self.decoders = nn.ModuleList(nn.Linear(encoder.feature_dim, count * _SIDE**2) for count in channels)

    def losses(self, encoder: CameraEncoder, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses, one scalar each, and the bottleneck's where the encoder has one."""
        features = encoder(batch.observation, batch.goal)
        found: dict[str, Tensor] = {}
        if self.bottleneck:  # at once: the next pass, which has no gradient, overwrites it
            found["bottleneck"] = self.bottleneck * encoder.divergence
        if self.config.contrastive:
            moved = {key: random_shift(batch.observation[key], _SHIFT) for key in self.keys}
            with torch.no_grad():
                keys = encoder({**batch.observation, **moved}, batch.goal)
            found["contrastive"] = self.config.contrastive * self._contrast(features, keys)
        if self.config.time_contrastive or self.config.dr3:
            with torch.no_grad():
                following = encoder(batch.next_observation, batch.goal)
        if self.config.time_contrastive:
            found["time_contrastive"] = self.config.time_contrastive * self._contrast(features, following)
        if self.config.dr3:
            found["dr3"] = self.config.dr3 * (features * following).sum(dim=-1).mean()
        if self.config.reconstruction:
            found["reconstruction"] = self.config.reconstruction * self._distance(features, batch, encoder)
        return found

    def _contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        logits = self.similarity(queries) @ keys.t()
        return nn.functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))

    def _distance(self, features: Tensor, batch: Batch, encoder: CameraEncoder) -> Tensor:
        distances = []
        for key, decoder in zip(self.keys, self.decoders, strict=True):
            shown = encoder.shown(key, batch.observation, batch.goal).float() / 255 - 0.5
            wanted = nn.functional.adaptive_avg_pool2d(shown, _SIDE)
            distances.append((decoder(features).view_as(wanted) - wanted).square().mean())
        return torch.stack(distances).mean()

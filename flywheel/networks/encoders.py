"""From observations to features. Normalisation statistics are buffers, so that a served policy cannot forget them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from flywheel.core.errors import FlywheelError
from flywheel.networks.pictures import PictureConfig, PictureEncoder, Shape


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the networks see and give."""

    state: int
    """The length D of the state vector."""
    action: int
    """The length A of an action."""
    goal_conditioned: bool = False
    tasks: int = 0
    """How many tasks ``observation["task"]`` (B,) tells apart; 0 if there is nothing to tell."""
    language: int = 0
    """The length L of what says each task in words, beside its number; 0 if nothing does."""
    seen: tuple[int, ...] | None = None
    """The elements of the state that the networks see; all of them if None."""
    pictures: Mapping[str, Shape] = field(default_factory=dict)
    """The cameras that they see, with their pictures' (H, W, C)."""
    goal_pictures: tuple[str, ...] = ()
    """Those of the cameras that show the goal; with any, a goal is its pictures and no state."""
    frames: int = 1
    """How many pictures of each camera are seen at once, as channels, the newest last; a goal is one."""


class StateEncoder(nn.Module):
    """The normalised state, which of `tasks` tasks it is as one-hot and in words, and the normalised goal: {"state": (B, D),
    "task": (B,)} -> (B, F) with F = D' + tasks + L, and D' more with a goal, D' being as much of the state as is seen.

    What is seen now comes first, `now_dim` features, and what the goal adds last.
    """

    mean: Tensor
    std: Tensor
    language: Tensor
    _seen: Tensor | None

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.goal_conditioned = sizes.goal_conditioned
        self.tasks, self.speaks = sizes.tasks, bool(sizes.language)
        self.state_dim = sizes.state if sizes.seen is None else len(sizes.seen)
        self.now_dim = self.state_dim + sizes.tasks + sizes.language
        self.feature_dim = self.now_dim + (self.state_dim if sizes.goal_conditioned else 0)
        self.register_buffer("mean", torch.zeros(sizes.state))
        self.register_buffer("std", torch.ones(sizes.state))
        if sizes.language:
            self.register_buffer("language", torch.zeros(sizes.tasks, sizes.language))
        seen = None if sizes.seen is None else torch.tensor(sizes.seen, dtype=torch.long)
        self.register_buffer("_seen", seen, persistent=False)

    @property
    def goal_dim(self) -> int:
        """How many of the features show the goal alone."""
        return self.feature_dim - self.now_dim

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Normalise by (state - mean) / std from now on, each (D,); raises `FlywheelError` unless std is finite and positive."""
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise FlywheelError("Normalisation needs a finite mean and a finite, positive standard deviation of the state.")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def set_language(self, embedding: Tensor) -> None:
        """Say each task by its row of (tasks, L) from now on."""
        self.language.copy_(embedding)

    def forward(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None = None) -> Tensor:
        """(B, F); raises `FlywheelError` where a goal or a task is needed and missing, and ignores one that is not needed."""
        features = self.now(observation)
        if self.goal_conditioned:
            features.append(self._normalise(self._given(goal)["state"]))
        return torch.cat(features, dim=-1) if len(features) > 1 else features[0]

    def now(self, observation: dict[str, Tensor]) -> list[Tensor]:
        """The state, and the task where there are several."""
        features = [self._normalise(observation["state"])]
        if self.tasks:
            if "task" not in observation:
                raise FlywheelError("This network is conditioned on a task and was given none; name one that it has learned.")
            features.append(nn.functional.one_hot(observation["task"], self.tasks).to(features[0].dtype))
            if self.speaks:
                features.append(self.language[observation["task"]])
        return features

    def _given(self, goal: dict[str, Tensor] | None) -> dict[str, Tensor]:
        if goal is None:
            raise FlywheelError("This network is goal-conditioned and was given no goal; put a goal relabeler in front.")
        return goal

    def _normalise(self, state: Tensor) -> Tensor:
        normalised = (state - self.mean) / self.std
        return normalised if self._seen is None else normalised.index_select(-1, self._seen)


class CameraEncoder(StateEncoder):
    """The normalised state, the task, and what each camera shows; a goal is shown by some of the cameras, and has no state.

    Each camera has a network of its own. A goal's picture is further channels of the picture of now (``early``), or is seen by
    itself and comes after all else; where several pictures are seen at once, the network that they share is shown it as often.
    """

    def __init__(self, config: PictureConfig, sizes: Sizes) -> None:
        """Raises `FlywheelError` where no camera shows the goal, or pictures do not suit the network."""
        super().__init__(sizes)
        shows = sizes.goal_pictures if sizes.goal_conditioned else ()
        if sizes.goal_conditioned and not shows:
            raise FlywheelError("No camera shows the goal; name one at least.")
        self.keys = tuple(sorted(sizes.pictures))
        self.stacked = frozenset(shows if config.goal == "early" else ())
        condition = self.now_dim if config.film else 0
        self.frames = sizes.frames
        shapes = {key: _shape(sizes.pictures[key], sizes.frames + (key in self.stacked)) for key in self.keys}
        self.channels = {key: shape[-1] for key, shape in shapes.items()}
        self.cameras = nn.ModuleList(PictureEncoder(config, shape, condition) for shape in shapes.values())
        self.apart = () if config.goal == "early" else tuple(sorted(shows))
        separate = self.apart if config.goal == "separate" else ()
        self.of_goals = nn.ModuleList(PictureEncoder(replace(config, film=False), sizes.pictures[key]) for key in separate)
        self.divergence = torch.zeros(())
        """How much all bottlenecks let through in the last forward pass in training mode, in nats per sample."""
        self.now_dim += config.features * len(self.keys)
        self.feature_dim = self.now_dim + config.features * len(self.apart)

    def forward(self, observation: dict[str, Tensor], goal: dict[str, Tensor] | None = None) -> Tensor:
        """(B, F); raises `FlywheelError` where a camera's picture, a goal or a task is needed and missing."""
        features = self.now(observation)
        condition = torch.cat(features, dim=-1)
        passed: list[Any] = []
        reached = self._given(goal) if self.goal_conditioned else {}
        for key, camera in zip(self.keys, self.cameras, strict=True):
            features.append(camera(self.shown(key, observation, reached), condition))
            passed.append(camera.divergence)
        for number, key in enumerate(self.apart):
            shown = _picture(reached, key)
            if len(self.of_goals):
                encoder = self.of_goals[number]
            else:
                encoder, shown = self.cameras[self.keys.index(key)], shown.repeat(1, self.frames, 1, 1)
            features.append(encoder(shown))
            passed.append(encoder.divergence)
        self.divergence = torch.stack(passed).sum()
        return torch.cat(features, dim=-1)

    def shown(self, key: str, observation: dict[str, Tensor], goal: dict[str, Tensor] | None) -> Tensor:
        """What a camera's network is given: its picture (B, C, H, W), with the goal's as further channels where they are."""
        picture = _picture(observation, key)
        return torch.cat([picture, _picture(self._given(goal), key)], dim=1) if key in self.stacked else picture


def make_encoder(config: PictureConfig, sizes: Sizes) -> StateEncoder:
    """An encoder of what there is to see."""
    return CameraEncoder(config, sizes) if sizes.pictures else StateEncoder(sizes)


def _shape(shape: Shape, pictures: int) -> Shape:
    height, width, channels = shape
    return height, width, channels * pictures


def _picture(observation: dict[str, Tensor], key: str) -> Tensor:
    if key not in observation:
        raise FlywheelError(f"This network looks at the camera '{key}', and was given {sorted(observation)} without it.")
    return observation[key]

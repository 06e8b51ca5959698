"""A learned policy: specifications, normaliser and networks in one safetensors file, with its lineage in the header.

The file's hash is the policy's name in every episode that it makes.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from flywheel.algorithms.base import Algorithm, Sizes
from flywheel.core import config as configs
from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.core.files import write_atomically
from flywheel.core.lineage import content_hash
from flywheel.core.specs import ActionSpec, Array, ArraySpec, Observation, ObservationSpec
from flywheel.datasets.colors import check_colors
from flywheel.datasets.pictures import Encoding, as_stored
from flywheel.networks.backbones import without_reading_weights
from flywheel.networks.pictures import Shape, as_batch

POLICY_FILE = "policy.safetensors"
_HEADER = "flywheel"
_FORMAT = 1
_GOAL = "goal."
"""What the names of a built-in goal's arrays begin with."""
_USUAL = "usual."
"""The same of what its cameras usually show."""


class MixtureHeader(TypedDict):
    """The networks' sizes, which are larger than the robot's own, and the other stores' snapshots."""

    state_dim: int
    action_dim: int
    snapshots: list[str]


@dataclass(frozen=True)
class PolicyHeader:
    """Everything about a policy but its weights."""

    algorithm: str
    config: dict[str, Any]
    """The algorithm's configuration."""
    observation: dict[str, Any]
    action: dict[str, Any]
    goal_conditioned: bool
    snapshot: str
    """The hash of the dataset snapshot it was trained on."""
    parent: str = ""
    """The hash of the policy that training started from."""
    task: str = ""
    tasks: tuple[str, ...] = ()
    """What a policy of several tasks tells apart, in the order of its one-hot; empty for a policy of one."""
    updates: int = 0
    seed: int = 0
    code_version: str = ""
    mixture: MixtureHeader | None = None
    """What else it was trained on, where stores of several robots were mixed (`datasets.mixture`)."""
    detector: str = ""
    """The hash of the success detector whose verdicts it learned from, where it was one's."""
    hidden: tuple[str, ...] = ()
    """The observations that it does not see, though they lie in the state."""
    pictures: tuple[str, ...] = ()
    """The cameras that it sees."""
    goal_pictures: tuple[str, ...] = ()
    """Those of them that show the goal."""
    software: tuple[str, ...] = ()
    """What drew and simulated what it learned from, as JSON, each once; where it sees pictures."""
    frames: int = 1
    """How many of each camera's pictures it sees at once."""
    language: int = 0
    """The length of what says each task in words, which is among its weights."""
    picture_encoding: Encoding | None = None
    """What the pictures that it learned from had been through: a JPEG is not the picture that the camera gave."""


class LearnedPolicy:
    """Acts with a trained algorithm, one observation at a time, on the CPU; satisfies `core.policy.Policy`."""

    def __init__(
        self,
        header: PolicyHeader,
        algorithm: Algorithm,
        checkpoint: str,
        goal: Mapping[str, Array] | None = None,
        usual: Mapping[str, Array] | None = None,
    ) -> None:
        self.header = header
        self.algorithm = algorithm.eval()
        self.checkpoint = checkpoint
        self.snapshot = header.snapshot
        self.agent_id = f"{header.algorithm}-{checkpoint[:8]}"
        self.layout = ObservationSpec.from_json(header.observation)
        """What the store holds: all of the state, and the pictures."""
        self.observation_spec = _seen(header, self.layout)
        self.action_spec = ActionSpec.from_json(header.action)
        self.goal = goal
        """The built-in goal, ``state`` (D,) and pictures (H, W, C); a goal given to `act` goes before it."""
        self._usual, self._is_first = usual or {}, True
        self._frames: deque[dict[str, torch.Tensor]] = deque(maxlen=header.frames)
        self.deterministic = True
        """Set to False to sample actions, as exploration while collecting."""
        self._task: dict[str, torch.Tensor] = {}

    @classmethod
    def load(cls, path: Path) -> LearnedPolicy:
        """Read a policy file, or the one in a run folder; raises `FlywheelError` when there is none or it is damaged."""
        file = path / POLICY_FILE if path.is_dir() else path
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise FlywheelError(f"There is no policy at {file}; give a run folder whose training has finished.") from None
        try:
            tensors = load(data)
            header = _read_header(data)
            goal, usual = (_taken(tensors, prefix) for prefix in (_GOAL, _USUAL))
            with without_reading_weights():
                algorithm = build_algorithm(header)
            algorithm.load_state_dict(tensors)
        except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            why = str(error).splitlines()[0].rstrip(":")
            raise FlywheelError(f"{file} is not a readable policy file ({why}); copy or train it again.") from None
        return cls(header, algorithm, content_hash(data), goal or None, usual)

    def choose_task(self, task: str) -> None:
        """Act for this task from now on, where the policy tells several apart; raises `FlywheelError` for an unknown one."""
        if not self.header.tasks:
            return
        if task not in self.header.tasks:
            raise FlywheelError(
                f"Policy {self.agent_id} has not learned the task '{task}';{registry.nearest(task, self.header.tasks)} it knows "
                f"{', '.join(self.header.tasks)}."
            )
        self._task = {"task": torch.tensor([self.header.tasks.index(task)])}

    def reset(self, seed: int) -> None:
        """Begin an episode: forget the pictures of the last one, and seed the sampling of actions (and of CEM's candidates)."""
        self._is_first = True
        self._frames.clear()
        torch.manual_seed(seed)

    @torch.inference_mode()
    def act(self, observation: Observation, goal: Observation | None = None) -> Array:
        """The action, float32 (A,), in the robot's units.

        Raises `SpecError` for an observation of another shape, and `FlywheelError` where a goal or a task is needed and missing.
        """
        seen = self.see(observation) | self._task
        action = self.algorithm.act(seen, self._goal(goal), self.deterministic)[0].numpy()[: self.action_spec.dim]
        return self.action_spec.denormalize(action)

    def see(self, observation: Observation) -> dict[str, torch.Tensor]:
        """An observation as training saw it, bit for bit: ``state`` (1, D), and pictures (1, frames C, H, W) uint8, this one's
        after those of the observations before it since `reset`.

        Raises `SpecError` for one of another shape, and `FlywheelError` for an episode's first one with red and blue exchanged;
        what the policy does not see is not looked at.
        """
        checked = _validated(self.observation_spec, observation)
        if self._is_first:
            check_colors(checked, self._usual)
            self._is_first = False
        return self._state(checked) | self._in_a_row(self._pictures(checked, self.header.pictures))

    def _in_a_row(self, pictures: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """With those before it; where there were none, the first one was there all the time, as in training (`Window`)."""
        if self.header.frames == 1:
            return pictures
        self._frames.extend([pictures] * (1 if self._frames else self.header.frames))
        return {key: torch.cat([frame[key] for frame in self._frames], dim=1) for key in pictures}

    def _state(self, checked: Observation) -> dict[str, torch.Tensor]:
        unseen = {key: np.zeros(self.layout.arrays[key].shape, np.float32) for key in self.header.hidden}
        state = torch.from_numpy(self.layout.pack_state({**checked, **unseen}))
        # What only other robots have is their mean, which the network normalises to zero, as in training.
        others = self.algorithm.encoder.mean[len(state) :]
        return {"state": torch.cat([state, others])[None]}

    def _goal(self, goal: Observation | None) -> dict[str, torch.Tensor] | None:
        if not self.header.goal_conditioned:
            return None
        if goal is not None:
            return self._goal_given(goal)
        if self.goal is None:
            raise FlywheelError(
                f"Policy {self.agent_id} reaches goals and was given none; pass goal observations (--goals FILE)."
            )
        pictures = {key: as_batch(self.goal[key][None]) for key in self.header.goal_pictures}
        return {"state": torch.from_numpy(self.goal["state"])[None], **pictures}

    @property
    def goal_spec(self) -> ObservationSpec:
        """What a goal has to show: some pictures, or the state."""
        shown = self.header.goal_pictures or self.observation_spec.state_keys
        return ObservationSpec({key: self.observation_spec.arrays[key] for key in shown})

    def _goal_given(self, goal: Observation) -> dict[str, torch.Tensor]:
        checked, shown = _validated(self.goal_spec, goal), self.header.goal_pictures
        return self._pictures(checked, shown) if shown else self._state(checked)

    def _pictures(self, checked: Observation, keys: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """As training saw them: what a store keeps as JPEG goes through JPEG here, too."""
        encoding = self.header.picture_encoding
        seen = {key: checked[key] if encoding is None else as_stored(checked[key], encoding) for key in keys}
        return {key: as_batch(picture[None]) for key, picture in seen.items()}


def build_algorithm(header: PolicyHeader) -> Algorithm:
    """The untrained algorithm that a header describes."""
    cls = registry.load("algorithms", header.algorithm, Algorithm)  # type: ignore[type-abstract]
    return cls(configs.from_dict(cls.Config, header.config), _sizes(header))


def _sizes(header: PolicyHeader) -> Sizes:
    layout, action = ObservationSpec.from_json(header.observation), ActionSpec.from_json(header.action)
    shown = [key for key in layout.state_keys if key not in header.hidden]
    seen = [place for key in shown for place in range(layout.state_dim)[layout.state_slice(key)]]
    return Sizes(
        state=header.mixture["state_dim"] if header.mixture else layout.state_dim,
        action=header.mixture["action_dim"] if header.mixture else action.dim,
        goal_conditioned=header.goal_conditioned,
        tasks=len(header.tasks),
        seen=tuple(seen) if header.hidden else None,
        pictures={key: _picture_shape(layout.arrays[key]) for key in header.pictures},
        goal_pictures=header.goal_pictures,
        frames=header.frames,
        language=header.language,
    )


def _taken(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, Array]:
    """The arrays whose names begin so, less that, which are no longer among the tensors."""
    return {name.removeprefix(prefix): tensors.pop(name).numpy() for name in list(tensors) if name.startswith(prefix)}


def _picture_shape(spec: ArraySpec) -> Shape:
    height, width, channels = spec.shape
    return height, width, channels


def _seen(header: PolicyHeader, layout: ObservationSpec) -> ObservationSpec:
    """What the policy has to be given."""
    keys = (*(key for key in layout.state_keys if key not in header.hidden), *header.pictures)
    return ObservationSpec({key: layout.arrays[key] for key in keys})


def _validated(spec: ObservationSpec, observation: Observation) -> dict[str, Array]:
    """What the specification declares of an observation, checked; the rest is not looked at."""
    return spec.validate({key: observation[key] for key in spec.arrays if key in observation})


def save_policy(
    path: Path,
    header: PolicyHeader,
    algorithm: Algorithm,
    goal: Mapping[str, Array] | None,
    usual: Mapping[str, Array] | None = None,
) -> str:
    """Write a policy file, whole or not at all, and return its hash; `usual` is how red its cameras are (`datasets.colors`)."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in algorithm.state_dict().items()}
    for prefix, arrays in ((_GOAL, goal), (_USUAL, usual)):
        tensors |= {f"{prefix}{key}": torch.from_numpy(np.ascontiguousarray(value)) for key, value in (arrays or {}).items()}
    data = save(tensors, {_HEADER: json.dumps({"format": _FORMAT, **asdict(header)}, sort_keys=True)})
    write_atomically(path, data)
    return content_hash(data)


def _read_header(data: bytes) -> PolicyHeader:
    length = int.from_bytes(data[:8], "little")
    values = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_HEADER])
    if values.pop("format") != _FORMAT:
        raise ValueError("it was written by another version of flywheel")
    found: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return PolicyHeader(**found)

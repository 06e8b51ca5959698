"""A learned policy: specifications, normaliser and networks in one safetensors file, with its lineage in the header.

The file's hash is the policy's name in every episode that it makes.
"""

from __future__ import annotations

import json
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
from flywheel.core.specs import ActionSpec, Array, Observation, ObservationSpec

POLICY_FILE = "policy.safetensors"
_HEADER = "flywheel"
_FORMAT = 1


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


class LearnedPolicy:
    """Acts with a trained algorithm, one observation at a time, on the CPU; satisfies `core.policy.Policy`."""

    def __init__(self, header: PolicyHeader, algorithm: Algorithm, checkpoint: str, goal: Array | None = None) -> None:
        self.header = header
        self.algorithm = algorithm.eval()
        self.checkpoint = checkpoint
        self.snapshot = header.snapshot
        self.agent_id = f"{header.algorithm}-{checkpoint[:8]}"
        self.observation_spec = ObservationSpec.from_json(header.observation)
        self.action_spec = ActionSpec.from_json(header.action)
        self.goal_state = goal
        """(D,) the built-in goal; a goal given to `act` goes before it."""
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
            goal = tensors.pop("goal.state", None)
            algorithm = build_algorithm(header)
            algorithm.load_state_dict(tensors)
        except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            why = str(error).splitlines()[0].rstrip(":")
            raise FlywheelError(f"{file} is not a readable policy file ({why}); copy or train it again.") from None
        return cls(header, algorithm, content_hash(data), None if goal is None else goal.numpy())

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
        """Seed the sampling of actions (and of CEM's candidates) for one episode."""
        torch.manual_seed(seed)

    @torch.inference_mode()
    def act(self, observation: Observation, goal: Observation | None = None) -> Array:
        """The action, float32 (A,), in the robot's units.

        Raises `SpecError` for an observation of another shape, and `FlywheelError` where a goal or a task is needed and missing.
        """
        state = self._state(observation)
        target = self._goal(goal)
        action = self.algorithm.act(state | self._task, target, self.deterministic)[0].numpy()[: self.action_spec.dim]
        return self.action_spec.denormalize(action)

    def _state(self, observation: Observation) -> dict[str, torch.Tensor]:
        checked = self.observation_spec.validate(observation)
        state = torch.from_numpy(self.observation_spec.pack_state(checked))
        # What only other robots have is their mean, which the network normalises to zero, as in training.
        others = self.algorithm.encoder.mean[len(state) :]
        return {"state": torch.cat([state, others])[None]}

    def _goal(self, goal: Observation | None) -> dict[str, torch.Tensor] | None:
        if not self.header.goal_conditioned:
            return None
        if goal is not None:
            return self._state(goal)
        if self.goal_state is None:
            raise FlywheelError(
                f"Policy {self.agent_id} reaches goals and was given none; pass goal observations (--goals FILE)."
            )
        return {"state": torch.from_numpy(self.goal_state)[None]}


def build_algorithm(header: PolicyHeader) -> Algorithm:
    """The untrained algorithm that a header describes."""
    cls = registry.load("algorithms", header.algorithm, Algorithm)  # type: ignore[type-abstract]
    dims = ObservationSpec.from_json(header.observation).state_dim, ActionSpec.from_json(header.action).dim
    if header.mixture:
        dims = header.mixture["state_dim"], header.mixture["action_dim"]
    return cls(configs.from_dict(cls.Config, header.config), Sizes(*dims, header.goal_conditioned, len(header.tasks)))


def save_policy(path: Path, header: PolicyHeader, algorithm: Algorithm, goal: Array | None) -> str:
    """Write a policy file, whole or not at all, and return its hash."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in algorithm.state_dict().items()}
    if goal is not None:
        tensors["goal.state"] = torch.from_numpy(np.ascontiguousarray(goal, np.float32))
    data = save(tensors, {_HEADER: json.dumps({"format": _FORMAT, **asdict(header)}, sort_keys=True)})
    write_atomically(path, data)
    return content_hash(data)


def _read_header(data: bytes) -> PolicyHeader:
    length = int.from_bytes(data[:8], "little")
    values = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_HEADER])
    if values.pop("format") != _FORMAT:
        raise ValueError("it was written by another version of flywheel")
    return PolicyHeader(**{**values, "tasks": tuple(values.get("tasks", ()))})

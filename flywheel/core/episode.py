"""An episode as RLDS means it, held as columns.

Step t holds (o_t, a_t, r_t): a_t was chosen at o_t, and r_t came from applying it. The last step holds the final
observation; its action and reward are undefined (zero here). `is_terminal` marks an end of the environment's own, where the
value is zero; an end without it is a truncation, and a learner must bootstrap there.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel.core.errors import SpecError
from flywheel.core.specs import ActionSpec, Array, ArraySpec, Observation, ObservationSpec


@dataclass(frozen=True)
class EpisodeMetadata:
    """Who made an episode, with what, and how it ended: RLDS names where there is one, JSON where a field is structured."""

    episode_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Unique in every store; appending the same id twice stores it once."""
    agent_id: str = ""
    """The policy's name: an expert's, an operator's, or a checkpoint's short name."""
    experiment_id: str = ""
    environment_config: str = ""
    """JSON: what is needed to build the same environment again."""
    invalid: bool = False
    """RLDS: the episode should in general be ignored."""
    task: str = ""
    robot: str = ""
    seed: int = -1
    """The seed of the initial state; -1 where there was none (a real robot)."""
    success: bool = False
    success_detector: str = ""
    """The name and version of what decided `success`."""
    policy_checkpoint: str = ""
    """The hash of the checkpoint that acted, empty for a person or a script."""
    policy_snapshot: str = ""
    """The hash of the dataset snapshot that this checkpoint was trained on."""
    code_version: str = ""
    robot_id: str = ""
    calibration_id: str = ""
    controller: str = ""
    """JSON: the action's meaning, as in `ActionSpec`."""
    safety_events: str = ""
    """JSON: what the safety layer changed, as a list of kind, step and reason; empty where nothing was."""
    operator: str = ""
    software: str = ""
    """JSON: versions of the simulator, renderer and drivers."""
    started_at_ns: int = 0
    """Wall-clock start in nanoseconds since 1970 (an integer, as tf.train.Example has no float64)."""
    source: str = ""
    """JSON: where an imported episode came from (format, content identity, index); empty for one recorded here."""

    def to_json(self) -> dict[str, Any]:
        """A flat dictionary of strings, integers and booleans."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EpisodeMetadata:
        """Read `to_json`'s form; a field that a newer version added is ignored."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True, eq=False)
class Episode:
    """T transitions as T + 1 steps, each field with time as its first axis."""

    observation: dict[str, Array]
    action: npt.NDArray[np.float32]
    """(T + 1, A); the last row is undefined and zero."""
    reward: npt.NDArray[np.float32]
    """(T + 1,); the last entry is undefined and zero."""
    discount: npt.NDArray[np.float32]
    """(T + 1,); 0 at the transition that ends in a terminal state and at the terminal step itself, else 1."""
    is_first: npt.NDArray[np.bool_]
    is_last: npt.NDArray[np.bool_]
    is_terminal: npt.NDArray[np.bool_]
    metadata: EpisodeMetadata

    def __len__(self) -> int:
        """The number of steps, final observation included."""
        return len(self.reward)

    @property
    def transitions(self) -> int:
        """The number of transitions (actions taken)."""
        return len(self.reward) - 1

    @property
    def episode_return(self) -> float:
        """The undiscounted sum of rewards."""
        return float(self.reward.sum(dtype=np.float64))

    @classmethod
    def from_transitions(
        cls,
        observations: Sequence[Observation],
        actions: Sequence[Array],
        rewards: Sequence[float],
        *,
        terminal: bool,
        metadata: EpisodeMetadata,
    ) -> Episode:
        """Build an episode from T + 1 observations, T actions and T rewards; `terminal` says whether it ended of itself.

        Raises `SpecError` when lengths or keys disagree, or when there is no action.
        """
        count = len(actions)
        if count == 0 or len(observations) != count + 1 or len(rewards) != count:
            raise SpecError(
                f"An episode of T actions needs T + 1 observations and T rewards, not {len(observations)} observations, "
                f"{count} actions and {len(rewards)} rewards."
            )
        if any(step.keys() != observations[0].keys() for step in observations):
            raise SpecError("The observations of one episode must all have the same keys.")
        stacked = np.asarray(actions, dtype=np.float32)
        discount = np.ones(count + 1, np.float32)
        is_first, is_last, is_terminal = (np.zeros(count + 1, np.bool_) for _ in range(3))
        is_first[0], is_last[-1], is_terminal[-1] = True, True, terminal
        if terminal:
            discount[-2:] = 0.0
        return cls(
            observation={key: np.stack([step[key] for step in observations]) for key in observations[0]},
            action=np.concatenate([stacked, np.zeros_like(stacked[:1])]),
            reward=np.append(np.asarray(rewards, np.float32), np.float32(0.0)),
            discount=discount,
            is_first=is_first,
            is_last=is_last,
            is_terminal=is_terminal,
            metadata=metadata,
        )

    def validate(self, observation: ObservationSpec, action: ActionSpec) -> Episode:
        """Return the episode with every array checked and cast; raises `SpecError` naming the first thing that is wrong."""
        steps, name = len(self), f"Episode {self.metadata.episode_id}"
        if steps < 2:
            raise SpecError(f"{name} has {steps} steps; it needs at least one action and a final observation.")
        columns = {key: getattr(self, key) for key in ("action", "reward", "discount", "is_first", "is_last", "is_terminal")}
        columns |= {f"observation['{key}']": value for key, value in self.observation.items()}
        for key, value in columns.items():
            if len(value) != steps:
                raise SpecError(f"{name}: {key} has {len(value)} rows, not {steps}.")
        if not self.is_first[0] or self.is_first[1:].any() or not self.is_last[-1] or self.is_last[:-1].any():
            raise SpecError(f"{name}: is_first must mark the first step alone and is_last the last step alone.")
        if self.is_terminal[:-1].any():
            raise SpecError(f"{name}: is_terminal may mark the last step alone.")
        return Episode(
            observation=observation.validate(self.observation, leading=1),
            action=action.array.validate(self.action, "action", leading=1),
            reward=ArraySpec(()).validate(self.reward, "reward", leading=1),
            discount=ArraySpec(()).validate(self.discount, "discount", leading=1),
            is_first=self.is_first,
            is_last=self.is_last,
            is_terminal=self.is_terminal,
            metadata=self.metadata,
        )

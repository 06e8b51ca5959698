"""What acts: an expert script, a person, a learned network. Rollouts know nothing more of it than this."""

from __future__ import annotations

from typing import Protocol

from flywheel.core.specs import Array, Observation


class Policy(Protocol):
    """Chooses actions. `agent_id`, `checkpoint` and `snapshot` go into every episode that it makes (lineage)."""

    agent_id: str
    """A short name, for example ``lift-expert`` or ``iql-finetuned``."""
    checkpoint: str
    """The hash of the checkpoint; empty for a script or a person."""
    snapshot: str
    """The hash of the dataset snapshot it was trained on; empty for a script or a person."""

    def reset(self, seed: int) -> None:
        """Forget the last episode and seed whatever is random in the next one."""

    def act(self, observation: Observation, goal: Observation | None = None) -> Array:
        """The action for an observation: float32, (A,), meant for the robot's action specification."""

"""The layer between a policy and an arm: nothing non-finite, out of bounds, stale or repeated passes, and nothing silently.

The order is the one that works: finite, shape and dtype, sequence number, age, limits, workspace. A
refused action becomes a hold; a second refusal in a row, or the watchdog, stops the arm until the next `reset`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.specs import ActionSpec, Array, ObservationSpec
from flywheel.robots.base import Robot, Scene, hold_action

Kind = Literal["clip", "hold", "stop"]


@dataclass(frozen=True)
class SafetyLimits:
    """What the layer allows; times are in seconds on the robot's clock, lengths in metres in the action's frame."""

    max_action_age: float = 0.1
    """An action issued longer ago than this is refused."""
    watchdog: float = 0.2
    """The arm is stopped when no good action has arrived for this long."""
    frozen: int = 20
    """The arm is stopped when so many observations in a row repeat the last bit for bit although it was told to move."""
    workspace: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """The lowest and highest corner of the box that the end effector (``eef_pos``) may be sent to."""


@dataclass(frozen=True)
class SafetyEvent:
    """One thing that the layer did."""

    kind: Kind
    step: int
    """The count of `act` calls since the reset, from 0."""
    reason: str


class SafeRobot(Robot):
    """A robot whose every action passes the checks; `events` tells what was changed, since the last reset."""

    def __init__(self, robot: Robot, limits: SafetyLimits | None = None, clock: Callable[[], float] | None = None) -> None:
        """Guard a robot; `clock` replaces the robot's own."""
        self.name, self.is_real_time = robot.name, robot.is_real_time
        self.events: list[SafetyEvent] = []
        self._robot, self._limits, self._clock = robot, limits or SafetyLimits(), clock or robot.clock
        self._hold = hold_action(robot.action_spec)
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._eef_pos: Array | None = None
        self._begin()

    @property
    def observation_spec(self) -> ObservationSpec:
        """The robot's."""
        return self._robot.observation_spec

    @property
    def action_spec(self) -> ActionSpec:
        """The robot's."""
        return self._robot.action_spec

    @property
    def software(self) -> dict[str, str]:
        """The robot's."""
        return self._robot.software

    def connect(self) -> None:
        """Connect, and for a robot that moves on by itself start the watchdog's thread."""
        self._robot.connect()
        if self.is_real_time and self._thread is None:
            self._closing.clear()
            self._thread = threading.Thread(target=self._watch, name="safety-watchdog", daemon=True)
            self._thread.start()

    def disconnect(self) -> None:
        """End the watchdog's thread and disconnect."""
        if self._thread is not None:
            self._closing.set()
            self._thread.join()
            self._thread = None
        self._robot.disconnect()

    def reset(self, scene: Scene) -> None:
        """Reset the robot, forget the events, and release a stop: the one way to release it."""
        with self._lock:
            self._robot.reset(scene)
            self._begin()

    def observe(self) -> dict[str, Array]:
        """The robot's observation; one that breaks its specification stops the robot and raises `SpecError`."""
        observation = self._robot.observe()
        try:
            observation = self.observation_spec.validate(observation)
        except SpecError as error:
            self._stop(str(error))
            raise
        self._eef_pos = observation.get("eef_pos")
        self._watch_sensors(observation)
        return observation

    def act(self, action: Array, *, issued_at: float | None = None, sequence: int | None = None) -> Array:
        """Execute the action as far as it is safe, and return what was executed, (A,) float32.

        `issued_at` is the clock's time at which the action was decided and `sequence` its number; where given, an action
        that is too old, from the future, or not newer than the last good one is refused.
        """
        with self._lock:
            self.tick()
            if self.is_stopped:
                self._step += 1
                return self._hold.copy()
            try:
                wanted = self._checked(action, issued_at, sequence)
            except SpecError as error:
                executed = self._refuse(str(error))
            else:
                executed = self._execute(wanted, sequence)
            self._step += 1
            return executed

    def tick(self) -> None:
        """Stop the robot if no good action has arrived in time; called by `act` and by the watchdog's thread."""
        with self._lock:
            late = None if self._last_good is None else self._clock() - self._last_good
            if late is not None and late > self._limits.watchdog:
                self._stop(f"no good action for {late:.3f} s, more than the {self._limits.watchdog} s of the watchdog")

    def stop(self) -> None:
        """Stop the robot until the next reset."""
        self._stop("asked to stop")

    def clock(self) -> float:
        """The clock that ages and the watchdog are measured on."""
        return self._clock()

    def render(self, height: int, width: int) -> Array:
        """The robot's picture."""
        return self._robot.render(height, width)

    def _begin(self) -> None:
        self.is_stopped = False
        self.events.clear()
        self._step = 0
        self._refusals = 0
        self._last_good: float | None = None
        self._last_sequence: int | None = None
        self._eef_pos = None
        self._state = b""
        self._moving = False
        self._frozen = 0

    def _checked(self, action: Array, issued_at: float | None, sequence: int | None) -> Array:
        try:
            wanted = self.action_spec.validate(action)
        except (ValueError, TypeError) as error:  # ragged lists and the like, which are no array at all
            raise SpecError(f"the action is not an array: {error}") from None
        if sequence is not None and self._last_sequence is not None and sequence <= self._last_sequence:
            raise SpecError(f"action number {sequence} is not newer than {self._last_sequence}")
        if issued_at is not None and not 0.0 <= self._clock() - issued_at <= self._limits.max_action_age:
            age = self._clock() - issued_at
            raise SpecError(f"the action's age is {age:.3f} s, not within the {self._limits.max_action_age} s allowed")
        return wanted

    def _execute(self, wanted: Array, sequence: int | None) -> Array:
        spec = self.action_spec
        safe = np.clip(wanted, *spec.bounds)
        if (safe != wanted).any():
            self._note("clip", f"limits of dimensions {np.flatnonzero(safe != wanted).tolist()}")
        boxed = self._in_workspace(safe)
        if (boxed != safe).any():
            self._note("clip", f"workspace in dimensions {np.flatnonzero(boxed != safe).tolist()}")
        executed = self._robot.act(boxed)
        self._moving = bool(executed.any())
        self._refusals, self._last_good = 0, self._clock()
        self._last_sequence = self._last_sequence if sequence is None else sequence
        return executed

    def _in_workspace(self, action: Array) -> Array:
        if self._limits.workspace is None:
            return action
        if self._eef_pos is None:
            raise FlywheelError("A workspace needs the end effector's position; call observe() before act().")
        low, high = (np.asarray(corner, np.float32) for corner in self._limits.workspace)
        scale = np.asarray(self.action_spec.scale[:3], np.float32)
        boxed = action.copy()
        target = np.clip(self._eef_pos + action[:3] * scale, low, high)
        # An arm outside the box may come back at its declared speed and no faster.
        boxed[:3] = np.clip((target - self._eef_pos) / scale, self.action_spec.low[:3], self.action_spec.high[:3])
        return boxed

    def _watch_sensors(self, observation: dict[str, Array]) -> None:
        """Living sensors are never still to the last bit while the arm moves."""
        state = self.observation_spec.pack_state(observation).tobytes()
        self._frozen = self._frozen + 1 if self._moving and state == self._state else 0
        self._state, self._moving = state, False
        if self._frozen >= self._limits.frozen:
            self._stop(f"{self._frozen} observations in a row repeat the last one although the arm was told to move")

    def _refuse(self, reason: str) -> Array:
        self._refusals += 1
        if self._refusals > 1:
            self._stop(f"two refusals in a row: {reason}")
            return self._hold.copy()
        self._note("hold", reason)
        return self._robot.act(self._hold.copy())

    def _stop(self, reason: str) -> None:
        with self._lock:
            if not self.is_stopped:
                self.is_stopped = True
                self._note("stop", reason)
                self._robot.stop()

    def _note(self, kind: Kind, reason: str) -> None:
        self.events.append(SafetyEvent(kind, self._step, reason))

    def _watch(self) -> None:
        while not self._closing.wait(self._limits.watchdog / 4):
            self.tick()

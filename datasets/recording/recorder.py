"""Logging from within a control loop: a step costs microseconds, and neither the disk nor another thread ever holds it up.

    with store.recorder() as recorder:
        with recorder.episode(task="lift", robot="my_arm") as episode:
            episode.step(observation, action, reward)  # o_t, a_t chosen at it, r_t from applying it
            ...
            episode.finish(observation, success=True, terminal=True)  # o_T

A step is checked, copied into memory that is shared with a process beside this one, and told to it through a pipe. That process
(`process`) writes the steps to the disk as they come, and stores the episode when it is finished. Memory that is full
is an error, never a silent loss; and if this process dies, the steps so far are stored, flagged as invalid.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from flywheel.core.episode import EpisodeMetadata
from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.lineage import code_version
from flywheel.datasets.journal import StoreWarning
from flywheel.datasets.recording.ring import HEADER
from flywheel.datasets.recording.session import Outcome, RecorderError, RecorderFullError, Session
from flywheel.datasets.recording.step_encoder import StepEncoder
from flywheel.datasets.recording.step_layout import BEGIN, BREAK, FINISH, STEP, begin_json, json_bytes
from flywheel.datasets.writer import check_metadata

if TYPE_CHECKING:
    from flywheel.datasets.store import EpisodeStore

__all__ = ["EpisodeRecording", "Recorder", "RecorderError", "RecorderFullError", "record_episode"]

_KINDS: dict[str, type] = {"str": str, "int": int, "bool": bool}
_FIELDS = {item.name: _KINDS[str(item.type)] for item in fields(EpisodeMetadata)}


class Recorder:
    """Records one episode after the other into a store, for one thread of one process; any number of recorders may at once.

    Making one starts its process and waits for it, some tenths of a second. Leaving the `with` block, or `close`, waits until
    every episode is on the disk.
    """

    def __init__(self, store: EpisodeStore, *, ring_bytes: int = 64 << 20, seal_episodes: int = 256) -> None:
        """A recorder into `store` that holds up to `ring_bytes` of steps while the disk is busy: see `capacity`.

        Raises `FlywheelError` for too small a memory, and where nobody may or should write.
        """
        self._store = store
        self._session = Session(store, ring_bytes, seal_episodes)
        self._encoder = StepEncoder(self._session.layout)
        self._current: EpisodeRecording | None = None
        action = json.dumps(store.schema.action.to_json(), sort_keys=True)
        self._facts: dict[str, Any] = {"code_version": code_version(), "controller": action}

    def __enter__(self) -> Self:
        """The recorder itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Wait until every episode is stored; after an error, what is not is a note to it."""
        try:
            self.close()
        except FlywheelError as closing:
            if error is None:
                raise
            error.add_note(str(closing))

    @property
    def capacity(self) -> int:
        """How many steps in which every sensor is new the memory holds; divided by the rate, for how long the disk may stall."""
        return self._session.ring.size // self._session.layout.largest

    @property
    def free(self) -> int:
        """How many such steps surely fit now."""
        # A step is in one piece, so that the end of the ring may have to stay empty.
        return max(0, self._session.ring.room // self._session.layout.largest - 1)

    def episode(self, *, task: str = "", robot: str = "", **metadata: str | int | bool) -> EpisodeRecording:
        """Begin an episode; use what it returns as a context manager.

        Args:
            task: Its name.
            robot: Its name.
            metadata: Other fields of `EpisodeMetadata`. The start, the code's version and the controller are filled in.

        Raises `FlywheelError` for an unknown field, an id that is stored already, and while another episode is being recorded;
        `RecorderError` if the recorder's process has died since the last call, after which this may be tried again.
        """
        session, outcomes = self._session, self._session.outcomes
        session.hear()
        if self._current is not None and not self._current.has_ended:
            raise FlywheelError("A recorder records one episode at a time; finish the other first, or make a second recorder.")
        given = _check({"task": task, "robot": robot} | metadata)
        described = EpisodeMetadata(**{"started_at_ns": time.time_ns()} | self._facts | given)
        if "episode_id" in given:
            self._check_new(described.episode_id)
        begin = begin_json(session.layout, described, len(outcomes))
        length = HEADER.size + len(begin)
        session.wait_for_room(length)
        session.put(BEGIN, length, end=begin)
        outcomes.append(Outcome(described.episode_id))
        self._encoder.begin()
        self._current = EpisodeRecording(session, self._encoder, outcomes[-1])
        return self._current

    def stored(self, timeout: float | None = None) -> tuple[str, ...]:
        """Wait until every episode that has ended is on the disk; returns the ids of all that are stored, in their order.

        Raises `RecorderError` for what could not be stored, and `TimeoutError` after `timeout` seconds.
        """
        outcomes = self._session.outcomes
        ended = outcomes[:-1] if self._current is not None and not self._current.has_ended else outcomes[:]
        self._session.wait(lambda: all(outcome.is_done for outcome in ended), timeout)
        return tuple(outcome.episode_id for outcome in outcomes if outcome.is_done and outcome.steps)

    def close(self) -> None:
        """Store what was recorded, an episode that is not finished as invalid, and end the recorder's process.

        Raises `RecorderError` if something could not be stored; its steps are safe, and stored by whoever opens a writer next.
        """
        try:
            if self._current is not None and not self._session.is_closed:
                self._current.break_off(is_invalid=True)
        finally:
            self._session.close()

    def _check_new(self, episode_id: str) -> None:
        if not episode_id:
            raise FlywheelError("An episode_id cannot be empty; leave it out, or give a name.")
        stored = {row.episode_id for row in self._store.rows(deleted=True)}
        if episode_id in stored or any(outcome.episode_id == episode_id for outcome in self._session.outcomes):
            raise FlywheelError(f"Episode '{episode_id}' was recorded already; leave episode_id out, or choose another.")


class EpisodeRecording:
    """An episode that is being recorded. Leaving its `with` block without `finish` ends it, and no step is lost.

    After an error the steps so far are stored as a truncated episode that is flagged as invalid, and the error goes on. Without
    one they are stored as a truncated episode, with a warning. Either way the last action, whose outcome nobody saw, is left out.
    """

    def __init__(self, session: Session, encoder: StepEncoder, outcome: Outcome) -> None:
        self._session, self._encoder, self._outcome = session, encoder, outcome
        self.steps = 0
        """The steps recorded so far."""
        self.has_ended = False

    @property
    def episode_id(self) -> str:
        """The id under which the episode is stored."""
        return self._outcome.episode_id

    def __enter__(self) -> Self:
        """The episode itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the episode if `finish` has not."""
        if self.has_ended:
            return
        try:
            self.break_off(is_invalid=error is not None)
        except FlywheelError as failure:
            if error is None:
                raise
            error.add_note(str(failure))
            return
        message = self._told_end(error)
        if error is None or self.steps < 2:
            warnings.warn(message, StoreWarning, stacklevel=2)
        else:
            error.add_note(message)

    def step(
        self,
        observation: Mapping[str, Any],
        action: Any,
        reward: float = 0.0,
        *,
        captured_at: Mapping[str, int] | None = None,
    ) -> None:
        """Record o_t, the action a_t that was chosen at it, and the reward r_t that came of it. Never waits.

        Args:
            observation: The sensors. One that has a stamp (`capture.with_capture_times`) may be left out where it has nothing
                new: its last value stands, with its stamp. Arrays of the declared dtype are the fastest.
            action: (A,).
            reward: May be left to `finish`, where it is only known there.
            captured_at: When sensors took what they show, in nanoseconds since 1970; the time of this call for those with a
                stamp that are not named.

        After an error the step was not recorded, and may be tried again; an interrupt (Ctrl-C) may come after it was, which
        `steps` tells. Raises `SpecError` for a value that is not as
        declared or not finite, `RecorderFullError` if there is no room for it, and `RecorderError` for what the recorder's
        process could not do.
        """
        session, encoder = self._session, self._encoder
        session.check()
        if self.has_ended:
            raise FlywheelError(f"Episode '{self.episode_id}' has ended; begin another.")
        head = session.ring.head
        try:
            length = encoder.stage(observation, captured_at)
            encoder.stage_outcome(action, reward)
            session.put(STEP, length, step=encoder)
        finally:
            if session.ring.head == head:
                encoder.undo()
            else:  # also where an interrupt came after the frame was there
                encoder.keep()
                self.steps += 1

    def finish(
        self,
        observation: Mapping[str, Any],
        *,
        success: bool = False,
        terminal: bool = False,
        reward: float | None = None,
        captured_at: Mapping[str, int] | None = None,
        **metadata: str | int | bool,
    ) -> None:
        """End the episode with its final observation o_T; it is stored from now on, beside what the caller does next.

        Args:
            observation: As in `step`.
            success: Whether it succeeded; name who says so in ``success_detector``: the operator where a
                person does, whose word then stands against a learned detector's.
            terminal: Whether the task ended it, so that nothing could follow; False for a time limit, which learners bootstrap.
            reward: The last transition's reward, where it is known only now.
            captured_at: As in `step`.
            metadata: Fields of `EpisodeMetadata` that are known only now; not the id, under which it is recorded.

        Waits for room if there is none. Raises as `step` does, and `FlywheelError` for an episode without any step.
        """
        session, encoder = self._session, self._encoder
        session.check()
        if self.has_ended or not self.steps:
            raise FlywheelError(
                f"Episode '{self.episode_id}' {'has ended' if self.has_ended else 'has no step yet'}; it cannot be finished."
            )
        if "episode_id" in metadata:
            raise FlywheelError("An episode_id is given when the episode begins; give it to recorder.episode, not to finish.")
        given = _check({"success": success} | metadata)
        _check_number(reward)
        end = json_bytes({"metadata": given, "terminal": bool(terminal), "reward": None if reward is None else float(reward)})
        head = session.ring.head
        try:
            length = encoder.stage(observation, captured_at) + len(end)
            encoder.stage_end()
            session.wait_for_room(length)
            session.put(FINISH, length, step=encoder, end=end)
        finally:
            if session.ring.head == head:
                encoder.undo()
            else:  # also where an interrupt came after the frame was there
                encoder.keep()
                self.has_ended = True

    def result(self, timeout: float | None = None) -> str:
        """Wait until the ended episode is on the disk, and return its id.

        Raises `RecorderError` if it could not be stored, or held no whole transition, and `TimeoutError` after `timeout` seconds.
        """
        if not self.has_ended:
            raise FlywheelError(f"Episode '{self.episode_id}' has not ended; finish it first.")
        outcome = self._outcome
        self._session.wait(lambda: outcome.is_done, timeout)
        if not outcome.steps:
            raise RecorderError(outcome.error or f"Episode '{self.episode_id}' held no whole transition; nothing is stored.")
        return outcome.episode_id

    def break_off(self, *, is_invalid: bool) -> None:
        """End the episode without a final observation; does nothing if it has ended."""
        if self.has_ended:
            return
        end = json_bytes({"metadata": {"invalid": True} if is_invalid else {}})
        put = partial(self._session.put, BREAK, HEADER.size + len(end), end=end, small=True)
        try:
            put()
        except RecorderError:  # the process was dead, and has been started again
            put()
        self.has_ended = True

    def _told_end(self, error: BaseException | None) -> str:
        name = f"Episode '{self.episode_id}'"
        if self.steps < 2:
            return f"{name} ended before its first whole transition; nothing is stored."
        if error is not None:
            return f"{name}: the {self.steps - 1} transitions before this error are stored as a truncated, invalid episode."
        return (
            f"{name} was not finished; it is stored as truncated after {self.steps - 1} transitions, without its last action, "
            "whose outcome is not known. Call finish(observation, success=..., terminal=...) at its end."
        )


@contextmanager
def record_episode(store: EpisodeStore, **metadata: Any) -> Iterator[EpisodeRecording]:
    """A recorder for a single episode, which is on the disk when the block is left; arguments as in `Recorder.episode`."""
    with store.recorder() as recorder, recorder.episode(**metadata) as episode:
        yield episode


def _check(given: dict[str, Any]) -> dict[str, Any]:
    # What numpy calls a bool or a number means one, too: `success=height > 0.1`.
    metadata = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
    for name, value in metadata.items():
        kind = _FIELDS.get(name)
        if kind is None or not isinstance(value, kind):
            known = f"it must be a {kind.__name__}" if kind else f"known: {', '.join(_FIELDS)}"
            raise FlywheelError(f"An episode's metadata cannot have {name}={value!r}; {known}.")
    check_metadata(metadata)
    return metadata


def _check_number(reward: Any) -> None:
    with suppress(TypeError, ValueError, OverflowError):
        if reward is None or abs(float(reward)) < float("inf"):
            return
    raise SpecError(f"The last reward is {reward!r}; it must be a finite number.")

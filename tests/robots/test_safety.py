"""Nothing non-finite, out of bounds, stale or repeated reaches the arm, whatever is sent."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.core.errors import SpecError
from flywheel.core.specs import Array
from flywheel.robots.base import Scene
from flywheel.robots.fake import FakeRobot, Faults
from flywheel.robots.safety import SafeRobot, SafetyLimits

HOLD = np.zeros(7, np.float32)
GOOD = np.full(7, 0.5, np.float32)
BAD = np.full(7, np.nan, np.float32)


class Recorder(FakeRobot):
    """Remembers what reached it."""

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__(faults=faults)
        self.received: list[Array] = []
        self.stops = 0

    def act(self, action: Array) -> Array:
        self.received.append(action)
        return super().act(action)

    def stop(self) -> None:
        self.stops += 1


class Clock:
    """Time that a test moves by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def guarded(limits: SafetyLimits | None = None, faults: Faults | None = None) -> tuple[SafeRobot, Recorder, Clock]:
    inner, clock = Recorder(faults), Clock()
    robot = SafeRobot(inner, limits, clock)
    robot.connect()
    robot.reset(Scene())
    return robot, inner, clock


def kinds(robot: SafeRobot) -> list[tuple[str, int]]:
    return [(event.kind, event.step) for event in robot.events]


def test_a_good_action_passes_untouched_and_unremarked() -> None:
    robot, inner, _ = guarded()
    np.testing.assert_array_equal(robot.act(GOOD), GOOD)
    np.testing.assert_array_equal(inner.received, [GOOD])
    assert robot.events == []


def test_clipping_is_returned_and_recorded() -> None:
    robot, inner, _ = guarded()
    executed = robot.act(np.array([0, 3, 0, 0, 0, 0, -2], np.float32))
    np.testing.assert_array_equal(executed, np.float32([0, 1, 0, 0, 0, 0, -1]))
    np.testing.assert_array_equal(inner.received[0], executed)
    assert kinds(robot) == [("clip", 0)]
    assert "[1, 6]" in robot.events[0].reason


def test_one_refusal_is_a_hold_and_a_good_action_forgives_it() -> None:
    robot, inner, _ = guarded()
    for action in (BAD, GOOD, BAD, GOOD):
        robot.act(action)
    np.testing.assert_array_equal(inner.received, [HOLD, GOOD, HOLD, GOOD])
    assert kinds(robot) == [("hold", 0), ("hold", 2)]
    assert not robot.is_stopped


def test_two_refusals_in_a_row_stop_until_a_reset() -> None:
    robot, inner, _ = guarded()
    for action in (BAD, BAD, *[GOOD] * 100):
        np.testing.assert_array_equal(robot.act(action), HOLD)
    assert robot.is_stopped
    assert inner.stops == 1
    assert len(inner.received) == 1
    assert kinds(robot) == [("hold", 0), ("stop", 1)]
    robot.reset(Scene())
    assert robot.events == []
    np.testing.assert_array_equal(robot.act(GOOD), GOOD)


@pytest.mark.parametrize("wrong", [np.zeros(6), np.zeros((1, 7)), "go", [[1.0], [2.0, 3.0]], None, np.zeros(7, complex)])
def test_what_is_no_action_is_refused(wrong: Any) -> None:
    robot, inner, _ = guarded()
    np.testing.assert_array_equal(robot.act(wrong), HOLD)
    np.testing.assert_array_equal(inner.received, [HOLD])


def test_stale_and_future_actions_are_refused() -> None:
    robot, _, clock = guarded(SafetyLimits(max_action_age=0.1))
    np.testing.assert_array_equal(robot.act(GOOD, issued_at=clock.now - 0.09), GOOD)
    np.testing.assert_array_equal(robot.act(GOOD, issued_at=clock.now - 0.11), HOLD)
    robot.act(GOOD)
    np.testing.assert_array_equal(robot.act(GOOD, issued_at=clock.now + 0.01), HOLD)
    assert [event.kind for event in robot.events] == ["hold", "hold"]


def test_repeated_and_old_sequence_numbers_are_refused() -> None:
    robot, _, _ = guarded()
    numbers = [1, 1, 2, 1, 5]
    executed = [robot.act(GOOD, sequence=number).any() for number in numbers]
    assert executed == [True, False, True, False, True]


def test_watchdog_stops_and_latches() -> None:
    robot, inner, clock = guarded(SafetyLimits(watchdog=0.2))
    clock.now += 60
    robot.tick()
    assert not robot.is_stopped, "before the first action there is nothing to watch"
    robot.act(GOOD)
    clock.now += 0.19
    robot.tick()
    assert not robot.is_stopped
    clock.now += 0.02
    robot.tick()
    assert robot.is_stopped
    assert inner.stops == 1
    np.testing.assert_array_equal(robot.act(GOOD), HOLD)


def test_holding_does_not_feed_the_watchdog() -> None:
    robot, _, clock = guarded(SafetyLimits(watchdog=0.2))
    robot.act(GOOD)
    clock.now += 0.15
    robot.act(BAD)
    clock.now += 0.1
    robot.act(GOOD)
    assert robot.is_stopped


def test_a_real_arm_is_watched_by_a_thread() -> None:
    stopped = threading.Event()

    class RealArm(FakeRobot):
        is_real_time = True

        def stop(self) -> None:
            stopped.set()

        def clock(self) -> float:
            return time.monotonic()

    robot = SafeRobot(RealArm(), SafetyLimits(watchdog=0.05))
    with robot:
        robot.reset(Scene())
        robot.act(GOOD)
        assert stopped.wait(timeout=20)
        assert robot.is_stopped
    assert "watchdog" in robot.events[0].reason


def test_workspace_bounds_where_the_hand_is_sent() -> None:
    robot, _, _ = guarded(SafetyLimits(workspace=((-0.2, -0.2, 0.95), (0.2, 0.2, 1.2))))
    down = np.array([0, 0, -1, 0, 0, 0, 0], np.float32)
    for _ in range(20):
        robot.observe()
        robot.act(down)
    assert robot.observe()["eef_pos"][2] == pytest.approx(0.95, abs=1e-4)
    assert "workspace" in robot.events[-1].reason


def test_a_broken_sensor_stops_the_arm() -> None:
    robot, inner, _ = guarded(faults=Faults(nan_after=1))
    robot.observe()
    robot.act(GOOD)
    with pytest.raises(SpecError, match="eef_pos"):
        robot.observe()
    assert robot.is_stopped
    assert inner.stops == 1


def test_frozen_sensors_stop_the_arm() -> None:
    robot, _, _ = guarded(SafetyLimits(frozen=5), Faults(frozen_after=3))
    steps = 0
    while not robot.is_stopped and steps < 50:
        robot.observe()
        robot.act(GOOD)
        steps += 1
    assert robot.is_stopped
    assert "repeat" in robot.events[-1].reason


def test_still_sensors_of_an_arm_that_was_not_told_to_move_are_fine() -> None:
    robot, _, _ = guarded(SafetyLimits(frozen=5), Faults(frozen_after=0))
    for _ in range(20):
        robot.observe()
        robot.act(HOLD)
    assert not robot.is_stopped


numbers = st.one_of(st.floats(width=64), st.floats(-1.5, 1.5), st.just(np.nan), st.just(np.inf), st.just(-1e300), st.just(5e-324))
actions = st.one_of(
    st.lists(numbers, min_size=7, max_size=7).map(np.array),
    st.lists(numbers, max_size=9),
    st.sampled_from([None, "up", b"x", 3, {}, [[0.0] * 7], np.zeros(7, object), np.zeros(7, complex), [[1], [1, 2]]]),
)
commands = st.tuples(actions, st.one_of(st.none(), st.floats(-1, 1), st.just(np.nan)), st.one_of(st.none(), st.integers(-3, 30)))


@settings(max_examples=300, deadline=None)
@given(st.lists(commands, max_size=12))
def test_nothing_unsafe_reaches_the_arm(sent: list[tuple[Any, float | None, int | None]]) -> None:
    robot, inner, clock = guarded()
    last = None
    for action, age, sequence in sent:
        before = len(inner.received)
        with np.errstate(over="ignore"):
            executed = robot.act(action, issued_at=None if age is None else clock.now - age, sequence=sequence)
        passed = len(inner.received) > before and inner.received[-1].any()
        if passed and age is not None:
            assert 0 <= age <= 0.1 + 1e-9
        if passed and sequence is not None:
            assert last is None or sequence > last
            last = sequence
        clock.now += 0.05
        assert executed.shape == (7,)
        assert executed.dtype == np.float32
    for received in inner.received:
        assert np.isfinite(received).all()
        assert (np.abs(received) <= 1).all()
    assert not robot.is_stopped or inner.stops == 1

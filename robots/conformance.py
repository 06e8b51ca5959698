"""What every robot must do, as checks that run on any of them: ``flywheel robot check NAME``, and the test-suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.specs import Array
from flywheel.robots.base import Robot, Scene, hold_action
from flywheel.robots.safety import SafeRobot


@dataclass(frozen=True)
class CheckResult:
    """One check's outcome."""

    name: str
    passed: bool
    detail: str
    """What is promised where it passed, what was seen where it did not."""


class _BrokenPromiseError(Exception):
    """A check failed; the message says what was seen."""


def check(robot: Robot, scene: Scene | None = None) -> list[CheckResult]:
    """Run every check on a robot that is not connected yet; the arm moves a little. It is disconnected afterwards.

    A check that raises counts as failed, and the others still run.
    """
    scene = scene or Scene()
    results = []
    try:
        for name, test in _CHECKS.items():
            results.append(_run(name, test, robot, scene))
    finally:
        robot.disconnect()
    return results


def _run(name: str, test: Callable[[Robot, Scene], None], robot: Robot, scene: Scene) -> CheckResult:
    try:
        test(robot, scene)
    except (_BrokenPromiseError, FlywheelError) as broken:
        return CheckResult(name, False, str(broken))
    return CheckResult(name, True, (test.__doc__ or "").strip())


def _promise(kept: bool, seen: str) -> None:
    if not kept:
        raise _BrokenPromiseError(seen)


def _specifications(robot: Robot, scene: Scene) -> None:
    """Specifications are known before connecting, and hold the scene's objects."""
    missing = scene.objects.keys() - robot.observation_spec.arrays.keys()
    _promise(not missing, f"the observation lacks the scene's {sorted(missing)}")
    _promise(robot.action_spec.rate > 0, "the action specification names no control rate")
    _promise(len(robot.action_spec.scale) == robot.action_spec.dim, "the action specification has not one scale per dimension")
    hold_action(robot.action_spec)


def _connect(robot: Robot, scene: Scene) -> None:
    """Connecting twice is connecting once."""
    robot.connect()
    robot.connect()


def _observe(robot: Robot, scene: Scene) -> None:
    """An observation is what its specification says."""
    robot.reset(scene)
    robot.observation_spec.validate(robot.observe())


def _act(robot: Robot, scene: Scene) -> None:
    """An action within the limits is executed as it is; the one beyond them is returned as executed, within them."""
    robot.reset(scene)
    low, high = robot.action_spec.bounds
    wanted = 0.1 * high
    _promise(np.array_equal(robot.act(wanted), wanted), "a small action was changed")
    executed = robot.act(high + 10.0)
    _promise(bool((executed >= low).all() and (executed <= high).all()), f"{executed.tolist()} was executed, beyond the limits")


def _refuse(robot: Robot, scene: Scene) -> None:
    """NaN and wrong shapes are refused by the robot itself."""
    robot.reset(scene)
    for wrong in (np.full(robot.action_spec.dim, np.nan, np.float32), np.zeros(robot.action_spec.dim + 1, np.float32)):
        try:
            robot.act(wrong)
        except SpecError:
            continue
        raise _BrokenPromiseError(f"the action {wrong.tolist()} was accepted")


def _safe(robot: Robot, scene: Scene) -> None:
    """Under the safety layer one bad action is a hold, and two in a row stop the arm until the next reset."""
    safe = SafeRobot(robot)
    safe.reset(scene)
    bad = np.full(robot.action_spec.dim, np.inf, np.float32)
    hold = hold_action(robot.action_spec)
    _promise(np.array_equal(safe.act(bad), hold) and not safe.is_stopped, "one bad action did not become a hold")
    safe.act(bad)
    _promise(safe.is_stopped, "two bad actions in a row did not stop the arm")
    _promise(np.array_equal(safe.act(0.1 * robot.action_spec.bounds[1]), hold), "a stopped arm moved")
    safe.reset(scene)
    _promise(not safe.is_stopped, "a reset did not release the stop")


def _deterministic(robot: Robot, scene: Scene) -> None:
    """The same seed gives the same initial state and the same motion, bit for bit (in simulation)."""
    if robot.is_real_time:
        return
    first, other, second = (_motion(robot, scene.with_seed(seed)) for seed in (1, 2, 1))
    _promise(all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)), "the same seed gave another motion")
    if scene.objects:
        _promise(not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True)), "another seed gave the same motion")


def _motion(robot: Robot, scene: Scene) -> list[Array]:
    robot.reset(scene)
    spec = robot.observation_spec
    states = [spec.pack_state(robot.observe())]
    for sign in (1.0, -1.0, 1.0):
        robot.act(0.5 * sign * robot.action_spec.bounds[1])
        states.append(spec.pack_state(robot.observe()))
    return states


def _stop(robot: Robot, scene: Scene) -> None:
    """Stopping twice is stopping once, and it can be done at any time."""
    robot.stop()
    robot.stop()


def _disconnect(robot: Robot, scene: Scene) -> None:
    """Disconnecting twice is disconnecting once; then the robot says that it is not connected, and connects again."""
    robot.disconnect()
    robot.disconnect()
    try:
        robot.observe()
    except FlywheelError:
        robot.connect()
        robot.reset(scene)
        return
    raise _BrokenPromiseError("a robot that is not connected gave an observation")


_CHECKS: dict[str, Callable[[Robot, Scene], None]] = {
    "specifications": _specifications,
    "connect": _connect,
    "observe": _observe,
    "act": _act,
    "refuse": _refuse,
    "safety layer": _safe,
    "determinism": _deterministic,
    "stop": _stop,
    "disconnect": _disconnect,
}

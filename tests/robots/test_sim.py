import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.core.specs import ArraySpec
from flywheel.robots.base import Scene
from flywheel.robots.sim import SimRobot

ROOT = Path(__file__).parents[2]
SCENE = Scene("Lift", {"cube_pos": ArraySpec((3,), unit="m"), "cube_quat": ArraySpec((4,), unit="xyzw")})

OTHER_PROCESS = """
from tests.robots.test_sim import SCENE, SimRobot, fingerprint
with SimRobot(SCENE) as robot:
    print(fingerprint(robot, 7))
"""

DRAWING_PROCESS = """
import sys
import numpy as np
from tests.robots.test_sim import SCENE, FlywheelError, SimRobot
with SimRobot(SCENE) as robot:
    robot.reset(SCENE)
    try:
        np.save(sys.argv[1], robot.render(64, 96))
    except FlywheelError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def robot() -> Iterator[SimRobot]:
    with SimRobot(SCENE) as robot:
        yield robot


def fingerprint(robot: SimRobot, seed: int) -> str:
    """The hash of everything observed in a short random motion."""
    rng = np.random.default_rng(seed)
    robot.reset(SCENE.with_seed(seed))
    digest = hashlib.sha256()
    for _ in range(15):
        for value in robot.observe().values():
            digest.update(value.tobytes())
        robot.act(rng.uniform(-1, 1, 7).astype(np.float32))
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_motion_after_another_and_in_another_process(robot: SimRobot) -> None:
    first = fingerprint(robot, 7)
    assert fingerprint(robot, 8) != first
    assert fingerprint(robot, 7) == first
    other = subprocess.run([sys.executable, "-c", OTHER_PROCESS], capture_output=True, text=True, check=True, cwd=ROOT)
    assert other.stdout.strip() == first
    assert other.stderr == "", "robosuite's start-up advice is kept away"


def test_observations_are_of_this_moment(robot: SimRobot) -> None:
    """robosuite returns what it sampled 24 substeps ago; the robot reads the poses of the newest joint positions."""
    robot.reset(SCENE)
    for _ in range(3):
        robot.act(np.array([1, 0, -1, 0, 0, 0, 0], np.float32))
    seen = robot.observe()
    data = robot._env.sim.data
    np.testing.assert_allclose(seen["joint_pos"], data.qpos[:7], atol=1e-6)
    stale = seen["eef_pos"].copy()
    robot._env.sim.forward()
    np.testing.assert_array_equal(robot.observe()["eef_pos"], stale)


def test_moves_as_told(robot: SimRobot) -> None:
    robot.reset(SCENE)
    before = robot.observe()["eef_pos"]
    executed = [robot.act(np.array([0, 4, 0, 0, 0, 0, 0], np.float32)) for _ in range(10)]
    assert executed[0][1] == 1.0
    moved = robot.observe()["eef_pos"] - before
    assert moved[1] > 0.05
    assert np.abs(moved[[0, 2]]).max() < 0.02


@pytest.mark.parametrize("arm", ["Sawyer", "UR5e"])
def test_every_arm_moves_its_first_joint_and_closes_its_hand(arm: str) -> None:
    with SimRobot(SCENE, arm) as robot:
        robot.reset(SCENE)
        before = robot.observe()["joint_pos"]
        for _ in range(20):
            robot.act(np.array([0, -1, 0, 0, 0, 0, 1], np.float32))
        after = robot.observe()
    assert abs(after["joint_pos"] - before)[0] > 0.1, "Sawyer's rubs against its base unless that is mended"
    assert after["gripper_qpos"][0] - after["gripper_qpos"][1] < 0.01, "metres"


def test_its_clock_is_simulated_time(robot: SimRobot) -> None:
    robot.reset(SCENE)
    for _ in range(4):
        robot.act(np.zeros(7, np.float32))
    assert robot.clock() == pytest.approx(0.2)


def test_draws_the_cube(tmp_path: Path) -> None:
    # A process of its own: other tests import TensorFlow into this one.
    path = tmp_path / "picture.npy"
    command = [sys.executable, "-c", DRAWING_PROCESS, str(path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    if not path.exists():
        pytest.skip(said)
    picture = np.load(path)
    assert picture.shape == (64, 96, 3)
    colours = picture.astype(int)
    red = colours[..., 0] - colours[..., 1:].max(axis=-1) > 40
    assert 5 < red.sum() < 200


def test_a_process_with_tensorflow_refuses_to_draw(robot: SimRobot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    robot.reset(SCENE)
    with pytest.raises(FlywheelError, match="TensorFlow"):
        robot.render(64, 96)


def test_unknown_worlds_and_objects_are_named() -> None:
    with pytest.raises(FlywheelError, match="no environment 'Lft'"):
        SimRobot(Scene("Lft")).connect()
    with pytest.raises(FlywheelError, match="does not observe"):
        SimRobot(Scene("Lift", {"ball_pos": ArraySpec((3,))})).connect()


def test_another_world_needs_another_simulation(robot: SimRobot) -> None:
    with pytest.raises(FlywheelError, match="make another one"):
        robot.reset(Scene("Stack"))

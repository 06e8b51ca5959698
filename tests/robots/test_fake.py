import numpy as np
import pytest

from flywheel.core.errors import FlywheelError, SpecError
from flywheel.core.specs import ArraySpec
from flywheel.robots.base import Scene
from flywheel.robots.fake import FakeRobot, Faults

SCENE = Scene(objects={"cube_pos": ArraySpec((3,)), "cube_quat": ArraySpec((4,))}, seed=3)
DOWN = np.array([0, 0, -1, 0, 0, 0, -1], np.float32)
CLOSE = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)
UP = np.array([0, 0, 1, 0, 0, 0, 1], np.float32)


def started(faults: Faults | None = None) -> FakeRobot:
    robot = FakeRobot(SCENE, faults)
    robot.connect()
    robot.reset(SCENE)
    return robot


def toward_cube(robot: FakeRobot) -> np.ndarray:
    seen = robot.observe()
    action = np.zeros(7, np.float32)
    action[:3] = (seen["cube_pos"] - seen["eef_pos"]) / 0.02
    action[6] = -1
    return action


def test_moves_by_what_it_executed() -> None:
    robot = started()
    before = robot.observe()["eef_pos"]
    executed = robot.act(np.array([5, 0.5, 0, 0, 0, 0, 0], np.float32))
    np.testing.assert_array_equal(executed, np.float32([1, 0.5, 0, 0, 0, 0, 0]))
    np.testing.assert_allclose(robot.observe()["eef_pos"] - before, [0.02, 0.01, 0], atol=1e-6)


def test_carries_a_cube_that_it_closes_on_and_drops_it() -> None:
    robot = started()
    for _ in range(30):
        robot.act(toward_cube(robot))
    for action in [CLOSE] * 5 + [UP] * 5:
        robot.act(action)
    held = robot.observe()
    np.testing.assert_allclose(held["cube_pos"], held["eef_pos"])
    assert held["cube_pos"][2] > 0.9
    for _ in range(5):
        robot.act(-CLOSE)
    assert robot.observe()["cube_pos"][2] == pytest.approx(0.82)


def test_tells_where_things_are_from_each_other() -> None:
    places = ("cubeA_pos", "cubeB_pos", "gripper_to_cubeA", "cubeA_to_cubeB", "gripper_to_cubeB_pos")
    robot = FakeRobot(Scene(objects={key: ArraySpec((3,)) for key in places}, seed=1))
    robot.connect()
    robot.act(DOWN)
    seen = robot.observe()
    np.testing.assert_allclose(seen["gripper_to_cubeA"], seen["cubeA_pos"] - seen["eef_pos"], atol=1e-7)
    np.testing.assert_allclose(seen["gripper_to_cubeB_pos"], seen["cubeB_pos"] - seen["eef_pos"], atol=1e-7)
    np.testing.assert_allclose(seen["cubeA_to_cubeB"], seen["cubeB_pos"] - seen["cubeA_pos"], atol=1e-7)


def test_closing_on_nothing_lifts_nothing() -> None:
    robot = started()
    for action in [CLOSE] * 5 + [UP] * 5:
        robot.act(action)
    assert robot.observe()["gripper_qpos"][0] == 0
    assert robot.observe()["cube_pos"][2] == pytest.approx(0.82)


def test_latency_passes_time() -> None:
    robot = started(Faults(latency=0.3))
    before = robot.clock()
    robot.observe()
    assert robot.clock() - before == pytest.approx(0.3)


def test_frozen_sensors_repeat_themselves() -> None:
    robot = started(Faults(frozen_after=2))
    robot.act(DOWN)
    moved = robot.observe()
    robot.act(DOWN)
    robot.act(DOWN)
    np.testing.assert_array_equal(robot.observe()["eef_pos"], moved["eef_pos"])


def test_broken_sensor_gives_nan() -> None:
    robot = started(Faults(nan_after=1))
    assert np.isfinite(robot.observe()["eef_pos"]).all()
    robot.act(DOWN)
    assert np.isnan(robot.observe()["eef_pos"]).all()


def test_a_lost_connection_says_so() -> None:
    robot = started(Faults(disconnect_after=1))
    robot.act(DOWN)
    with pytest.raises(FlywheelError, match="not connected"):
        robot.act(DOWN)


def test_refuses_nan() -> None:
    with pytest.raises(SpecError, match="NaN"):
        started().act(np.full(7, np.nan))


def test_draws_the_hand_white_and_the_cube_red() -> None:
    picture = started().render(64, 96)
    assert picture.shape == (64, 96, 3)
    assert {(255, 255, 255), (255, 0, 0)} <= {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}

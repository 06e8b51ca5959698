import numpy as np
import pytest

from flywheel.core import registry
from flywheel.core.errors import FlywheelError
from flywheel.core.specs import Array, ArraySpec
from flywheel.robots.base import Robot, Scene, make_robot
from flywheel.robots.conformance import check
from flywheel.robots.fake import FakeRobot, Faults

SCENE = Scene("Lift", {"cube_pos": ArraySpec((3,), unit="m")})


def failures(robot: Robot, scene: Scene | None = None) -> list[str]:
    return [result.name for result in check(robot, scene) if not result.passed]


@pytest.mark.parametrize("name", registry.names("robots"))
@pytest.mark.parametrize("scene", [Scene(), SCENE], ids=["plain", "cube"])
def test_every_registered_robot_conforms(name: str, scene: Scene) -> None:
    results = check(make_robot(name, scene), scene)
    assert [(result.name, result.detail) for result in results if not result.passed] == []
    assert len(results) == 9


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["UR5e", "Sawyer", "Kinova3", "IIWA"])
def test_every_simulated_arm_conforms(arm: str) -> None:
    assert failures(make_robot(f"sim:{arm}", SCENE), SCENE) == []


class Deaf(FakeRobot):
    def act(self, action: Array) -> Array:
        return np.asarray(action, np.float32)


class Moody(FakeRobot):
    moods = np.random.default_rng(0)

    def reset(self, scene: Scene) -> None:
        super().reset(scene.with_seed(int(self.moods.integers(1 << 30))))


def test_a_robot_that_accepts_anything_fails() -> None:
    assert {"act", "refuse"} <= set(failures(Deaf()))


def test_a_robot_that_is_not_deterministic_fails() -> None:
    assert failures(Moody()) == ["determinism"]


def test_a_robot_with_a_broken_sensor_fails() -> None:
    assert "observe" in failures(FakeRobot(faults=Faults(nan_after=0)))


def test_an_unknown_robot_gets_the_nearest_name() -> None:
    with pytest.raises(FlywheelError, match="did you mean 'fake'"):
        make_robot("fakes")


def test_an_unknown_arm_gets_the_list() -> None:
    with pytest.raises(FlywheelError, match="Panda"):
        make_robot("sim:Pandaa")

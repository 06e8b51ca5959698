"""Any robosuite arm under operational-space control, behind the robot interface.

The same scene gives the same rollouts bit for bit, in any process, and the physics of robosuite's own step. Two habits of
robosuite are mended here: its observables are sampled at the first of the substeps, about 48 ms before they are returned, so
they are read anew after every step; and an environment's own random state depends on its history, so every reset seeds it.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np

from flywheel.core.errors import FlywheelError
from flywheel.core.lineage import package_versions
from flywheel.core.registry import unknown
from flywheel.core.specs import ActionSpec, Array, ArraySpec, ObservationSpec
from flywheel.robots._frustum import only_in_view
from flywheel.robots._graphics import GRAPHICS, MEND, chosen_graphics, drawing
from flywheel.robots._meshes import simplify_visual_meshes
from flywheel.robots.base import Robot, Scene

# Joints per arm, so that the specification is known before anything is imported.
_ARMS = {"Panda": 7, "Sawyer": 7, "UR5e": 6, "Kinova3": 7, "IIWA": 7}

# Every arm carries the Panda's hand, so that fingers are two, in metres, and open to 8 cm on all of them. Of their own hands,
# UR5e's and Kinova3's (Robotiq 85) jams 6 cm open in robosuite 1.5.2 with MuJoCo 3.8, and Sawyer's opens no wider than 6 cm.
_HAND = "PandaGripper"

# Where the gripper's frame lies; robosuite turns an object's pose into the frame of "robot0_eef" with it.
_HAND_FRAME = "world_pose_in_gripper"
_IN_HAND_FRAME = "_to_robot0_eef_"

# The size of a robosuite object is drawn when the model is built, and the model is built once: a constant keeps it the same.
_MODEL_SEED = 0

# Its cameras by our names; not every world has all of them.
_CAMERAS = {name: name for name in ("agentview", "frontview", "sideview", "birdview")} | {
    name: f"robot0_{name}" for name in ("eye_in_hand", "robotview")
}

# Triangles of a mesh that is only drawn; robosuite's have up to 33,000, of which a picture of 84 pixels shows nothing.
_MOST_TRIANGLES = 2_000

# How pictures are drawn, recorded with each episode: a policy sees the difference.
_DRAWING = "mujoco.Renderer, no multisampling, no reflection, meshes of 2000 triangles"

# robosuite's OSC_POSE: metres and radians per unit of action; the gripper's action is a direction without a unit.
_SCALE = (0.05, 0.05, 0.05, 0.5, 0.5, 0.5, 1.0)


class SimRobot(Robot):
    """A robosuite arm with the Panda's hand: six delta pose actions in the base frame, one of the gripper (-1 opens), in [-1, 1].

    The first connection of a fresh installation is slow, because numba compiles the controller.
    """

    variants = tuple(_ARMS)

    def __init__(self, scene: Scene | None = None, arm: str = "Panda", control_rate: float = 20.0) -> None:
        """Choose the arm and the control rate in Hz; raises `FlywheelError` for an arm that is not known."""
        if arm not in _ARMS:
            raise FlywheelError(f"There is no simulated arm '{arm}'; known: {', '.join(_ARMS)}.")
        self.name = f"sim:{arm}"
        self._arm, self._rate, self._scene = arm, control_rate, scene or Scene()
        self._env: Any = None
        self._control_step: Any = None
        self._renderers: dict[tuple[int, int], Any] = {}
        for camera, size in self._scene.cameras.items():
            if camera not in _CAMERAS:
                raise FlywheelError(unknown("camera", camera, tuple(_CAMERAS)))
            if min(size) < 1:
                raise FlywheelError(f"A picture has no {size[0]} x {size[1]} pixels; give a larger size.")

    @property
    def observation_spec(self) -> ObservationSpec:
        """Joints, end effector, fingers, and the scene's objects, in metres, radians and seconds."""
        joints = _ARMS[self._arm]
        own = {
            "joint_pos": ArraySpec((joints,), unit="rad"),
            "joint_vel": ArraySpec((joints,), unit="rad/s"),
            "eef_pos": ArraySpec((3,), unit="m"),
            "eef_quat": ArraySpec((4,), unit="xyzw"),
            "gripper_qpos": ArraySpec((2,), unit="m"),
            "gripper_qvel": ArraySpec((2,), unit="m/s"),
        }
        return ObservationSpec({**own, **self._scene.objects, **self._scene.pictures})

    @property
    def action_spec(self) -> ActionSpec:
        """OSC_POSE with a gripper."""
        return ActionSpec((-1.0,) * 7, (1.0,) * 7, "osc_pose", "delta", "base", _SCALE, self._rate)

    @property
    def software(self) -> dict[str, str]:
        """The simulator's versions, and with cameras what draws."""
        drawn = {"drawing": _DRAWING, **package_versions("fast-simplification")} if self._scene.cameras else {}
        return package_versions("robosuite", "mujoco", "numpy") | drawn

    def connect(self) -> None:
        """Build the simulation, without a renderer."""
        if self._env is None:
            env = _build(self._arm, self._scene.world or "Lift", self._rate, self._needed())
            for camera in self._scene.cameras:
                if _CAMERAS[camera] not in env.sim.model.camera_names:
                    raise FlywheelError(f"The world '{self._scene.world}' has no camera '{camera}'; choose another.")
            self._env, self._control_step = env, _control_step(env)

    def disconnect(self) -> None:
        """Free the simulation and the renderer."""
        for renderer in self._renderers.values():
            renderer.close()
        if self._env is not None:
            self._env.close()
        self._env, self._control_step, self._renderers = None, None, {}

    def reset(self, scene: Scene) -> None:
        """Draw the initial state from the scene's seed."""
        if scene.world != self._scene.world:
            raise FlywheelError(f"This simulation holds '{self._scene.world}', not '{scene.world}'; make another one.")
        env = self._connected()
        # The samplers hold the same generator object, so its state is replaced and not the object.
        env.rng.bit_generator.state = np.random.default_rng(scene.seed).bit_generator.state
        env.reset()
        self._control_step = _control_step(env)

    def observe(self) -> dict[str, Array]:
        """Read the state as it is now."""
        env = self._connected()
        # A pose in the gripper's frame is made of what was observed before it: of this moment only in a second pass.
        for _ in range(2 if any(_IN_HAND_FRAME in key for key in self._scene.objects) else 1):
            env._update_observables(force=True)
        state = {key: np.asarray(env._observables[source].obs, np.float32) for key, source in self._sources().items()}
        return state | {camera: self._draw(camera, *size) for camera, size in self._scene.cameras.items()}

    def act(self, action: Array) -> Array:
        """Simulate one control period with the action clipped to [-1, 1]."""
        executed = np.clip(self.action_spec.validate(action), -1.0, 1.0)
        env = self._connected()
        self._control_step.step(executed)
        env.cur_time += env.control_timestep
        # A step ends with positions newer than the poses derived from them.
        env.sim.forward()
        return executed

    def stop(self) -> None:
        """A simulation stands still by itself."""

    def clock(self) -> float:
        """Simulated seconds since the reset."""
        return float(self._env.cur_time) if self._env is not None else 0.0

    def render(self, height: int, width: int) -> Array:
        """The scene from robosuite's agentview camera."""
        return self._draw("agentview", height, width)

    def _draw(self, camera: str, height: int, width: int) -> Array:
        env = self._connected()
        if (height, width) not in self._renderers:
            self._renderers[height, width] = _renderer(env, height, width)
        import mujoco

        renderer, options = self._renderers[height, width], mujoco.MjvOption()
        options.geomgroup[0] = 0  # collision geometry
        model, data = env.sim.model._model, env.sim.data._data
        number = model.camera(_CAMERAS[camera]).id
        with only_in_view(model, data, number, width / height):
            renderer.update_scene(data, number, options)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0  # the floor's mirror draws everything twice
        picture: Array = renderer.render()
        return picture

    def _needed(self) -> frozenset[str]:
        return frozenset(self._sources().values())

    def _sources(self) -> dict[str, str]:
        objects = self._scene.objects
        return {key: key if key in objects else f"robot0_{key}" for key in self.observation_spec.state_keys}

    def _connected(self) -> Any:
        if self._env is None:
            raise FlywheelError(f"The robot '{self.name}' is not connected; call connect() or use it in a with statement.")
        return self._env


def _build(arm: str, world: str, rate: float, needed: frozenset[str]) -> Any:
    robosuite = _robosuite()
    if world not in robosuite.ALL_ENVIRONMENTS:
        raise FlywheelError(f"robosuite has no environment '{world}'; it has {', '.join(sorted(robosuite.ALL_ENVIRONMENTS))}.")
    env = robosuite.make(
        world,
        robots=arm,
        gripper_types=_HAND,
        controller_configs=robosuite.load_composite_controller_config(robot=arm),
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        control_freq=rate,
        ignore_done=True,
        hard_reset=False,  # a hundred times faster; nothing that a reset edits lies in the model
        renderer="mujoco",
        seed=_MODEL_SEED,
    )
    missing = needed - set(env.observation_names)
    if missing:
        raise FlywheelError(f"The world '{world}' does not observe {sorted(missing)}, but {sorted(env.observation_names)}.")
    for name in set(env.observation_names) - needed - {_HAND_FRAME}:
        env.modify_observable(name, "enabled", False)
    if arm == "Sawyer":
        # Its first link overlaps its own base in robosuite 1.5.2, and their friction holds the joint at zero, whatever is asked.
        number = env.sim.model.geom_name2id("robot0_link0_collision")
        env.sim.model.geom_contype[number] = env.sim.model.geom_conaffinity[number] = 0
    return env


def _robosuite() -> Any:
    """Import robosuite without its start-up advice; its errors still come through."""
    logging.getLogger("robosuite_logs").addFilter(_ErrorsOnly())
    with chosen_graphics():
        try:
            import robosuite
        except ImportError as error:
            raise FlywheelError(f"The simulator cannot be loaded ({error}); install flywheel-robotics[sim].") from None
        except (AttributeError, RuntimeError) as error:  # how PyOpenGL reports a library that is not there
            raise FlywheelError(f"MUJOCO_GL={os.environ.get(GRAPHICS)} does not work here ({error}); {MEND}.") from error
    return robosuite


def _control_step(env: Any) -> Any:
    """How to step the environment as it was reset; imported only now, because robosuite has to be imported before."""
    from flywheel.robots._osc import ControlStep

    return ControlStep(env)


class _ErrorsOnly(logging.Filter):
    """robosuite sets its logger's level while it is imported, so that only a filter stays."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR


def _renderer(env: Any, height: int, width: int) -> Any:
    with drawing():
        import mujoco

        model = env.sim.model._model
        model.vis.quality.offsamples = 0  # multisampling costs half of the time in software
        simplify_visual_meshes(model, _MOST_TRIANGLES)
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        return mujoco.Renderer(model, height, width)

"""robosuite's control step without its overhead: the same substeps, torques and states to the bit, several times as fast.

robosuite looks up names, reads every quantity through several layers and updates all observables, 25 times for every action. Here
its operational-space controller (`robosuite.controllers.parts.arm.osc`, 1.5.2) is written out for what its default configuration
of a fixed arm asks for: delta poses in the base's frame, fixed gains, position and orientation decoupled, no interpolation. What
robosuite compiles is called, with arrays of the same layout, so that every operation and every rounding is robosuite's own.

Import it after robosuite, which chooses how to draw when it is first imported.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numba
import numpy as np
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error
from robosuite.utils.transform_utils import axisangle2quat, make_pose, pose_inv, quat2mat

from flywheel.core.specs import Array

_SCALE = np.array([0.05, 0.05, 0.05, 0.5, 0.5, 0.5])
"""Metres and radians per unit of action."""


class ControlStep:
    """One control period of a robosuite environment with one fixed arm and the Panda's hand; make a new one after every reset."""

    def __init__(self, env: Any) -> None:
        """Take over the controllers as the reset left them."""
        robot = env.robots[0]
        arm, actuators = robot.part_controllers["right"], robot._ref_actuators_indexes_dict
        model, data = env.sim.model._model, env.sim.data._data
        self._model, self._data, self._hand = model, data, robot.gripper["right"]
        self._substeps = int(env.control_timestep / env.model_timestep)
        self._site, self._base = (model.site(name).id for name in (arm.ref_name, f"{arm.naming_prefix}{arm.part_name}_center"))

        # MuJoCo's own memory, which stays in its place; the joints and the motors of an arm have consecutive numbers.
        joints, motors = _span(arm.qvel_index), _span(actuators["right"])
        self._pose = data.site_xpos[self._site], data.site_xmat[self._site].reshape(3, 3)
        self._base_pose = data.site_xpos[self._base], data.site_xmat[self._base].reshape(3, 3)
        self._moving = data.qpos[_span(arm.qpos_index)], data.qvel, data.qfrc_bias
        self._ctrl, self._limits = data.ctrl[motors], model.actuator_ctrlrange[motors].T.copy()
        self._fingers = actuators[robot.get_gripper_name("right")]
        self._packed_mass = data.qM

        self._jacobian, self._base_jacobian = np.zeros((2, 6, model.nv))
        self._constant = joints.start, arm.kp, arm.kd, arm.initial_joint
        # The first torques after a reset follow from the mass that robosuite read before the reset had opened the hand.
        self._mass, self._mass_is_read = np.zeros((model.nv, model.nv)), True
        self._mass[joints, joints] = arm.mass_matrix

    def step(self, action: Array) -> None:
        """Simulate one control period with seven actions in [-1, 1]."""
        goal = None
        for _ in range(self._substeps):
            mujoco.mj_step1(self._model, self._data)
            goal = goal or self._goal(action.astype(np.float64))
            self._read()
            _compiled_torques(
                *goal, *self._pose, *self._base_pose, *self._moving, self._jacobian, self._base_jacobian, self._mass,
                *self._constant, self._limits, self._ctrl,
            )  # fmt: skip
            mujoco.mj_step2(self._model, self._data)

    def _goal(self, action: Array) -> tuple[Array, Array]:
        """The pose to reach, in the base's frame; also tells the fingers where to go."""
        closing = self._hand.format_action(action[6:])
        low, high = self._model.actuator_ctrlrange[self._fingers].T
        self._data.ctrl[self._fingers] = 0.5 * (high + low) + 0.5 * (high - low) * closing

        delta = action[:6] * _SCALE
        pose = pose_inv(make_pose(*self._base_pose)).dot(make_pose(*self._pose))
        return pose[:3, 3] + delta[:3], np.dot(quat2mat(axisangle2quat(delta[3:])), pose[:3, :3])

    def _read(self) -> None:
        model, data = self._model, self._data
        mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        mujoco.mj_jacSite(model, data, self._base_jacobian[:3], self._base_jacobian[3:], self._base)
        if not self._mass_is_read:
            mujoco.mj_fullM(model, self._mass, self._packed_mass)
        self._mass_is_read = False


def _span(numbers: list[int]) -> slice:
    return slice(numbers[0], numbers[-1] + 1)


def _torques(
    goal_position: Array,
    goal_orientation: Array,
    position: Array,
    orientation: Array,
    base_position: Array,
    base_orientation: Array,
    joint_pos: Array,
    velocities: Array,
    bias: Array,
    jacobian: Array,
    base_jacobian: Array,
    mass: Array,
    first: int,
    kp: Array,
    kd: Array,
    initial_joints: Array,
    limits: Array,
    torques: Array,
) -> None:
    """Write the torques of the arm's joints, the robot's degrees of freedom from `first` on.

    The goal is given in the base's frame, poses, velocities, Jacobians (6, nv) and the mass matrix (nv, nv) in the world's.
    """
    joints = slice(first, first + len(joint_pos))
    error, damping = np.empty(6), np.empty(6)
    error[:3] = base_position + np.dot(base_orientation, goal_position) - position
    error[3:] = orientation_error(np.dot(base_orientation, goal_orientation), orientation)
    damping[:3] = -(np.dot(jacobian[:3], velocities) - np.dot(base_jacobian[:3], velocities))
    damping[3:] = -(np.dot(jacobian[3:], velocities) - np.dot(base_jacobian[3:], velocities))
    wanted = error * kp + damping * kd

    arm_mass = np.asfortranarray(mass[joints, joints])  # in columns, as robosuite's indexing leaves it
    arm_jacobian = jacobian[:, joints].copy()
    _, inertia, turning_inertia, null_space = opspace_matrices(arm_mass, arm_jacobian, arm_jacobian[:3], arm_jacobian[3:])
    wrench = np.concatenate((np.dot(inertia, wanted[:3]), np.dot(turning_inertia, wanted[3:])))
    found = np.dot(arm_jacobian.T, wrench) + bias[joints]
    found += nullspace_torques(arm_mass, null_space, initial_joints, joint_pos, velocities[joints])
    torques[:] = np.minimum(np.maximum(found, limits[0]), limits[1])


_V, _M = "f8[::1]", "f8[:,::1]"
_SIGNATURE = f"void({_V},{_M}, {_V},{_M}, {_V},{_M}, {_V},{_V},{_V}, {_M},{_M},{_M}, i8,{_V},{_V},{_V}, {_M},{_V})"

# Compiled now and not at the first step; kept beside this file, or in the user's cache where that cannot be written.
_compiled_torques = numba.njit(_SIGNATURE, cache=True)(_torques)

"""A 4-joint arm on a table: the model and kinematics that the manipulation tasks share.

The table's top is the plane z = 0; the arm stands on it at `BASE_X` and faces along +x. A yaw joint carries
three pitch joints that move in one vertical plane, so that kinematics are closed formulas both ways. At joint
position 0 the arm points straight up; positive pitches bend it forwards.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
import torch
from torch import Tensor

JOINT_LOW, JOINT_HIGH = (-1.8, -0.8, 0.0, -0.6), (1.8, 1.6, 2.7, 2.6)  # rad
BASE_X = -0.35  # m, on the table
SHOULDER_HEIGHT = 0.12  # m above the table
UPPER_ARM, FOREARM, HAND = 0.32, 0.28, 0.14  # m, joint to joint, and wrist to the fingertip's centre
FINGERTIP_RADIUS = 0.02  # m
FLOOR = -0.4  # m
TABLE_HALF_SIZE = 0.5  # m
HAND_TOUCHES = 2  # contact bit of the fingertip; what it is to push has it in its conaffinity
STUDENT_CAMERAS = ("front", "wrist")
"""Cameras of students. Looks turn `front` by up to 4 degrees: what it sees moves by about as much as Reach's
goal is large. `wrist`, fixed to the hand, shows how to go on from there.
"""


def make_scene() -> mujoco.MjSpec:
    """A spec with floor, table, light and the arm; `add_camera` sets up cameras of the world.

    The arm has position servos, is weightless (gravity compensation, as robots do it) and touches with its
    fingertip alone. Its site ``tip`` is the fingertip's centre, its camera ``wrist`` looks along the hand.
    """
    spec = mujoco.MjSpec()
    spec.compiler.degree = False  # joint ranges are in radians
    spec.option.timestep = 0.01
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.iterations, spec.option.ls_iterations = 10, 20
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.3] * 3, [0.3] * 3
    spec.worldbody.add_light(
        pos=[0.3, 0.4, 1.8], dir=[-0.15, -0.2, -1.0], diffuse=[0.5, 0.5, 0.5], castshadow=False
    )
    _add_room(spec)
    _add_arm(spec)
    return spec


def add_camera(
    spec: mujoco.MjSpec,
    name: str,
    position: tuple[float, float, float],
    target: tuple[float, float, float],
    fovy: float,
) -> None:
    """Add an upright camera of the world at `position` that looks at `target`; `fovy` in degrees."""
    back = np.subtract(position, target)
    right = np.array([-back[1], back[0], 0.0])
    axes = np.concatenate([right, np.cross(back, right)])
    spec.worldbody.add_camera(name=name, pos=position, xyaxes=axes, fovy=fovy)


def _add_room(spec: mujoco.MjSpec) -> None:
    """Checker floor and table; the table's top is a plane, which is cheap to collide with."""
    spec.add_texture(
        name="checker",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.25, 0.3, 0.35],
        rgb2=[0.4, 0.45, 0.5],
        width=64,
        height=64,
    )
    checker = spec.add_material(name="checker", texrepeat=[8, 8])
    checker.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "checker"
    visual = {"contype": 0, "conaffinity": 0}
    plane, box = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX
    world, half = spec.worldbody, TABLE_HALF_SIZE
    world.add_geom(
        name="floor", type=plane, size=[2, 2, 0.1], pos=[0, 0, FLOOR], material="checker", **visual
    )
    wood = [0.62, 0.52, 0.42, 1.0]
    world.add_geom(name="table", type=plane, size=[half, half, 0.1], rgba=wood, contype=0, conaffinity=1)
    # Edge and foot are just to be seen; they begin below the top, so that the two never fight for a pixel.
    thickness = 0.02
    world.add_geom(
        name="table_edge",
        type=box,
        size=[half, half, thickness],
        pos=[0, 0, -thickness - 2e-3],
        rgba=wood,
        **visual,
    )
    world.add_geom(
        name="table_foot",
        type=box,
        size=[0.06, 0.06, -FLOOR / 2 - thickness],
        pos=[0, 0, FLOOR / 2 - thickness],
        rgba=[0.3, 0.3, 0.3, 1.0],
        **visual,
    )


def _add_arm(spec: mujoco.MjSpec) -> None:
    """Base, upper arm, forearm and hand; each link runs along its own z axis."""
    capsule, sphere = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_SPHERE
    visual = {"contype": 0, "conaffinity": 0}
    # name, joint, axis, height above the parent, length, radius, mass, colour
    links = (
        ("base", "yaw", [0, 0, 1], 0.0, 0.0, 0.06, 1.0, [0.3, 0.3, 0.35, 1]),
        ("upper_arm", "shoulder", [0, 1, 0], SHOULDER_HEIGHT, UPPER_ARM, 0.035, 0.6, [0.9, 0.6, 0.1, 1]),
        ("forearm", "elbow", [0, 1, 0], UPPER_ARM, FOREARM, 0.03, 0.4, [0.2, 0.65, 0.3, 1]),
        ("hand", "wrist", [0, 1, 0], FOREARM, HAND, 0.014, 0.1, [0.2, 0.35, 0.9, 1]),
    )
    body = spec.worldbody
    for i, (name, joint, axis, above, length, radius, mass, rgba) in enumerate(links):
        body = body.add_body(name=name, pos=[BASE_X if i == 0 else 0, 0, above], gravcomp=1)
        body.add_joint(name=joint, axis=axis, range=[JOINT_LOW[i], JOINT_HIGH[i]], limited=1, armature=0.01)
        if name == "base":
            half = SHOULDER_HEIGHT / 2
            shape = {"type": mujoco.mjtGeom.mjGEOM_CYLINDER, "size": [radius, half, 0], "pos": [0, 0, half]}
        else:
            shape = {"type": capsule, "size": [radius, 0, 0], "fromto": [0, 0, 0, 0, 0, length]}
        body.add_geom(name=name, mass=mass, rgba=rgba, **shape, **visual)
        servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        servo.set_to_position(kp=100.0, kv=8.0)
        servo.forcelimited, servo.forcerange = 1, [-60, 60]
        servo.ctrllimited, servo.ctrlrange = 1, [JOINT_LOW[i], JOINT_HIGH[i]]
    body.add_geom(
        name="fingertip",
        type=sphere,
        size=[FINGERTIP_RADIUS, 0, 0],
        pos=[0, 0, HAND],
        mass=0.05,
        rgba=[0.85, 0.85, 0.9, 1],
        contype=HAND_TOUCHES,
        conaffinity=0,
    )
    body.add_site(name="tip", pos=[0, 0, HAND])
    body.add_camera(name="wrist", pos=[-0.07, 0, -0.04], xyaxes=[0, -1, 0, -1, 0, 0], fovy=75)


def tip_position(joints: Tensor) -> Tensor:
    """Forward kinematics: the fingertip of joint positions ``(n, 4)``, shape ``(n, 3)``."""
    yaw, pitch = joints[:, 0], joints[:, 1:].cumsum(1)
    lengths = pitch.new_tensor((UPPER_ARM, FOREARM, HAND))
    radius = (lengths * pitch.sin()).sum(1)
    height = SHOULDER_HEIGHT + (lengths * pitch.cos()).sum(1)
    return torch.stack([BASE_X + radius * yaw.cos(), radius * yaw.sin(), height], 1)


def joints_pointing_down(tip: Tensor) -> Tensor:
    """Inverse kinematics for a hand that points straight down.

    Args:
        tip: where the fingertip is to be, ``(n, 3)``.

    Returns:
        Joint positions ``(n, 4)``, elbow up; for points out of reach, the arm stretched towards them.
    """
    x, y, z = tip.unbind(1)
    x = x - BASE_X
    radius, height = torch.hypot(x, y), z + HAND - SHOULDER_HEIGHT  # of the wrist, seen from the shoulder
    cosine = (radius**2 + height**2 - UPPER_ARM**2 - FOREARM**2) / (2 * UPPER_ARM * FOREARM)
    elbow = torch.acos(cosine.clamp(-1.0, 1.0))
    behind = torch.atan2(FOREARM * elbow.sin(), UPPER_ARM + FOREARM * elbow.cos())
    shoulder = torch.atan2(radius, height) - behind
    return torch.stack([torch.atan2(y, x), shoulder, elbow, math.pi - shoulder - elbow], 1)


def proprioception(joints: Tensor, velocities: Tensor, targets: Tensor, tip: Tensor) -> Tensor:
    """What the arm knows of itself, ``(n, 15)``: joint positions, velocities / 10, servo errors, tip."""
    return torch.cat([joints, 0.1 * velocities, targets - joints, tip], 1)

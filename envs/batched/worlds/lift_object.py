"""LiftObject: a gripper lifts objects of many shapes, the small stand-in for universal grasping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

import mujoco
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import TaskOptions, VecTask
from tutelage.envs.batched.worlds.object_families import (
    FAMILIES,
    HELD_OUT_FAMILIES,
    SLOTS,
    TRAIN_FAMILIES,
    ObjectMaker,
)
from tutelage.envs.batched.worlds.object_tasks import ObjectTasks
from tutelage.envs.contract.recipe import WorldRecipe, batched_ppo, grid_or_sample

LIFT_HEIGHT = 0.10  # m that the object must have risen
HOLD_DISTANCE = 0.04  # m between its grasp point and the gripper's, at most: held, not thrown
OPEN = 0.055  # m from the middle to each finger, fully open
GRASP_HEIGHT = (0.012, 0.20)  # m above the table that the grasp point can be brought to
START_HEIGHT = 0.14
TOUCH = 1e-4  # m that it begins in the table: in contact, however a simulator rounds
WORKSPACE = 0.3  # m; an object farther away than this is lost

TOUCHES_TABLE, TOUCHES_GRIPPER = 1, 2  # contact bits: table and gripper touch the object, not each other
_PRIMITIVES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
}


class LiftObject(VecTask):
    """A gripper lifts one of many objects: boxes, cylinders, capsules and shapes composed of them.

    The gripper moves as a gantry does, on slides along x, y and z and a hinge about z, and has two fingers
    that close along its y axis. It begins open, about 0.14 m over the middle of the table. What it is to lift
    is one of the families of `tutelage.envs.batched.worlds.object_families`: train on `TRAIN_FAMILIES` (the
    default), test on ``LiftObject(n, families=HELD_OUT_FAMILIES)``.

    Task parameters (`task_space`):

    - ``family`` (0 to the number of families): its whole part is the position in `families`; a box, not a
      discrete set, so that every task teacher can propose it with the others.
    - ``scale`` (0.014 to 0.022 m): about half of the width to grasp; all lengths are proportional to it.
    - ``aspect`` (0 to 1): from the stout to the slender object of the family.
    - ``mass`` (0.05 to 0.25 kg), ``friction`` (0.5 to 1.2, sliding, with fingers and table).
    - ``x``, ``y`` (-0.06 to 0.06 m), ``yaw`` (-pi/2 to pi/2 rad): how it lies at first; (x, y) is its centre
      of mass.

    ``task_space.features(tasks)`` describes shape and pose, for distances between tasks.

    Actions (5, in [-1, 1]): what to add to the targets of x, y, z (0.02 m), yaw (0.2 rad) and of both fingers
    (0.012 m each; positive opens).

    Views, all scaled to about 1:

    - ``policy`` (17): joint positions (6) and velocities (6), targets less positions (5, one finger).
    - ``privileged`` (58, the default): ``policy``; from the gripper to the place to grasp, in the world (3);
      sine and cosine of twice the angle between the fingers and the grasp, which are the same with the
      fingers swapped (2); the object's position (3), its x and z axes (6), linear (3) and angular velocity
      (3, in its own frame); opening of the fingers less the width to grasp (1); how far it has risen (1);
      mass and friction (2); and its shape (17): the features (`FEATURES`, 13) and the place and width of the
      grasp (4). It says nothing of the family but the shape, so it serves for families that were never seen.
    - ``labelled`` (70): ``privileged``, and which of all `FAMILIES` it is, one-hot (12).

    Reward terms, each step, with d the distance from the gripper to the place to grasp, ``near =
    exp(-(d / 0.03)**2)`` and ``aligned = (1 + cos(2 angle)) / 2``:

    - ``approach``: 0.5 (1 - tanh(8 d)); ``align``: 0.2 aligned;
    - ``grasp``: 0.5 near aligned closed, where closed goes from 0 (open) to 1 (as narrow as the object);
    - ``lift``: 2 near times the rise / 0.12 m, at most 1; ``hold``: 1 while it is held up (as for success);
    - ``effort``: -0.01 times the squared action.

    Success: at the end the object has risen by more than 0.1 m and is in the fingers' grasp (within 0.04 m of
    the place to grasp: thrown up does not count). Episodes last 75 steps of 0.04 s; they end before, without
    success, when the object is more than 0.3 m off in x or y.

    Cameras: ``front``, from +x, sees gripper, object and the height it is lifted to; ``wrist`` moves with the
    gripper and sees what is between and below the fingers.

    Preset ``ppo`` (SB3, 256 environments, view ``privileged``): after 1.0 M steps, 100 s of one core, and
    without noise in its actions, it lifts 0.98 to 0.995 of the training families' objects (3 seeds), 0.81 to
    0.95 of the held-out ones. From the view ``labelled`` (one seed) it is 0.97 and 0.13: labels mislead.
    """

    recipe: ClassVar[WorldRecipe] = WorldRecipe(
        summary="MuJoCo gripper lifts objects of many shapes",
        mastered="lifted by 10 cm at the end",
        test_sets={"test": grid_or_sample},
        students={"ppo": batched_ppo(256)},
        quick_steps=1_250_000,
        cameras=("front", "wrist"),
        held_out={"families": HELD_OUT_FAMILIES},
    )
    num_actions = 5
    decimation = 4
    max_episode_length = 75
    model_fields: tuple[str, ...] = (
        "geom_size",
        "geom_pos",
        "geom_quat",
        "geom_friction",
        "body_mass",
        "body_inertia",
        "body_iquat",
    )
    task_space: ObjectTasks
    default_obs_view: ClassVar[str] = "privileged"
    default_max_contacts: ClassVar[int] = 40
    default_max_constraints: ClassVar[int] = 160

    def __init__(
        self, num_envs: int, *, families: Sequence[str] = TRAIN_FAMILIES, **options: Unpack[TaskOptions]
    ) -> None:
        self.task_space = ObjectTasks(families)
        self.families = self.task_space.families
        super().__init__(num_envs, **options)

    def build_spec(self) -> mujoco.MjSpec:
        """A table, the gripper, and an object with all `SLOTS`."""
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        spec.option.timestep = 0.01
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.iterations, spec.option.ls_iterations = 10, 20
        # Askew by 1 / 50,000: where a cylinder stands upright to the last bit, MuJoCo 4.0 loses the direction
        # of its lean in rounding, finds contacts with the plane in wrong places, and throws it over.
        spec.option.gravity = [2e-4, 0, -9.81]
        world = spec.worldbody
        world.add_light(pos=[0.3, -0.4, 1.2], dir=[-0.25, 0.3, -1], castshadow=False)
        world.add_camera(name="front", pos=[0.55, 0, 0.38], xyaxes=[0, 1, 0, -0.438, 0, 0.899], fovy=33)
        world.add_geom(
            name="table",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[0.6, 0.6, 0.1],
            contype=0,
            conaffinity=TOUCHES_TABLE,
            rgba=[0.45, 0.5, 0.55, 1],
        )
        self._add_gripper(spec)
        # not "simple": its principal axes turn with the task, and its row of the mass matrix is not diagonal
        thing = world.add_body(name="object", pos=[0, 0, 0.05], simple=False)
        thing.add_freejoint(name="object")
        thing.explicitinertial = True
        thing.mass, thing.inertia, thing.ipos = 0.1, [1e-4, 1e-4, 1e-4], [0, 0, 0]  # ipos defaults to pos
        for i, slot in enumerate(SLOTS):
            thing.add_geom(
                name=f"part{i}",
                type=_PRIMITIVES[slot],
                size=[0.01, 0.01, 0.01],
                contype=TOUCHES_TABLE,
                conaffinity=TOUCHES_GRIPPER,
                priority=1,  # contacts have the object's friction
                rgba=[0.9, 0.55, 0.1, 1],
            )
        return spec

    def _add_gripper(self, spec: mujoco.MjSpec) -> None:
        """Palm and fingers, weightless (gravity compensation); the body's origin is the place that grasps."""
        wrist = spec.worldbody.add_body(name="wrist", gravcomp=1)
        wrist.add_camera(name="wrist", pos=[0.11, 0, 0.09], xyaxes=[0, 1, 0, -0.82, 0, 0.57], fovy=74)
        touching = {"type": mujoco.mjtGeom.mjGEOM_BOX, "contype": TOUCHES_GRIPPER, "conaffinity": 0}
        wrist.add_geom(
            name="palm",
            size=[0.02, 0.065, 0.015],
            pos=[0, 0, 0.075],
            mass=1.0,
            rgba=[0.2, 0.25, 0.6, 1],
            **touching,
        )
        slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
        for name, axis, limits in (
            ("x", [1, 0, 0], (-0.2, 0.2)),
            ("y", [0, 1, 0], (-0.2, 0.2)),
            ("z", [0, 0, 1], GRASP_HEIGHT),
        ):
            wrist.add_joint(name=name, type=slide, axis=axis, range=limits)
            _add_servo(spec, name, limits, kp=1500, kv=90, force=80)
        wrist.add_joint(name="yaw", type=hinge, axis=[0, 0, 1], range=(-2.2, 2.2), armature=0.02)
        _add_servo(spec, "yaw", (-2.2, 2.2), kp=20, kv=1.4, force=10)
        for name, side in (("left", 1.0), ("right", -1.0)):
            finger = wrist.add_body(name=name, gravcomp=1)
            finger.add_joint(name=name, type=slide, axis=[0, side, 0], range=(0, OPEN), armature=0.1)
            # targets beyond the middle: thin objects are squeezed too
            _add_servo(spec, name, (-0.015, OPEN), kp=600, kv=25, force=15)
            finger.add_geom(
                name=name,
                size=[0.008, 0.005, 0.036],
                pos=[0, side * 0.005, 0.025],
                mass=0.1,
                rgba=[0.15, 0.15, 0.18, 1],
                **touching,
            )

    def setup(self) -> None:
        """Ids, constants and buffers."""
        self._maker = ObjectMaker(self.device)
        self._known = torch.tensor(self.task_space.family_indices, device=self.device)
        self._labels = torch.eye(len(FAMILIES), device=self.device)
        first = self.model.geom("part0").id
        self._parts = slice(first, first + len(SLOTS))
        self._object = self.model.body("object").id
        self._wrist = self.model.body("wrist").id
        step = [0.02, 0.02, 0.02, 0.2, 0.012]
        self._step = torch.tensor(step, device=self.device)
        limits = self.model.actuator_ctrlrange[:5]
        self._lowest = torch.tensor(limits[:, 0], dtype=torch.float32, device=self.device)
        self._highest = torch.tensor(limits[:, 1], dtype=torch.float32, device=self.device)
        self._home = torch.tensor([0, 0, START_HEIGHT, 0, OPEN, OPEN], device=self.device)
        self.targets = self.new_buffer("targets", 5)
        self.family = self.new_buffer("family", dtype=torch.int64)
        self.shape = self.new_buffer("shape", 17)
        self.grasp = self.new_buffer("grasp", 3)
        self.width = self.new_buffer("width")
        self.rest_height = self.new_buffer("rest_height")

    def start_episodes(self, rows: Rows) -> None:
        """Make the objects, lay them on the table, open the gripper above the middle."""
        task = {name: rows.take(self.parameter(name)) for name in self.task_space.names}
        index = task["family"].floor().long().clamp(max=len(self.families) - 1)
        family = self._known[index]
        made = self._maker.make(family, task["scale"], task["aspect"])
        for name, values in (("size", made.size), ("pos", made.position), ("quat", made.quat)):
            field = rows.take(self.sim.read_model(f"geom_{name}")).clone()
            field[:, self._parts] = values
            self.sim.write_model(f"geom_{name}", field, rows)
        friction = rows.take(self.sim.read_model("geom_friction")).clone()
        friction[:, self._parts, 0] = task["friction"][:, None]
        self.sim.write_model("geom_friction", friction, rows)
        for name, values in (
            ("mass", task["mass"]),
            ("inertia", made.inertia * task["mass"][:, None]),
            ("iquat", made.inertia_quat),
        ):
            field = rows.take(self.sim.read_model(f"body_{name}")).clone()
            field[:, self._object] = values
            self.sim.write_model(f"body_{name}", field, rows)
        self.sim.set_constants(rows)

        rows.put(self.family, family)
        rows.put(self.grasp, made.grasp)
        rows.put(self.width, made.grasp_width)
        rows.put(self.rest_height, made.height)
        size_of_all = torch.cat([made.features[:, :12] * 30, made.features[:, 12:], made.grasp * 30], 1)
        rows.put(self.shape, torch.cat([size_of_all, made.grasp_width[:, None] * 30], 1))

        yaw = task["yaw"] / 2
        zero = torch.zeros_like(yaw)
        pose = torch.stack([task["x"], task["y"], made.height - TOUCH, yaw.cos(), zero, zero, yaw.sin()], 1)
        hand = self._home + 0.02 * self.streams.uniform(rows, 6, -1, 1)
        hand[:, 4:] = OPEN
        self.sim.write("qpos", torch.cat([hand, pose], 1), rows)
        rows.put(self.targets, hand[:, :5])
        self.sim.write("ctrl", hand, rows)

    def pre_physics_step(self, actions: Tensor) -> None:
        """Move the targets of the servos; both fingers have the same."""
        self.targets.add_(actions * self._step)
        torch.maximum(self.targets, self._lowest, out=self.targets)
        torch.minimum(self.targets, self._highest, out=self.targets)
        self.sim.write("ctrl", torch.cat([self.targets, self.targets[:, 4:]], 1))

    def post_physics_step(self) -> None:
        """Where the object and its grasp are, as seen from the gripper."""
        self.qpos, self.qvel = self.sim.read("qpos"), self.sim.read("qvel")
        position = self.qpos[:, 6:9]
        self.rotation = self.sim.read("xmat")[:, self._object].view(-1, 3, 3)
        self.to_grasp = position + (self.rotation @ self.grasp[..., None])[..., 0] - self.qpos[:, :3]
        self.distance = self.to_grasp.norm(dim=1)
        yaw = torch.atan2(self.rotation[:, 1, 0], self.rotation[:, 0, 0])
        self.twist = yaw - self.qpos[:, 3]  # the fingers can be swapped: all that follows has period pi
        self.opening = self.qpos[:, 4] + self.qpos[:, 5]
        self.rise = position[:, 2] - self.rest_height
        self.held = (self.rise > LIFT_HEIGHT) & (self.distance < HOLD_DISTANCE)

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        """Lost objects end an episode; risen ones count at its end."""
        lost = self.qpos[:, 6:8].abs().amax(1) > WORKSPACE
        return lost, self.held

    def compute_rewards(self) -> dict[str, Tensor]:
        """See the class."""
        aligned = (1 + (2 * self.twist).cos()) / 2
        near = torch.exp(-((self.distance / 0.03) ** 2))
        closed = 1 - ((self.opening - self.width) / (2 * OPEN - self.width)).clamp(0, 1)
        lifted = (self.rise / 0.12).clamp(0, 1)
        return {
            "approach": 0.5 * (1 - torch.tanh(8 * self.distance)),
            "align": 0.2 * aligned,
            "grasp": 0.5 * near * aligned * closed,
            "lift": 2.0 * near * lifted,
            "hold": 1.0 * self.held,
            "effort": -0.01 * (self.actions**2).sum(1),
        }

    def compute_views(self) -> dict[str, Tensor]:
        """See the class."""
        hand = torch.cat(
            [
                self.qpos[:, :3] * 5,
                self.qpos[:, 3:4],
                self.qpos[:, 4:6] * 20,
                self.qvel[:, :6],
                (self.targets - self.qpos[:, :5]) * 10,
            ],
            1,
        )
        double = 2 * self.twist[:, None]
        privileged = torch.cat(
            [
                hand,
                self.to_grasp * 10,
                double.sin(),
                double.cos(),
                self.qpos[:, 6:9] * 5,
                self.rotation[:, :, 0],
                self.rotation[:, :, 2],
                self.qvel[:, 6:9],
                self.qvel[:, 9:12] * 0.1,
                (self.opening - self.width)[:, None] * 10,
                self.rise[:, None] * 10,
                self.parameter("mass")[:, None],
                self.parameter("friction")[:, None],
                self.shape,
            ],
            1,
        )
        labelled = torch.cat([privileged, self._labels[self.family]], 1)
        return {"policy": hand, "privileged": privileged, "labelled": labelled}


def _add_servo(
    spec: mujoco.MjSpec, joint: str, limits: tuple[float, float], *, kp: float, kv: float, force: float
) -> None:
    servo = spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        ctrlrange=limits,
        forcerange=[-force, force],
    )
    servo.set_to_position(kp=kp, kv=kv)

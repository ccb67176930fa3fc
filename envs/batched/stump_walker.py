"""StumpWalker: a planar biped over stumps, the batched sister of StumpTracks."""

from __future__ import annotations

from typing import ClassVar, Unpack

import mujoco
import torch
from torch import Tensor

from tutelage.envs.batched.rows import Rows
from tutelage.envs.batched.vec_task import TaskOptions, VecTask
from tutelage.envs.tasks import BoxTasks

UNIT = 0.3  # metres of one unit of the task space: legs of 0.7 m are 2.3 units long, as in StumpTracks
STUMPS = 20
STUMP_WIDTH, STUMP_DEPTH = 0.3, 0.5  # m; boxes are as tall as the tallest stump and sunk into the ground
FIRST_STUMP, FINISH = 1.2, 6.0  # m from the start
SCAN = torch.linspace(-0.3, 1.5, 13)
ACTION_SCALE = (0.9, 0.8)


class StumpWalker(VecTask):
    task_space = BoxTasks({"height": (0.0, 3.0), "spacing": (0.0, 6.0)})
    num_actions = 4
    decimation = 5
    max_episode_length = 300
    model_fields: ClassVar[tuple[str, ...]] = ("geom_pos",)

    def __init__(self, num_envs: int, **options: Unpack[TaskOptions]) -> None:
        super().__init__(num_envs, **options)

    def build_spec(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.005
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.iterations, spec.option.ls_iterations = 10, 20
        spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_MIDPHASE
        world = spec.worldbody
        world.add_geom(
            name="ground", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[20, 2, 0.1], contype=2, conaffinity=1
        )
        for i in range(STUMPS):
            world.add_geom(
                name=f"stump{i}",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[STUMP_WIDTH / 2, STUMP_DEPTH, 0.5],
                pos=[FIRST_STUMP + i, 0, -0.6],
                contype=2,
                conaffinity=1,
                friction=[1.0, 0.005, 0.0001],
            )
        torso = world.add_body(name="torso", pos=[0, 0, 0.95])
        torso.add_joint(name="x", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[1, 0, 0])
        torso.add_joint(name="z", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, 1])
        torso.add_joint(name="pitch", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 1, 0])
        torso.add_geom(
            name="torso",
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[0, 0, 0, 0, 0, 0.35],
            size=[0.1, 0, 0],
            mass=6.0,
            contype=1,
            conaffinity=2,
        )
        for side, y in (("left", 0.06), ("right", -0.06)):
            thigh = torso.add_body(name=f"{side}_thigh", pos=[0, y, 0])
            thigh.add_joint(
                name=f"{side}_hip",
                axis=[0, 1, 0],
                range=[-1.8, 1.0],
                limited=1,
                damping=[1.0, 0, 0],
                armature=0.02,
            )
            thigh.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CAPSULE,
                fromto=[0, 0, 0, 0, 0, -0.38],
                size=[0.06, 0, 0],
                mass=1.5,
                contype=1,
                conaffinity=2,
            )
            shin = thigh.add_body(name=f"{side}_shin", pos=[0, 0, -0.38])
            shin.add_joint(
                name=f"{side}_knee",
                axis=[0, 1, 0],
                range=[0.0, 2.4],
                limited=1,
                damping=[1.0, 0, 0],
                armature=0.02,
            )
            shin.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CAPSULE,
                fromto=[0, 0, 0, 0, 0, -0.38],
                size=[0.045, 0, 0],
                mass=0.8,
                contype=1,
                conaffinity=2,
            )
            shin.add_site(name=f"{side}_foot", pos=[0, 0, -0.425])
            for joint, kp in (("hip", 120.0), ("knee", 120.0)):
                spec.add_actuator(
                    name=f"{side}_{joint}",
                    target=f"{side}_{joint}",
                    trntype=mujoco.mjtTrn.mjTRN_JOINT,
                    gaintype=mujoco.mjtGain.mjGAIN_FIXED,
                    biastype=mujoco.mjtBias.mjBIAS_AFFINE,
                    gainprm=[kp] + [0] * 9,
                    biasprm=[0, -kp, -3.0] + [0] * 7,
                    forcelimited=1,
                    forcerange=[-120, 120],
                )
        return spec

    def setup(self) -> None:
        names = [self.model.geom(i).name for i in range(self.model.ngeom)]
        self.stump_geoms = [names.index(f"stump{i}") for i in range(STUMPS)]
        self.heights = self.new_buffer("heights", STUMPS)
        self.pitch_of_stumps = self.new_buffer("period")
        self.scan = SCAN.to(self.device)
        self.rest = torch.tensor([-0.3, 0.6, -0.3, 0.6], device=self.device)
        self.scale = torch.tensor([0.9, 0.9, 0.9, 0.9], device=self.device)

    def start_episodes(self, rows: Rows) -> None:
        height = rows.take(self.parameter("height")) * UNIT
        period = rows.take(self.parameter("spacing")) * UNIT + STUMP_WIDTH
        heights = (height[:, None] + 0.03 * self.streams.normal(rows, STUMPS)).clamp(min=0) * (
            height[:, None] > 0
        )
        rows.put(self.heights, heights)
        rows.put(self.pitch_of_stumps, period)
        positions = rows.take(self.sim.read_model("geom_pos")).clone()
        order = torch.arange(STUMPS, device=self.device)
        positions[:, self.stump_geoms, 0] = FIRST_STUMP + STUMP_WIDTH / 2 + order * period[:, None]
        positions[:, self.stump_geoms, 2] = heights - 0.5 - 1e-3 * (heights <= 0)
        self.sim.write_model("geom_pos", positions, rows)
        qpos = torch.zeros(rows.n, self.model.nq, device=self.device)
        qpos[:, 1] = -0.12
        qpos[:, 3:] = self.rest + self.streams.uniform(rows, 4, -0.1, 0.1)
        self.sim.write("qpos", qpos, rows)
        self.sim.write("ctrl", self.rest.expand(rows.n, 4), rows)

    def pre_physics_step(self, actions: Tensor) -> None:
        self.x_before = self.sim.read("qpos")[:, 0].clone()
        self.sim.write("ctrl", self.rest + self.scale * actions)

    def ground(self, x: Tensor) -> Tensor:
        """Height of the terrain at x, (num_envs, k)."""
        along = (x - FIRST_STUMP) / self.pitch_of_stumps[:, None]
        index = along.floor()
        on = ((along - index) * self.pitch_of_stumps[:, None] < STUMP_WIDTH) & (index >= 0) & (index < STUMPS)
        return torch.where(on, self.heights.gather(1, index.long().clamp(0, STUMPS - 1)), 0.0)

    def post_physics_step(self) -> None:
        self.qpos, self.qvel = self.sim.read("qpos"), self.sim.read("qvel")
        self.x = self.qpos[:, 0]

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        finished = self.x >= FINISH
        self.fallen = ((self.qpos[:, 1] + 0.95 < 0.45) | (self.qpos[:, 2].abs() > 1.2)) & ~finished
        return finished | self.fallen, finished

    def compute_rewards(self) -> dict[str, Tensor]:
        force = self.sim.read("actuator_force")
        return {
            "progress": 10 * (self.x - self.x_before),
            "upright": -0.05 * self.qpos[:, 2].abs(),
            "effort": -5e-6 * (force**2).sum(1),
            "fall": -5.0 * self.fallen,
        }

    def compute_views(self) -> dict[str, Tensor]:
        feet = self.sim.read("site_xpos")
        clearance = feet[:, :, 2] - self.ground(feet[:, :, 0])
        body = [
            self.qpos[:, 2:3],
            self.qvel[:, :3] * 0.3,
            self.qpos[:, 3:],
            self.qvel[:, 3:] * 0.1,
            (clearance < 0.03).float(),
        ]
        profile = self.ground(self.x[:, None] + self.scan) - (self.qpos[:, 1:2] + 0.95)
        policy = torch.cat([*body, profile], 1)
        return {"policy": policy, "privileged": torch.cat([policy, clearance, self.tasks.float()], 1)}

"""The smallest batched task, of which every number can be computed by hand."""

from typing import Any, ClassVar

import mujoco
import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.contract.tasks import BoxTasks


class SlidingMass(VecTask):
    """A mass on a rail without friction; an action pushes with up to 40 N for four steps of 0.01 s.

    Success and the end at x >= goal, failure at x <= -1. The view ``raw`` is the simulator's own memory.
    """

    task_space = BoxTasks({"goal": (0.5, 1.5), "mass": (1.0, 4.0)})
    num_actions = 1
    decimation = 4
    max_episode_length = 12
    model_fields: ClassVar[tuple[str, ...]] = ("body_mass",)

    def build_spec(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.01
        spec.option.gravity = [0, 0, 0]
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        body = spec.worldbody.add_body(name="mass")
        body.add_joint(name="slide", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[1, 0, 0])
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0, 0], mass=1, rgba=[1, 0, 0, 1])
        motor = spec.add_actuator(name="motor", target="slide", trntype=mujoco.mjtTrn.mjTRN_JOINT)
        motor.gainprm[0] = 40
        spec.worldbody.add_camera(name="front", pos=[0, -2, 0], xyaxes=[1, 0, 0, 0, 0, 1])
        spec.worldbody.add_light(pos=[0, -2, 2], dir=[0, 1, -1])
        return spec

    def start_episodes(self, rows: Rows) -> None:
        mass = torch.zeros(rows.n, 2, device=self.device)
        mass[:, 1] = rows.take(self.parameter("mass"))
        self.sim.write_model("body_mass", mass, rows)
        self.sim.set_constants(rows)
        self.sim.write("qpos", self.streams.uniform(rows, 1, -0.1, 0.1), rows)

    def pre_physics_step(self, actions: Tensor) -> None:
        self.x_before = self.sim.read("qpos")[:, 0].clone()
        self.sim.write("ctrl", actions)

    def post_physics_step(self) -> None:
        self.qpos, self.qvel = self.sim.read("qpos"), self.sim.read("qvel")
        self.x = self.qpos[:, 0]

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        reached = self.x >= self.parameter("goal")
        return reached | (self.x <= -1), reached

    def compute_rewards(self) -> dict[str, Tensor]:
        return {
            "progress": 2 * (self.x - self.x_before),
            "effort": -0.1 * self.actions[:, 0] ** 2,
            "goal": 3.0 * (self.x >= self.parameter("goal")),
        }

    def compute_views(self) -> dict[str, Tensor]:
        policy = torch.cat([self.qpos, self.qvel, self.parameter("goal")[:, None] - self.qpos], 1)
        privileged = torch.cat([policy, self.parameter("mass")[:, None]], 1)
        return {"policy": policy, "privileged": privileged, "raw": self.qpos}


@pytest.fixture(scope="session")
def sliding_mass() -> Any:
    """The class; call it as ``sliding_mass(num_envs, seed=..., threads=1)``."""
    return SlidingMass

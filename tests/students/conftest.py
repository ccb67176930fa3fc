"""The batched task that experts and policies learn in seconds."""

import mujoco
import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.contract.recipe import WorldRecipe
from tutelage.envs.contract.tasks import BoxTasks


class Rail(VecTask):
    """A mass on a rail must be pushed onto a target; only the view ``privileged`` tells where that is."""

    recipe = WorldRecipe("a mass on a rail", "on the target at the end")
    task_space = BoxTasks({"target": (-1.0, 1.0)})
    num_actions = 1
    max_episode_length = 12
    default_obs_view = "privileged"

    def build_spec(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.01
        spec.option.gravity = [0, 0, 0]
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        body = spec.worldbody.add_body(name="mass")
        body.add_joint(name="slide", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[1, 0, 0], damping=[40, 0, 0])
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0, 0], mass=1)
        motor = spec.add_actuator(name="motor", target="slide", trntype=mujoco.mjtTrn.mjTRN_JOINT)
        motor.gainprm[0] = 200
        return spec

    def start_episodes(self, rows: Rows) -> None:
        self.sim.write("qpos", self.streams.uniform(rows, 1, -0.1, 0.1), rows)

    def pre_physics_step(self, actions: Tensor) -> None:
        self.sim.write("ctrl", actions)

    def post_physics_step(self) -> None:
        self.qpos, self.qvel = self.sim.read("qpos"), self.sim.read("qvel")
        self.offset = self.parameter("target") - self.qpos[:, 0]

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        return self.qpos[:, 0].abs() > 3, self.offset.abs() < 0.1

    def compute_rewards(self) -> dict[str, Tensor]:
        return {"near": -self.offset.abs()}

    def compute_views(self) -> dict[str, Tensor]:
        policy = torch.cat([self.qpos, self.qvel], 1)
        return {"policy": policy, "privileged": torch.cat([policy, self.offset[:, None]], 1)}


@pytest.fixture(scope="session")
def rail() -> type[VecTask]:
    """The class; call it as ``rail(num_envs, seed=..., threads=1)``."""
    return Rail

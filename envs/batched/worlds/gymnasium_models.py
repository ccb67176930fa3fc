"""Gymnasium's Hopper and Walker2d, batched: the same models, observations, rewards and ends."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Unpack

import mujoco
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import TaskOptions, VecTask
from tutelage.envs.contract.tasks import BoxTasks

Integrator = Literal["implicitfast", "RK4"]


class PlanarRunner(VecTask):
    """What Hopper and Walker2d share: run forward, stay healthy, spend little.

    Task parameter: ``gravity`` in [5, 15] m/s^2; Gymnasium's is 9.81.

    Actions: torques in [-1, 1]. Views: ``policy`` and ``privileged`` are Gymnasium's observation: positions
    without x, and velocities clipped to [-10, 10]. Reward terms: ``forward`` (speed in m/s), ``healthy`` (1),
    ``control`` (-0.001 times the squared action). An episode ends when the body is not healthy, and after
    1,000 steps; those that get so far have success.

    Args:
        num_envs: environments.
        integrator: ``implicitfast``, which is 2 to 3 times faster, or ``RK4``, as Gymnasium ships the models.
        **options: see `VecTask`.
    """

    model_file: ClassVar[str]
    task_space = BoxTasks({"gravity": (5.0, 15.0)})
    decimation = 4
    max_episode_length = 1000
    model_fields = ("opt.gravity",)
    reset_noise: ClassVar[float] = 5e-3

    def __init__(
        self, num_envs: int, integrator: Integrator = "implicitfast", **options: Unpack[TaskOptions]
    ) -> None:
        self.integrator = integrator
        super().__init__(num_envs, **options)

    def build_spec(self) -> mujoco.MjSpec:
        """Gymnasium's own file."""
        import gymnasium

        folder = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"  # its package needs imageio
        spec = mujoco.MjSpec.from_file(str(folder / self.model_file))
        spec.option.integrator = {
            "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
            "RK4": mujoco.mjtIntegrator.mjINT_RK4,
        }[self.integrator]
        return spec

    def setup(self) -> None:
        """Keep the first position; the time of a step."""
        self.qpos0 = torch.tensor(self.model.qpos0, dtype=torch.float32, device=self.device)
        self.seconds = self.model.opt.timestep * self.decimation
        self.x_before = self.new_buffer("x_before")

    def start_episodes(self, rows: Rows) -> None:
        """Stand, with a little noise."""
        zeros = torch.zeros(rows.n, 2, device=self.device)
        gravity = -rows.take(self.parameter("gravity"))[:, None]
        self.sim.write_model("opt.gravity", torch.cat([zeros, gravity], 1), rows)
        noise = self.streams.uniform(rows, self.model.nq + self.model.nv, -self.reset_noise, self.reset_noise)
        self.sim.write("qpos", self.qpos0 + noise[:, : self.model.nq], rows)
        self.sim.write("qvel", noise[:, self.model.nq :], rows)

    def pre_physics_step(self, actions: Tensor) -> None:
        """Actions are controls."""
        self.x_before.copy_(self.qpos[:, 0])
        self.sim.write("ctrl", actions)

    def post_physics_step(self) -> None:
        """Read the state."""
        self.qpos, self.qvel = self.sim.read("qpos"), self.sim.read("qvel")
        self.healthy = self.is_healthy()

    def is_healthy(self) -> Tensor:
        """Whether each body is still up, bool, shape ``(num_envs,)``."""
        raise NotImplementedError

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        """End where the body is not healthy; success is to reach the time limit."""
        return ~self.healthy, self.healthy

    def compute_rewards(self) -> dict[str, Tensor]:
        """Gymnasium's terms."""
        return {
            "forward": (self.qpos[:, 0] - self.x_before) / self.seconds,
            "healthy": self.healthy.to(torch.float32),
            "control": -1e-3 * (self.actions**2).sum(1),
        }

    def compute_views(self) -> dict[str, Tensor]:
        """Gymnasium's observation."""
        view = torch.cat([self.qpos[:, 1:], self.qvel.clamp(-10.0, 10.0)], 1)
        return {"policy": view, "privileged": view}


class Hopper(PlanarRunner):
    """Gymnasium's ``Hopper-v5`` as a batched task; see `PlanarRunner`.

    Healthy: z > 0.7, pitch in (-0.2, 0.2), all other state in (-100, 100). 3 actions, 11 observations.
    """

    model_file: ClassVar[str] = "hopper.xml"
    num_actions = 3

    def is_healthy(self) -> Tensor:
        """Gymnasium's rule."""
        z, pitch = self.qpos[:, 1], self.qpos[:, 2]
        sane = (self.qpos[:, 2:].abs() < 100).all(1) & (self.qvel.abs() < 100).all(1)
        return sane & (z > 0.7) & (pitch.abs() < 0.2)


class Walker2d(PlanarRunner):
    """Gymnasium's ``Walker2d-v5`` as a batched task; see `PlanarRunner`.

    Healthy: z in (0.8, 2), pitch in (-1, 1). 6 actions, 17 observations.
    """

    model_file: ClassVar[str] = "walker2d_v5.xml"
    num_actions = 6

    def is_healthy(self) -> Tensor:
        """Gymnasium's rule."""
        z, pitch = self.qpos[:, 1], self.qpos[:, 2]
        return (z > 0.8) & (z < 2.0) & (pitch.abs() < 1.0)

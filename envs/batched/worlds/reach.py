"""Reach: a 4-joint arm brings its fingertip to a point in space."""

from __future__ import annotations

from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.batched.worlds import robot_arm
from tutelage.envs.contract.recipe import WorldRecipe, batched_ppo, grid_or_sample
from tutelage.envs.contract.tasks import BoxTasks

SUCCESS_DISTANCE = 0.04  # m, also the radius of the ball
SHARP_DISTANCE = 0.03  # m, width of the reward for precision
JOINT_STEP = 0.15  # rad that an action of 1 moves a joint's target
HOME = (0.0, 0.2, 1.2, 0.8)  # rad, where episodes begin, give or take START_SPREAD
START_SPREAD = 0.2  # rad


class Reach(VecTask):
    """A 4-joint arm brings its fingertip to a red ball in the air, and stays there.

    The arm is `robot_arm`'s: yaw, shoulder, elbow, wrist; nothing touches anything (contacts are off).
    An episode starts near one pose, each joint up to 0.2 rad off, at rest, and lasts 50 steps of 0.04 s.

    Task parameters: where the goal is, in cylinder coordinates about the arm's axis.

    ==========  =============  ========================================
    name        range          meaning
    ==========  =============  ========================================
    ``radius``  0.25 - 0.55    m, from the arm's axis
    ``angle``   -1.0 - 1.0     rad, to the left of straight ahead
    ``height``  0.05 - 0.45    m, above the table
    ==========  =============  ========================================

    Actions (4): increments of the joints' target positions, 1 is 0.15 rad; targets stay in the joints' range.

    Views:

    - ``policy`` (15), what the arm knows without seeing the goal: joint positions (4, rad), velocities / 10
      (4), servo errors (4: target - position), fingertip (3, m, by forward kinematics);
    - ``privileged`` (21; the default for ``obs`` and ``states``): ``policy``, goal (3, m), goal -
      fingertip (3).

    Cameras: ``front`` sees the arm and all goals from across the table; ``wrist`` looks along the hand.

    Reward in each step, d the distance from fingertip to goal:

    - ``distance``: -d;
    - ``precision``: 0.5 exp(-(d / 0.03)^2).

    Success: d below 0.04 m at the end. No episode ends before its time.

    Preset ``ppo`` (Stable-Baselines3, 128 environments): 98 % of training episodes succeed after 70,000 to
    83,000 steps, 4.5 to 7 s on one CPU core, for each of 5 seeds; without noise in its actions all do.
    """

    recipe: ClassVar[WorldRecipe] = WorldRecipe(
        summary="MuJoCo arm: its tip to a goal in space",
        mastered="within 4 cm of the goal at the end",
        test_sets={"test": grid_or_sample},
        students={
            "ppo": batched_ppo(
                128,
                n_steps=25,
                batch_size=800,
                learning_rate=2e-3,
                gamma=0.95,
                policy_kwargs={"net_arch": [64, 64], "log_std_init": -1.0},
            )
        },
        quick_steps=150_000,
        expert_steps=300_000,
        quick_frames=80_000,
        cameras=robot_arm.STUDENT_CAMERAS,
        encoder="fast",
    )
    task_space = BoxTasks({"radius": (0.25, 0.55), "angle": (-1.0, 1.0), "height": (0.05, 0.45)})
    num_actions = 4
    decimation = 4
    max_episode_length = 50
    default_obs_view: ClassVar[str] = "privileged"
    default_max_contacts: ClassVar[int] = 1
    default_max_constraints: ClassVar[int] = 8  # joint limits

    def build_spec(self) -> mujoco.MjSpec:
        """The arm's scene without contacts, and a red ball for the goal."""
        spec = robot_arm.make_scene()
        spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_CONTACT
        robot_arm.add_camera(spec, "front", (0.95, 0.0, 0.8), (-0.16, 0.0, 0.22), fovy=44)
        goal = spec.worldbody.add_body(name="goal", mocap=True, pos=[0.1, 0.0, 0.25])
        goal.add_geom(
            name="goal",
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[SUCCESS_DISTANCE, 0, 0],
            rgba=[0.9, 0.1, 0.1, 1],
            contype=0,
            conaffinity=0,
        )
        return spec

    def setup(self) -> None:
        """Make buffers and constants."""
        self.goal = self.new_buffer("goal", 3)
        self.joint_targets = self.new_buffer("joint_targets", 4)
        self.home = torch.tensor(HOME, device=self.device)
        self.low = torch.tensor(robot_arm.JOINT_LOW, device=self.device)
        self.high = torch.tensor(robot_arm.JOINT_HIGH, device=self.device)

    def start_episodes(self, rows: Rows) -> None:
        """Place the goal that the task says; begin near the home pose, at rest."""
        radius, angle, height = (rows.take(self.parameter(name)) for name in self.task_space.names)
        goal = torch.stack([robot_arm.BASE_X + radius * angle.cos(), radius * angle.sin(), height], 1)
        joints = self.home + self.streams.uniform(rows, 4, -START_SPREAD, START_SPREAD)
        rows.put(self.goal, goal)
        rows.put(self.joint_targets, joints)
        self.sim.write("mocap_pos", goal[:, None], rows)
        self.sim.write("qpos", joints, rows)
        self.sim.write("ctrl", joints, rows)

    def pre_physics_step(self, actions: Tensor) -> None:
        """Move the joints' targets."""
        self.joint_targets.add_(actions, alpha=JOINT_STEP)
        torch.clamp(self.joint_targets, self.low, self.high, out=self.joint_targets)
        self.sim.write("ctrl", self.joint_targets)

    def post_physics_step(self) -> None:
        """Find where fingertip and goal are."""
        self.tip = self.sim.read("site_xpos")[:, 0]
        self.to_goal = self.goal - self.tip
        self.distance = torch.linalg.vector_norm(self.to_goal, dim=1)

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        """Episodes last their full time; success is to be at the goal when it is over."""
        return torch.zeros_like(self.success), self.distance < SUCCESS_DISTANCE

    def compute_rewards(self) -> dict[str, Tensor]:
        """See the class."""
        return {
            "distance": -self.distance,
            "precision": 0.5 * torch.exp(-((self.distance / SHARP_DISTANCE) ** 2)),
        }

    def compute_views(self) -> dict[str, Tensor]:
        """See the class."""
        policy = robot_arm.proprioception(
            self.sim.read("qpos"), self.sim.read("qvel"), self.joint_targets, self.tip
        )
        return {"policy": policy, "privileged": torch.cat([policy, self.goal, self.to_goal], 1)}

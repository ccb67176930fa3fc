"""PushCube: an arm pushes a cube of unknown size, mass and friction to a spot on the table."""

from __future__ import annotations

from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.batched.worlds import robot_arm
from tutelage.envs.batched.worlds.robot_arm import BASE_X, FINGERTIP_RADIUS
from tutelage.envs.contract.recipe import WorldRecipe, batched_ppo, grid_or_sample
from tutelage.envs.contract.tasks import BoxTasks

SUCCESS_DISTANCE = 0.05  # m, also the radius of the spot
SHARP_DISTANCE = 0.05  # m, width of the reward for precision
TIP_HEIGHT = FINGERTIP_RADIUS  # m; no higher than the middle of the smallest cube, so that none tips over
TIP_STEP = 0.025  # m that an action of 1 moves the fingertip's target
REACH = (0.16, 0.57)  # m from the arm's axis; there the hand can point down
START_RADIUS, START_SPREAD = 0.18, 0.02  # m from the arm's axis, nearer than any cube
CLEARANCE = 0.01  # m between cube and fingertip where a push should begin
LARGEST_HALF_SIZE = 0.035  # m
SPOT_HEIGHT = 5e-4  # m, its middle; it is as flat as can be


class PushCube(VecTask):
    """A 4-joint arm pushes a cube to a red spot on the table, with its fingertip.

    The arm is `robot_arm`'s, its hand pointing down and its fingertip 2 cm above the table; only fingertip
    and cube, cube and table touch. The cube lies at a random angle; the arm starts drawn back, at rest. An
    episode lasts 60 steps of 0.04 s.

    Task parameters:

    ======================  ==============  ============================================================
    name                    range           meaning
    ======================  ==============  ============================================================
    ``half_size``           0.02 - 0.035    m, half the cube's edge
    ``mass``                0.05 - 0.3      kg; the inertia is that of a uniform cube
    ``friction``            0.3 - 0.8       sliding friction of the cube with table and fingertip
    ``cube_x``, ``cube_y``  -0.05 - 0.12,   m, where the cube starts; the arm's axis is at (-0.35, 0)
                            -0.18 - 0.18
    ``goal_x``, ``goal_y``  as the cube's   m, the spot; in 10.5 % of tasks the cube starts on it
    ======================  ==============  ============================================================

    Colours are looks, not tasks: see `tutelage.envs.batched.looks.visual_randomization`.

    Actions (2): increments of the fingertip's target along x and y, 1 is 0.025 m; the target stays within the
    hand's reach, and joints follow by inverse kinematics.

    Views:

    - ``policy`` (15), what the arm knows without seeing the cube: joint positions (4, rad), velocities / 10
      (4), servo errors (4: target - position), fingertip (3, m);
    - ``privileged`` (37; the default for ``obs`` and ``states``): ``policy``; cube (2, m); cube -
      fingertip (2); cosine and sine of four times the cube's angle (2); its velocity (2, m/s) and
      spin / 10 (1); goal (2); goal - cube (2) and its direction (2); from the fingertip to where a push
      begins (2, see ``approach``); fingertip - cube along and across the direction to the goal (2);
      half_size, mass, friction (3).

    Cameras: ``front`` sees the workspace from across the table; ``wrist`` looks down along the hand.

    Reward in each step, d the distance from cube to goal:

    - ``distance``: -5 d;
    - ``approach``: -1.5 min(1, d / 0.05) times the distance of the fingertip from the point 1 cm clear of
      the cube on the side away from the goal, where a push begins;
    - ``precision``: 0.5 exp(-(d / 0.05)^2).

    Success: d below 0.05 m at the end. No episode ends before its time.

    Preset ``ppo`` (Stable-Baselines3, 256 environments): success 0.98, 1.00 and 0.99 on 512 new tasks with
    seeds 0, 1 and 2 after 1.2 million steps, about two minutes on one CPU core (0.9 after 0.9 million).
    """

    recipe: ClassVar[WorldRecipe] = WorldRecipe(
        summary="MuJoCo arm pushes a cube: goal, size, mass, friction",
        mastered="the cube within 5 cm of the goal at the end",
        test_sets={"test": grid_or_sample},
        students={"ppo": batched_ppo(256, policy_kwargs={"log_std_init": 0.0})},
        quick_steps=1_250_000,
        expert_steps=1_200_000,
        cameras=robot_arm.STUDENT_CAMERAS,
    )
    task_space = BoxTasks(
        {
            "half_size": (0.02, LARGEST_HALF_SIZE),
            "mass": (0.05, 0.3),
            "friction": (0.3, 0.8),
            "cube_x": (-0.05, 0.12),
            "cube_y": (-0.18, 0.18),
            "goal_x": (-0.05, 0.12),
            "goal_y": (-0.18, 0.18),
        }
    )
    num_actions = 2
    decimation = 4
    max_episode_length = 60
    model_fields = (
        "geom_size",
        "geom_friction",
        "body_mass",
        "body_inertia",
    )
    default_obs_view: ClassVar[str] = "privileged"
    default_max_contacts: ClassVar[int] = 6  # four corners and the fingertip
    default_max_constraints: ClassVar[int] = 32

    def build_spec(self) -> mujoco.MjSpec:
        """The arm's scene, a cube and the spot where it is to go."""
        spec = robot_arm.make_scene()
        spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_MIDPHASE
        robot_arm.add_camera(spec, "front", (0.72, 0.0, 0.62), (-0.02, 0.0, 0.02), fovy=37)
        half = LARGEST_HALF_SIZE  # the bounding volumes, shared by all environments, then hold every cube
        cube = spec.worldbody.add_body(name="cube", pos=[0.0, 0.0, half])
        cube.add_freejoint(name="cube")
        cube.add_geom(
            name="cube",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[half, half, half],
            mass=0.1,
            rgba=[0.1, 0.8, 0.2, 1],
            contype=1,
            conaffinity=robot_arm.HAND_TOUCHES,
            priority=1,  # its friction holds for whatever it touches
        )
        goal = spec.worldbody.add_body(name="goal", mocap=True, pos=[0.1, 0.1, SPOT_HEIGHT])
        goal.add_geom(
            name="goal",
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=[SUCCESS_DISTANCE, SPOT_HEIGHT, 0],
            rgba=[0.9, 0.1, 0.1, 1],
            contype=0,
            conaffinity=0,
        )
        return spec

    def setup(self) -> None:
        """Look up ids; make buffers and constants."""
        self.cube_geom = self.model.geom("cube").id
        self.cube_body = self.model.body("cube").id
        self.goal = self.new_buffer("goal", 2)
        self.tip_target = self.new_buffer("tip_target", 2)
        self.joint_targets = self.new_buffer("joint_targets", 4)

    def start_episodes(self, rows: Rows) -> None:
        """Make the cube that the task says, put it down at a random angle, and draw the arm back."""
        half, mass, friction, *spots = (rows.take(self.parameter(name)) for name in self.task_space.names)
        self._make_cubes(rows, half, mass, friction)
        cube_x, cube_y, goal_x, goal_y = spots
        yaw = self.streams.uniform(rows, 1, -torch.pi / 4, torch.pi / 4)[:, 0]
        goal = torch.stack([goal_x, goal_y], 1)
        tip = self.streams.uniform(rows, 2, -START_SPREAD, START_SPREAD)
        tip[:, 0] += BASE_X + START_RADIUS + START_SPREAD
        joints = self._joints_at(tip)
        zero = torch.zeros_like(half)
        cube = [cube_x, cube_y, half, (yaw / 2).cos(), zero, zero, (yaw / 2).sin()]
        rows.put(self.goal, goal)
        rows.put(self.tip_target, tip)
        rows.put(self.joint_targets, joints)
        self.sim.write("mocap_pos", torch.cat([goal, SPOT_HEIGHT + zero[:, None]], 1)[:, None], rows)
        self.sim.write("qpos", torch.cat([joints, torch.stack(cube, 1)], 1), rows)
        self.sim.write("ctrl", joints, rows)

    def _make_cubes(self, rows: Rows, half: Tensor, mass: Tensor, friction: Tensor) -> None:
        """Write sizes, frictions and masses."""
        inertia = mass * (2 * half) ** 2 / 6
        one = torch.ones_like(mass)
        self._put("geom_size", self.cube_geom, half[:, None].expand(-1, 3), rows)
        self._put("geom_friction", self.cube_geom, torch.stack([friction, 0.005 * one, 1e-4 * one], 1), rows)
        self._put("body_mass", self.cube_body, mass, rows)
        self._put("body_inertia", self.cube_body, inertia[:, None].expand(-1, 3), rows)
        self.sim.set_constants(rows)

    def _put(self, field: str, index: int, values: Tensor, rows: Rows) -> None:
        """Write the cube's part of a model field."""
        whole = rows.take(self.sim.read_model(field)).clone()
        whole[:, index] = values
        self.sim.write_model(field, whole, rows)

    @staticmethod
    def _joints_at(tip: Tensor) -> Tensor:
        """Joint positions that bring the fingertip to ``(n, 2)`` points just above the table."""
        return robot_arm.joints_pointing_down(torch.nn.functional.pad(tip, (0, 1), value=TIP_HEIGHT))

    def pre_physics_step(self, actions: Tensor) -> None:
        """Move the fingertip's target, within reach, and the joints' targets with it."""
        from_base = self.tip_target + TIP_STEP * actions
        from_base[:, 0] = (from_base[:, 0] - BASE_X).clamp(min=REACH[0])
        radius = torch.linalg.vector_norm(from_base, dim=1, keepdim=True)
        self.tip_target.copy_(from_base * (REACH[1] / radius).clamp(max=1.0))
        self.tip_target[:, 0] += BASE_X
        self.joint_targets.copy_(self._joints_at(self.tip_target))
        self.sim.write("ctrl", self.joint_targets)

    def post_physics_step(self) -> None:
        """Find where fingertip, cube and goal are to each other."""
        qpos = self.sim.read("qpos")
        self.tip = self.sim.read("site_xpos")[:, 0]
        self.cube = qpos[:, 4:6]
        self.cube_to_goal = self.goal - self.cube
        self.distance = torch.linalg.vector_norm(self.cube_to_goal, dim=1)
        self.direction = self.cube_to_goal / (self.distance[:, None] + 1e-3)
        from_cube, (u, v) = self.tip[:, :2] - self.cube, self.direction.unbind(1)
        self.along = from_cube[:, 0] * u + from_cube[:, 1] * v  # in front of the cube, seen towards the goal
        self.across = from_cube[:, 1] * u - from_cube[:, 0] * v  # to its left
        behind = self.parameter("half_size") + (FINGERTIP_RADIUS + CLEARANCE)
        self.tip_to_start = self.cube - behind[:, None] * self.direction - self.tip[:, :2]

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        """Episodes last their full time; success is a cube on the spot when it is over."""
        return torch.zeros_like(self.success), self.distance < SUCCESS_DISTANCE

    def compute_rewards(self) -> dict[str, Tensor]:
        """See the class."""
        away = (self.distance / SUCCESS_DISTANCE).clamp(max=1.0)
        return {
            "distance": -5.0 * self.distance,
            "approach": -1.5 * away * torch.linalg.vector_norm(self.tip_to_start, dim=1),
            "precision": 0.5 * torch.exp(-((self.distance / SHARP_DISTANCE) ** 2)),
        }

    def compute_views(self) -> dict[str, Tensor]:
        """See the class."""
        qpos, qvel = self.sim.read("qpos"), self.sim.read("qvel")
        policy = robot_arm.proprioception(qpos[:, :4], qvel[:, :4], self.joint_targets, self.tip)
        yaw = 2 * torch.atan2(qpos[:, 10], qpos[:, 7])
        privileged = [
            policy,
            self.cube,
            self.cube - self.tip[:, :2],
            torch.stack([(4 * yaw).cos(), (4 * yaw).sin()], 1),
            qvel[:, 4:6],
            0.1 * qvel[:, 9:10],
            self.goal,
            self.cube_to_goal,
            self.direction,
            self.tip_to_start,
            torch.stack([self.along, self.across], 1),
            self.tasks[:, :3].to(torch.float32),
        ]
        return {"policy": policy, "privileged": torch.cat(privileged, 1)}

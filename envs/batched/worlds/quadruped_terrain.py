"""QuadrupedTerrain: a twelve-joint quadruped that follows a commanded speed over rough ground."""

from __future__ import annotations

import math
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.batched.worlds.quadruped_ground import (
    COLUMNS,
    HALF_DEPTH,
    LANES,
    add_ground,
    draw_heights,
    ground_height,
    stair_profile,
)
from tutelage.envs.contract.recipe import WorldRecipe, batched_ppo, grid_or_sample
from tutelage.envs.contract.tasks import BoxTasks

GRAVITY = 9.81
HIPS = {"fl": (0.2, 0.12), "fr": (0.2, -0.12), "rl": (-0.2, 0.12), "rr": (-0.2, -0.12)}  # x, y on the trunk
LINK, FOOT = 0.2, 0.025  # m: length of thigh and of shin, radius of a foot
TRUNK = (0.22, 0.1, 0.05)  # m, half sizes
STANCE = (0.0, 0.7, -1.4)  # rad: abduction, hip, knee of each leg
STAND_HEIGHT = 2 * LINK * math.cos(0.7) + FOOT  # m, of the trunk's centre above flat ground
ACTION_SCALE = (0.4, 0.8, 0.9)  # rad; enough to lift a foot by 0.15 m
SCAN_X = [-0.5 + 0.1 * i for i in range(11)]
SCAN_Y = [-0.3 + 0.15 * i for i in range(5)]


class QuadrupedTerrain(VecTask):
    """A twelve-joint quadruped of 9 kg must walk at a commanded speed over stairs, rough ground and slopes.

    The terrains, views and rewards follow Rudin et al. 2022, "Learning to walk in minutes using massively
    parallel deep reinforcement learning" (legged_gym), scaled by 0.6 to a robot that stands 0.33 m high. The
    ground is a corridor along x: 0.6 m of platform, 6 m of cells of 0.3 m by 0.3 m, and a platform again.

    Task parameters:

    =============== ============ =====================================================================
    ``roughness``   [0, 0.06]    m; each cell is raised by a random height between 0 and this
    ``step_height`` [0, 0.12]    m; twice four stairs up and down again, each 0.3 m deep
    ``slope``       [0, 20]      degrees uphill; gravity is tilted, not the ground
    ``friction``    [0.5, 1.25]  coefficient of the feet
    ``command_vx``  [0.3, 0.8]   m/s; the commanded forward speed
    =============== ============ =====================================================================

    Not every task can be done: a slope of 20 degrees with slippery feet and high stairs cannot.

    Actions (12): for each leg (front left, front right, rear left, rear right) offsets of abduction, hip and
    knee from the stance, in units of 0.4, 0.8 and 0.9 rad, as targets of servos (35 Nm/rad, at most 25 Nm),
    50 times a second. Only feet collide; shins pass through the edges of stairs, which costs reward.

    Views, in this order:

    - ``policy`` (44): direction of gravity in the trunk's frame (3), angular velocity in rad/s / 4 (3), joint
      angles from the stance in rad (12), joint speeds in rad/s / 20 (12), the last action (12), the commanded
      speed in m/s, and the commanded turning rate in rad/s: back to the middle of the corridor.
    - ``privileged`` (107, the default): ``policy``; velocity in the trunk's frame in m/s * 2 (3); 11 x 5
      heights around the trunk, from 0.5 m behind to 0.5 m ahead and from 0.3 m on its right to 0.3 m on its
      left (that changes faster), as height of a standing robot's feet above the ground in m * 5 (55); the
      friction; height of the feet above the ground in m * 5 (4).

    Reward terms of a step, where v is velocity and w angular velocity in the trunk's frame: ``speed``
    exp(-((v_x - command)^2 + v_y^2) / 0.15), ``turn`` 0.3 exp(-(w_z - command)^2 / 0.25), ``bounce``
    -0.5 v_z^2, ``roll_pitch`` -0.01 (w_x^2 + w_y^2), ``effort`` -1e-4 sum of squared torques,
    ``action_rate`` -0.005 |a - a_before|^2, ``air_time`` 0.5 (seconds in the air - 0.25) for a foot that
    lands, ``knees`` -0.3 for each knee within 2 cm of the ground, ``fall`` -5 once.

    Success: not to fall in 400 steps (8 s), and to come 70 % of the commanded way. A fall, which ends the
    episode: a corner of the trunk within 1 cm of the ground, or tilted by more than 60 degrees.

    Cameras: ``front``, which follows the robot from behind its right side; ``head``, on the trunk, looking
    35 degrees down, for depth images.

    Preset ``ppo`` (SB3, 256 environments), one seed, mean actions, success on 100 uniform tasks: trained on
    uniform tasks 25 % after 3.0 M steps, 56 % after 4.2 M, 72 % after 6.0 M (1,241 s of a busy core); with
    the task teacher ALP-GMM 45, 53 and 68 % (985 s):
    ``tutelage compare --env quadruped-terrain --teachers random --seeds 1``. Before that, at 2.3 M steps,
    policies rely on their noise: 11 to 13 % with mean actions, 34 % with sampled ones.

    Args:
        num_envs: environments.
        **options: see `VecTask`.
    """

    recipe: ClassVar[WorldRecipe] = WorldRecipe(
        summary="MuJoCo quadruped on rough ground: roughness, stairs, slope, friction, commanded speed",
        mastered="upright at the end, having kept the commanded speed",
        test_sets={"test": grid_or_sample},
        students={
            "ppo": batched_ppo(
                256,
                normalize_rewards=False,
                n_steps=24,
                batch_size=1536,
                learning_rate=5e-4,
                ent_coef=0.002,
                policy_kwargs={"log_std_init": -1.2},
            )
        },
        quick_steps=6_000_000,
    )
    default_obs_view: ClassVar[str] = "privileged"
    task_space = BoxTasks(
        {
            "roughness": (0.0, 0.06),
            "step_height": (0.0, 0.12),
            "slope": (0.0, 20.0),
            "friction": (0.5, 1.25),
            "command_vx": (0.3, 0.8),
        }
    )
    num_actions = 12
    decimation = 4
    max_episode_length = 400
    model_fields = ("geom_pos", "geom_friction", "opt.gravity")

    def build_spec(self) -> mujoco.MjSpec:
        """The robot and its ground; only feet collide: a trunk that touches ends the episode."""
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.005
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.iterations, spec.option.ls_iterations = 4, 8
        # The static tree of bounding boxes would keep the heights of the ground it was built for.
        spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_MIDPHASE
        world = spec.worldbody
        world.add_light(pos=[0, 0, 4], dir=[0.3, 0.2, -1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
        add_ground(world)
        trunk = world.add_body(name="trunk", pos=[0, 0, STAND_HEIGHT])
        trunk.add_freejoint(name="base")
        trunk.add_geom(
            name="trunk",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=TRUNK,
            mass=6.0,
            contype=0,
            conaffinity=0,
            rgba=[0.2, 0.3, 0.8, 1],
        )
        for name, (x, y) in HIPS.items():  # the corners that touch first, one near each hip
            corner = [math.copysign(TRUNK[0], x), math.copysign(TRUNK[1], y), -TRUNK[2]]
            trunk.add_site(name=f"{name}_corner", pos=corner, size=[0.005] * 3)
        trunk.add_camera(
            name="front",
            pos=[-0.75, -0.75, 0.55],
            xyaxes=[0.7, -0.7, 0, 0.3, 0.3, 0.9],
            mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACK,
            fovy=50,
        )
        trunk.add_camera(name="head", pos=[0.24, 0, 0.03], xyaxes=[0, -1, 0, 0.57, 0, 0.82], fovy=80)
        for name, (x, y) in HIPS.items():
            hip = trunk.add_body(name=f"{name}_hip", pos=[x, y, 0])
            thigh = hip.add_body(name=f"{name}_thigh")
            shin = thigh.add_body(name=f"{name}_shin", pos=[0, 0, -LINK])
            for body, joint, axis, span, length, radius, mass in (
                (hip, "abduction", [1, 0, 0], (-40, 40), 0.02, 0.03, 0.3),
                (thigh, "hip", [0, 1, 0], (-90, 90), LINK, 0.02, 0.3),
                (shin, "knee", [0, 1, 0], (-140, 0), LINK, 0.015, 0.1),
            ):
                body.add_joint(
                    name=f"{name}_{joint}",
                    axis=axis,
                    range=span,
                    limited=1,
                    damping=[0.6, 0, 0],
                    armature=0.01,
                )
                body.add_geom(
                    type=mujoco.mjtGeom.mjGEOM_CAPSULE,
                    fromto=[0, 0, 0, 0, 0, -length],
                    size=[radius, 0, 0],
                    mass=mass,
                    contype=0,
                    conaffinity=0,
                    rgba=[0.25, 0.25, 0.28, 1],
                )
                actuator = spec.add_actuator(
                    name=f"{name}_{joint}", target=f"{name}_{joint}", trntype=mujoco.mjtTrn.mjTRN_JOINT
                )
                actuator.set_to_position(kp=35.0)
                actuator.forcelimited, actuator.forcerange = 1, [-25, 25]
            shin.add_geom(
                name=f"{name}_foot",
                type=mujoco.mjtGeom.mjGEOM_SPHERE,
                pos=[0, 0, -LINK],
                size=[FOOT, 0, 0],
                mass=0.05,
                contype=1,
                conaffinity=0,
                priority=1,  # contacts take the friction of the foot, not the larger one
                rgba=[0.9, 0.5, 0.1, 1],
            )
            shin.add_site(name=f"{name}_foot", pos=[0, 0, -LINK], size=[0.005] * 3)
            shin.add_site(name=f"{name}_knee", size=[0.005] * 3)
        return spec

    def setup(self) -> None:
        """Look up geoms and sites, and make buffers."""

        model = self.model
        cells = [model.geom(f"cell{i}_{j}").id for i in range(COLUMNS) for j in range(LANES)]
        sites = [model.site(f"{leg}_{part}").id for part in ("foot", "knee", "corner") for leg in HIPS]
        self.cell_geoms = torch.tensor(cells, device=self.device)
        self.foot_geoms = torch.tensor([model.geom(f"{leg}_foot").id for leg in HIPS], device=self.device)
        self.sites = torch.tensor(sites, device=self.device)
        self.stance = torch.tensor(STANCE * 4, device=self.device)
        self.action_scale = torch.tensor(ACTION_SCALE * 4, device=self.device)
        self.scan_x = torch.tensor(SCAN_X, device=self.device).repeat_interleave(len(SCAN_Y))
        self.scan_y = torch.tensor(SCAN_Y, device=self.device).repeat(len(SCAN_X))
        self.stairs = stair_profile(self.device)
        self.heights = self.new_buffer("heights", (COLUMNS + 2) * LANES)
        self.air_time = self.new_buffer("air_time", 4)
        self.last_actions = self.new_buffer("last_actions", 12)

    def start_episodes(self, rows: Rows) -> None:
        """Lay the ground, tilt gravity, set the friction of the feet; stand at the start of the corridor."""
        roughness, step_height, slope, friction = (
            rows.take(self.parameter(name)) for name in ("roughness", "step_height", "slope", "friction")
        )
        uniform = self.streams.uniform(rows, COLUMNS * LANES)
        heights = draw_heights(uniform, roughness, step_height, self.stairs)
        rows.put(self.heights, heights)
        positions = rows.take(self.sim.read_model("geom_pos")).clone()
        positions[:, self.cell_geoms, 2] = heights[:, LANES:-LANES] - HALF_DEPTH
        self.sim.write_model("geom_pos", positions, rows)
        frictions = rows.take(self.sim.read_model("geom_friction")).clone()
        frictions[:, self.foot_geoms, 0] = friction[:, None]
        self.sim.write_model("geom_friction", frictions, rows)
        tilt = torch.deg2rad(slope)
        down = torch.stack([-tilt.sin(), torch.zeros_like(tilt), -tilt.cos()], 1)
        self.sim.write_model("opt.gravity", GRAVITY * down, rows)

        qpos = torch.zeros(rows.n, 19, device=self.device)
        qpos[:, 2], qpos[:, 3] = STAND_HEIGHT + 0.01, 1.0
        qpos[:, 7:] = self.stance + self.streams.uniform(rows, 12, -0.1, 0.1)
        self.sim.write("qpos", qpos, rows)
        self.sim.write("ctrl", self.stance.expand(rows.n, 12), rows)
        rows.put(self.air_time, 0.0)
        rows.put(self.last_actions, 0.0)

    def pre_physics_step(self, actions: Tensor) -> None:
        """Actions are offsets from the stance, the targets of the joints' position servos."""
        self.sim.write("ctrl", self.stance + self.action_scale * actions)

    def post_physics_step(self) -> None:
        """Where the robot is in its own frame, and how high everything is above the ground."""
        self.qpos, self.qvel = self.sim.read("qpos"), self.sim.read("qvel")
        w, x, y, z = self.qpos[:, 3:7].unbind(1)
        self.x, self.upright = self.qpos[:, 0], 1 - 2 * (x * x + y * y)
        rotation = torch.stack(
            [
                1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                2 * (x * z - w * y), 2 * (y * z + w * x), self.upright,
            ],
            1,
        ).view(-1, 3, 3)  # fmt: skip
        in_world = torch.stack([self.qvel[:, :3], self.sim.read_model("opt.gravity") / GRAVITY], 1)
        self.velocity, self.gravity = (in_world @ rotation).unbind(1)
        self.angular = self.qvel[:, 3:6]
        self.heading = torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])
        cos, sin = self.heading.cos()[:, None], self.heading.sin()[:, None]
        points = self.sim.read("site_xpos")[:, self.sites]
        scan_x = self.qpos[:, :1] + cos * self.scan_x - sin * self.scan_y
        scan_y = self.qpos[:, 1:2] + sin * self.scan_x + cos * self.scan_y
        ground = ground_height(
            self.heights, torch.cat([points[:, :, 0], scan_x], 1), torch.cat([points[:, :, 1], scan_y], 1)
        )
        clearance = points[:, :, 2] - ground[:, :12]
        self.feet, self.knees, self.belly = clearance[:, :4] - FOOT, clearance[:, 4:8], clearance[:, 8:]
        self.scan = self.qpos[:, 2:3] - STAND_HEIGHT - ground[:, 12:]
        self.command = self.parameter("command_vx")
        self.turn = (-self.heading - 0.5 * self.qpos[:, 1]).clamp(-1, 1)

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        """A fall ends the episode; success is 70 % of the commanded way."""
        self.fallen = (self.belly.amin(1) < 0.01) | (self.upright < 0.5)
        way = self.command * self.progress_buf * (self.decimation * 0.005)
        return self.fallen, ~self.fallen & (self.x >= 0.7 * way)

    def compute_rewards(self) -> dict[str, Tensor]:
        """The terms of the class docstring; also counts how long each foot has been in the air."""
        off = (self.velocity[:, 0] - self.command).square() + self.velocity[:, 1].square()
        down = self.feet < 0.01
        landed = down & (self.air_time > 0)
        self.air_time += 0.02
        air = ((self.air_time - 0.25) * landed).sum(1)
        self.air_time.masked_fill_(down, 0.0)
        force = self.sim.read("actuator_force")
        rate = (self.actions - self.last_actions).square().sum(1)
        self.last_actions.copy_(self.actions)
        return {
            "speed": torch.exp(-off / 0.15),
            "turn": 0.3 * torch.exp(-(self.angular[:, 2] - self.turn).square() / 0.25),
            "bounce": -0.5 * self.velocity[:, 2].square(),
            "roll_pitch": -0.01 * self.angular[:, :2].square().sum(1),
            "effort": -1e-4 * force.square().sum(1),
            "action_rate": -0.005 * rate,
            "air_time": 0.5 * air,
            "knees": -0.3 * (self.knees < 0.02).sum(1),
            "fall": -5.0 * self.fallen,
        }

    def compute_views(self) -> dict[str, Tensor]:
        """What the robot feels, and with it what only a simulator knows."""
        policy = torch.cat(
            [
                self.gravity,
                0.25 * self.angular,
                self.qpos[:, 7:] - self.stance,
                0.05 * self.qvel[:, 6:],
                self.actions,
                self.command[:, None],
                self.turn[:, None],
            ],
            1,
        )
        friction = self.parameter("friction")[:, None]
        hidden = [2 * self.velocity, 5 * self.scan, friction, 5 * self.feet]
        return {"policy": policy, "privileged": torch.cat([policy, *hidden], 1)}

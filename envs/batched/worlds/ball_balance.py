"""BallBalance: a tilting plate rolls a ball to a target; one image does not show the ball's velocity."""

from __future__ import annotations

import math
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.contract.recipe import WorldRecipe, batched_ppo, grid_or_sample
from tutelage.envs.contract.tasks import BoxTasks

HALF_PLATE, PLATE_TOP = 0.3, 0.01  # m: half its side; height of its surface over the hinges
TOUCH = 1e-4  # m that the ball begins in the plate: in contact, however a simulator rounds
MAX_TILT = 0.2  # rad that actions ask for
SUCCESS_DISTANCE, SUCCESS_SPEED = 0.05, 0.15  # m, m/s


class BallBalance(VecTask):
    """A plate on two hinges must bring a ball to a target spot and hold it there.

    The ball rolls already when an episode begins, at a speed and in a direction that no single image shows: a
    student that sees the plate needs memory, or several frames. The plate has a rim.

    Task parameters (`task_space`): ``target_x``, ``target_y`` (-0.2 to 0.2 m on the plate), ``ball_x``,
    ``ball_y`` (-0.2 to 0.2 m, where it begins), ``speed`` (0 to 0.5 m/s, at first; the direction is random),
    ``radius`` (0.02 to 0.04 m), ``mass`` (0.02 to 0.1 kg), ``friction`` (0.01 to 0.1, sliding, with the
    plate). A solid ball rolls down a slope without slip where friction is at least 2/7 of the slope, so 0.058
    at the greatest tilt, and then answers it with 5/7 of gravity's share, whatever its friction; with less
    friction it slides, and answers the more, up to 1.3 times as much. Hence the range: above 0.1 nothing
    would differ.

    Actions (2, in [-1, 1]): the angles that the two hinges go to, in units of 0.2 rad.

    Views:

    - ``policy`` (6): angles (in units of 0.2 rad), rates (rad/s) and targets of the hinges (the last action).
      No ball: that is for the camera.
    - ``privileged`` (17, the default): ``policy``, and in the plate's frame the ball's position and the
      target (x and y, in units of 0.2 m each), their difference (0.1 m), the ball's velocity (0.5 m/s), and
      its radius, mass and friction, each scaled to [0, 1].

    Reward terms, each step: ``distance``, -3 for each metre between ball and target; ``speed``, -0.2 for each
    m/s of the ball on the plate, where it is near the target (times ``exp(-(distance / 0.1)**2)``);
    ``close``, ``exp(-(distance / 0.05)**2)``; ``effort``, -0.01 times the squared change of the action.

    Success: at the end the ball is within 0.05 m of the target and slower than 0.15 m/s. Episodes last 60
    steps of 0.04 s; they end before, without success, if the ball leaves the plate.

    Cameras: ``front``, above the plate, looks down on it; x points down in the image and y to the right.

    Preset ``ppo`` (SB3, 256 environments, view ``privileged``): success in 0.98 to 0.99 of episodes after
    250,000 steps (14 s of one core), in all after 400,000 (22 s); 3 seeds. The same without the ball's
    velocity in the view: 0.02 after 400,000 steps. Nor does a spring towards the target do without a damper:
    memory is needed.
    """

    recipe: ClassVar[WorldRecipe] = WorldRecipe(
        summary="MuJoCo plate brings a ball to rest on a spot",
        mastered="at the spot, and slow, at the end",
        test_sets={"test": grid_or_sample},
        students={"ppo": batched_ppo(256)},
        quick_steps=400_000,
        expert_steps=600_000,
        quick_frames=64_000,
        looks="mild",  # a ball four pixels wide, of any colour on any texture, is not found in so few frames
        stack=3,
    )
    task_space = BoxTasks(
        {
            "target_x": (-0.2, 0.2),
            "target_y": (-0.2, 0.2),
            "ball_x": (-0.2, 0.2),
            "ball_y": (-0.2, 0.2),
            "speed": (0.0, 0.5),
            "radius": (0.02, 0.04),
            "mass": (0.02, 0.1),
            "friction": (0.01, 0.1),
        }
    )
    num_actions = 2
    decimation = 4
    max_episode_length = 60
    model_fields: tuple[str, ...] = (
        "geom_size",
        "geom_pos",
        "geom_friction",
        "body_mass",
        "body_inertia",
    )
    default_obs_view: ClassVar[str] = "privileged"
    default_max_contacts: ClassVar[int] = 8
    default_max_constraints: ClassVar[int] = 32

    def build_spec(self) -> mujoco.MjSpec:
        """A plate with a rim on two hinges, a ball, and the mark of the target on the plate."""
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        spec.option.timestep = 0.01
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.iterations, spec.option.ls_iterations = 10, 20
        world = spec.worldbody
        world.add_light(pos=[0.3, 0.2, 1.5], dir=[-0.2, -0.15, -1], castshadow=False)
        world.add_camera(name="front", pos=[0, 0, 0.9], xyaxes=[0, 1, 0, -1, 0, 0], fovy=42)
        world.add_geom(
            name="floor",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[1, 1, 0.1],
            pos=[0, 0, -0.4],
            contype=0,
            conaffinity=0,
            rgba=[0.3, 0.4, 0.5, 1],
        )
        plate = world.add_body(name="plate")
        box = mujoco.mjtGeom.mjGEOM_BOX
        solid = {"type": box, "contype": 0, "conaffinity": 1}
        plate.add_geom(
            name="plate",
            size=[HALF_PLATE, HALF_PLATE, PLATE_TOP],
            mass=0.5,
            rgba=[0.8, 0.76, 0.66, 1],
            **solid,
        )
        for name, x, y in (("north", 1, 0), ("south", -1, 0), ("west", 0, 1), ("east", 0, -1)):
            reach = HALF_PLATE + 0.01
            plate.add_geom(
                name=name,
                size=[0.01 if x else reach, 0.01 if y else reach, 0.03],
                pos=[x * reach, y * reach, 0.02],
                mass=0.01,
                rgba=[0.35, 0.35, 0.38, 1],
                **solid,
            )
        plate.add_geom(
            name="target",
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=[SUCCESS_DISTANCE, 0.001, 0],
            pos=[0, 0, PLATE_TOP],
            mass=0,
            contype=0,
            conaffinity=0,
            rgba=[0.85, 0.1, 0.1, 1],
        )
        for name, axis in (("roll", [1, 0, 0]), ("pitch", [0, 1, 0])):
            plate.add_joint(name=name, axis=axis, range=[-0.26, 0.26], armature=0.02)
            servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            # critically damped: kv = 2 sqrt(kp inertia), with an inertia of 0.02 + 0.5 * 0.3**2 / 3
            servo.set_to_position(kp=12.0, kv=1.3)
        ball = world.add_body(name="ball", pos=[0, 0, 0.05])
        ball.add_freejoint()
        ball.add_geom(
            name="ball",
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=[0.03, 0, 0],
            mass=0.05,
            contype=1,
            conaffinity=0,
            priority=1,  # contacts have the ball's friction
            rgba=[0.1, 0.3, 0.9, 1],
        )
        return spec

    def setup(self) -> None:
        """Ids, constants and buffers."""
        self._ball_geom, self._target_geom = self.model.geom("ball").id, self.model.geom("target").id
        self._ball, self._plate = self.model.body("ball").id, self.model.body("plate").id
        self.target = self.new_buffer("target", 2)
        self.action_change = self.new_buffer("action_change", 2)
        self.last_actions = self.new_buffer("last_actions", 2)
        properties = [self.task_space.names.index(name) for name in ("radius", "mass", "friction")]
        self._properties = torch.tensor(properties, device=self.device)
        self._property_low = self._low[self._properties].float()
        self._property_range = self._range[self._properties].float()

    def start_episodes(self, rows: Rows) -> None:
        """Make the ball and set it rolling on a level plate; place the target."""
        task = {name: rows.take(self.parameter(name)) for name in self.task_space.names}
        target = torch.stack([task["target_x"], task["target_y"]], 1)
        start = torch.stack([task["ball_x"], task["ball_y"]], 1)
        radius, mass = task["radius"], task["mass"]
        for field, index, values in (
            ("geom_pos", (self._target_geom, slice(0, 2)), target),
            ("geom_size", (self._ball_geom, 0), radius),
            ("geom_friction", (self._ball_geom, 0), task["friction"]),
            ("body_mass", (self._ball,), mass),
            ("body_inertia", (self._ball,), (0.4 * mass * radius**2)[:, None]),
        ):
            present = rows.take(self.sim.read_model(field)).clone()
            present[(slice(None), *index)] = values
            self.sim.write_model(field, present, rows)
        self.sim.set_constants(rows)

        angle = self.streams.uniform(rows, 1, -math.pi, math.pi)[:, 0]
        velocity = task["speed"][:, None] * torch.stack([angle.cos(), angle.sin()], 1)
        zero = torch.zeros_like(radius)
        level, upright = torch.zeros(rows.n, 2, device=self.device), torch.ones(rows.n, 1, device=self.device)
        height = (PLATE_TOP + radius - TOUCH)[:, None]
        none = torch.zeros(rows.n, 3, device=self.device)
        self.sim.write("qpos", torch.cat([level, start, height, upright, none], 1), rows)
        # rolling: the angular velocity is up x velocity / radius
        spin = torch.stack([-velocity[:, 1] / radius, velocity[:, 0] / radius, zero], 1)
        self.sim.write("qvel", torch.cat([level, velocity, zero[:, None], spin], 1), rows)
        self.sim.write("ctrl", level, rows)
        rows.put(self.target, target)
        rows.put(self.last_actions, 0.0)
        rows.put(self.action_change, 0.0)

    def pre_physics_step(self, actions: Tensor) -> None:
        """Send the hinges to the angles asked for."""
        torch.sub(actions, self.last_actions, out=self.action_change)
        self.last_actions.copy_(actions)
        self.sim.write("ctrl", MAX_TILT * actions)

    def post_physics_step(self) -> None:
        """The ball as the plate has it."""
        self.qpos, self.qvel = self.sim.read("qpos"), self.sim.read("qvel")
        plate = self.sim.read("xmat")[:, self._plate].view(-1, 3, 3)
        # the plate turns about the origin of the world: velocity on it is R^T (v - w x r), all in the world
        rates = plate.new_zeros(self.num_envs, 3)
        rates[:, 0], rates[:, 1:] = self.qvel[:, 0], self._pitch_axis() * self.qvel[:, 1:2]
        ball = self.qpos[:, 2:5]
        moving = self.qvel[:, 2:5] - torch.linalg.cross(rates, ball)
        both = torch.stack([ball, moving], 2).transpose(1, 2) @ plate
        self.ball, self.velocity = both[:, 0, :2], both[:, 1, :2]
        self.height = both[:, 0, 2]
        self.to_target = self.target - self.ball
        self.distance = self.to_target.norm(dim=1)
        self.speed = self.velocity.norm(dim=1)

    def _pitch_axis(self) -> Tensor:
        """y and z of the axis of the second hinge, which the first one turns; its x is 0."""
        return torch.stack([self.qpos[:, 0].cos(), self.qpos[:, 0].sin()], 1)

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        """A ball that left the plate ends the episode; one that rests at the target counts."""
        off = (self.ball.abs().amax(1) > HALF_PLATE + 0.02) | (self.height < 0)
        resting = (self.distance < SUCCESS_DISTANCE) & (self.speed < SUCCESS_SPEED)
        return off, resting & ~off

    def compute_rewards(self) -> dict[str, Tensor]:
        """See the class."""
        nearness = torch.exp(-((self.distance / 0.1) ** 2))
        return {
            "distance": -3.0 * self.distance,
            "speed": -0.2 * nearness * self.speed,
            "close": torch.exp(-((self.distance / 0.05) ** 2)),
            "effort": -0.01 * (self.action_change**2).sum(1),
        }

    def compute_views(self) -> dict[str, Tensor]:
        """See the class."""
        policy = torch.cat([self.qpos[:, :2] * 5, self.qvel[:, :2], self.last_actions], 1)
        properties = (self.tasks[:, self._properties].float() - self._property_low) / self._property_range
        privileged = torch.cat(
            [policy, self.ball * 5, self.target * 5, self.to_target * 10, self.velocity * 2, properties], 1
        )
        return {"policy": policy, "privileged": privileged}

"""StumpWalker: a planar biped over stumps, the batched sister of StumpTracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

import mujoco
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import TaskOptions, VecTask
from tutelage.envs.contract.recipe import TaskKnowledge, WorldRecipe, batched_ppo, grid_or_sample
from tutelage.envs.contract.tasks import BoxTasks

UNIT = 0.3  # metres of one unit of the task space: legs of 0.72 m are 2.4 units long, as in StumpTracks
PARAMETERS = {
    "height": (0.0, 3.0),
    "spacing": (0.0, 6.0),
    "gap": (0.0, 2.0),
    "stair": (0.0, 1.0),
    "slope": (-15.0, 15.0),
}
ABSENT = {"height": 0.0, "spacing": 3.0, "gap": 0.0, "stair": 0.0, "slope": 0.0}

COLUMNS = 20  # obstacles, one behind the other
WIDTH = 1.0 * UNIT  # of a stump
HEIGHT_NOISE = 0.1 * UNIT  # standard deviation among the stumps of one course, as in StumpTracks
FIRST, FINISH = 1.2, 6.0  # m: where the first obstacle begins, and where the episode is won
HALF_DEPTH, HALF_HEIGHT = 0.5, 1.0  # m: boxes are tall and sunk into the ground; only their place changes
HOLE = -1.0  # m: what the scan reads in a gap
THIGH, SHIN, START = 0.36, 0.36, 0.74  # m: START is the height of the hips
SCAN = (-0.3, -0.15, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.3, 1.5)  # m ahead of the hips
REST = (-0.35, 0.7, -0.35, 0.7)  # rad: hip, knee, hip, knee
STANDS, TILT = 0.4, 1.2  # m above the ground and rad, beyond which the walker has fallen

_WALKER, _GROUND = 1, 2  # collision groups: the walker meets the ground, not itself


class StumpWalker(VecTask):
    """A planar biped must walk 6 m over stumps, as fast as it can.

    The same two-dimensional task space as `tutelage.envs.StumpTracks` (Portelas et al. 2020, "Teacher
    algorithms for curriculum learning of deep RL in continuously parameterized environments"), on MuJoCo, so
    that a comparison of task teachers takes minutes instead of hours. One unit is 0.3 m: as there, the legs
    are about 2.4 units long, and the highest stumps cannot be climbed; nor can all gaps, stairs and slopes at
    once.

    Task parameters (choose with `parameters`; the others keep the value in brackets):

    ============ =========== ======= ==============================================================
    ``height``   [0, 3]      (0)     mean height of the stumps, in units; each differs by N(0, 0.1)
    ``spacing``  [0, 6]      (3)     distance between stumps, in units; stumps are 1 unit wide
    ``gap``      [0, 2]      (0)     width of a hole before each stump but the first, in units
    ``stair``    [0, 1]      (0)     rise of the ground from each stump to the next, in units
    ``slope``    [-15, 15]   (0)     inclination of the course in degrees, uphill positive
    ============ =========== ======= ==============================================================

    Actions (4): targets of left hip and knee, right hip and knee, in units of 0.9 rad around a crouch, 31
    times a second. The first stump stands 1.2 m ahead.

    Views: ``policy`` (28): pitch, velocities, joint angles and speeds, whether each foot is on the ground,
    and 14 heights of the ground from 0.3 m behind the hips to 1.5 m ahead, relative to the hips; a hole
    reads as 1 m deep. ``privileged`` adds the clearance of both feet and the task.

    Reward terms: ``progress`` (10 for each metre), ``upright`` (-0.05 |pitch|), ``effort`` (-1e-6 sum of
    squared torques), ``fall`` (-1 once). Nothing is paid for staying alive: it would pay to wait before a
    stump. Success: to pass 6 m within 240 steps (7.7 s). Falling ends the episode: hips lower than 0.4 m
    above the foot of the stumps, or pitch beyond 1.2 rad.

    Camera: ``side``, which follows the walker.

    Preset ``ppo`` (SB3, 256 environments): on flat ground alone 0.89 and 0.91 of training episodes succeed
    after 490,000 steps (49 and 66 s of a busy core; 2 seeds). On uniform tasks of the whole box, students
    master 12 to 20 of the 100 test tasks after 1.0 M steps (76 to 110 s; 5 seeds), with ALP-GMM 16 to 24.
    ALP-GMM at 6.0 M steps (737 s of a busy core, one seed): 34 of 100, at best 40, that is most stumps up to
    1 unit and some up to 2 (in StumpTracks, SAC with ALP-GMM masters 40 of 100 after 20 M steps, as Portelas
    et al. 2020 report).

    Args:
        num_envs: environments.
        parameters: which task parameters there are.
        **options: see `VecTask`.

    Raises:
        ValueError: for an unknown parameter.
    """

    recipe: ClassVar[WorldRecipe] = WorldRecipe(
        summary="MuJoCo biped over stumps: height [0, 3] x spacing [0, 6], 100 test tasks; "
        "minutes, not hours",
        mastered="6 m walked within 240 steps",
        # As for StumpTracks: flat ground is easy, the highest stumps close together are the hardest.
        knowledge=TaskKnowledge(
            easy_task=(0.0, 6.0),
            easy_std=(0.3, 0.6),
            target_mean=(3.0, 0.0),
            target_std=(0.3, 0.6),
            mastered_return=55.0,  # 10 for each of 6 m, less 2 to 4 for posture and effort
            return_range=(-5.0, 60.0),
        ),
        test_sets={"test": grid_or_sample},
        # Short roll-outs and a high learning rate; lower rates, longer roll-outs and lambda 0.9 learnt later.
        students={
            "ppo": batched_ppo(
                256,
                n_steps=16,
                batch_size=1024,
                learning_rate=2e-3,
                policy_kwargs={"net_arch": [64, 64], "activation_fn": "Tanh", "log_std_init": -1.0},
            )
        },
        quick_steps=1_000_000,
        quick_task_teachers={"random": {}, "riac": {}, "alp-gmm": {}},
        quick_evaluations=8,
        expert_steps=1_000_000,
    )
    num_actions = 4
    decimation = 4
    max_episode_length = 240
    default_camera: ClassVar[str] = "side"
    default_max_contacts: ClassVar[int] = 16

    def __init__(
        self,
        num_envs: int,
        parameters: Sequence[str] = ("height", "spacing"),
        **options: Unpack[TaskOptions],
    ) -> None:
        unknown = set(parameters) - set(PARAMETERS)
        if unknown:
            raise ValueError(f"unknown parameter {sorted(unknown)[0]!r} (known: {', '.join(PARAMETERS)})")
        self.task_space = BoxTasks({name: PARAMETERS[name] for name in parameters})
        self.broken_ground = bool({"gap", "stair"} & set(parameters))
        fields = ["geom_pos"]
        if self.broken_ground:
            fields += ["geom_size", "geom_rbound"]
        if "slope" in parameters:
            fields += ["opt.gravity"]
        self.model_fields = tuple(fields)
        super().__init__(num_envs, **options)

    def build_spec(self) -> mujoco.MjSpec:
        """The walker before a plane with stumps, or, where there are gaps or stairs, before boxes."""
        spec = mujoco.MjSpec()
        spec.compiler.degree = False
        spec.option.timestep = 0.008
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.iterations, spec.option.ls_iterations = 10, 20
        # Midphase searches boxes around static geoms as they were compiled; these move with the task.
        spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_MIDPHASE
        spec.visual.headlight.ambient = [0.4, 0.4, 0.4]
        world = spec.worldbody
        world.add_light(pos=[0, -2, 6], dir=[0, 0.3, -1], castshadow=False)
        ground = {"contype": _GROUND, "conaffinity": _WALKER}
        box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
        level = -2 * HALF_HEIGHT if self.broken_ground else 0.0
        world.add_geom(
            name="plane",
            type=plane,
            size=[30, 5, 0.1],
            pos=[0, 0, level],
            rgba=[0.55, 0.6, 0.65, 1],
            **ground,
        )
        for i in range(COLUMNS):
            world.add_geom(
                name=f"stump{i}",
                type=box,
                size=[WIDTH / 2, HALF_DEPTH, HALF_HEIGHT],
                pos=[FIRST + i, 0, -1.1 * HALF_HEIGHT],
                rgba=[0.75, 0.5, 0.3, 1],
                **ground,
            )
        for i in range(COLUMNS + 1 if self.broken_ground else 0):
            world.add_geom(
                name=f"ground{i}",
                type=box,
                size=[1, HALF_DEPTH, HALF_HEIGHT],
                pos=[FIRST + i, 0, -HALF_HEIGHT],
                rgba=[0.45, 0.55, 0.45, 1],
                **ground,
            )
        _add_walker(spec)
        return spec

    def setup(self) -> None:
        """Ids, constants and the shape of each course."""
        device = self.device
        self.stump0 = self.model.geom("stump0").id
        self.columns = torch.arange(COLUMNS, device=device)
        self.scan = torch.tensor(SCAN, device=device)
        self.rest = torch.tensor(REST, device=device)
        self.heights = self.new_buffer("heights", COLUMNS)
        self.spacing = self.new_buffer("spacing")
        self.period = self.new_buffer("period")
        self.rise = self.new_buffer("rise")
        self.x_before = self.new_buffer("x_before")
        feet = [self.model.site(f"{side}_foot").id for side in ("left", "right")]
        self.feet = torch.tensor(feet, device=device)

    def start_episodes(self, rows: Rows) -> None:
        """Build the course, and stand in a crouch before it."""
        height, spacing, gap, stair, slope = (
            rows.take(self.parameter(name))
            if name in self.task_space.names
            else torch.full((rows.n,), value, device=self.device)
            for name, value in ABSENT.items()
        )
        noise = HEIGHT_NOISE * self.streams.normal(rows, COLUMNS)
        heights = torch.where(height[:, None] > 0, (height[:, None] * UNIT + noise).clamp(min=0.0), 0.0)
        rows.put(self.heights, heights)
        rows.put(self.spacing, spacing * UNIT)
        period = WIDTH + (spacing + gap) * UNIT
        rows.put(self.period, period)
        rows.put(self.rise, stair * UNIT)

        starts = FIRST + self.columns * period[:, None]
        base = (self.columns + 1) * (stair * UNIT)[:, None]
        places = rows.take(self.sim.read_model("geom_pos")).clone()
        stumps = places[:, self.stump0 : self.stump0 + COLUMNS]
        stumps[..., 0] = starts + WIDTH / 2
        # A stump of height 0 is hidden: level with the ground, its edges would be felt.
        stumps[..., 2] = base + heights - HALF_HEIGHT - 0.01 * (heights <= 0)
        if self.broken_ground:
            self._lay_ground(rows, places, starts, base, WIDTH + spacing * UNIT)
        self.sim.write_model("geom_pos", places, rows)
        if "slope" in self.task_space.names:
            angle = torch.deg2rad(slope)
            gravity = -9.81 * torch.stack([angle.sin(), torch.zeros_like(angle), angle.cos()], 1)
            self.sim.write_model("opt.gravity", gravity, rows)

        still = torch.zeros(rows.n, 3, device=self.device)
        joints = self.rest + self.streams.uniform(rows, 4, -0.1, 0.1)
        self.sim.write("qpos", torch.cat([still, joints], 1), rows)
        self.sim.write("ctrl", self.rest.expand(rows.n, 4), rows)

    def _lay_ground(self, rows: Rows, places: Tensor, starts: Tensor, base: Tensor, length: Tensor) -> None:
        """Put a box under each stump and the way to the next; the first box is where the walker starts."""
        first = self.stump0 + COLUMNS
        ground = slice(first + 1, first + 1 + COLUMNS)
        sizes = rows.take(self.sim.read_model("geom_size")).clone()
        bounds = rows.take(self.sim.read_model("geom_rbound")).clone()
        sizes[:, first, 0] = 3.0
        sizes[:, ground, 0] = length[:, None] / 2
        boxes = slice(first, first + 1 + COLUMNS)
        bounds[:, boxes] = sizes[:, boxes].norm(dim=2)
        places[:, first, 0] = FIRST - 3.0
        places[:, ground, 0] = starts + length[:, None] / 2
        places[:, ground, 2] = base - HALF_HEIGHT
        self.sim.write_model("geom_size", sizes, rows)
        self.sim.write_model("geom_rbound", bounds, rows)

    def pre_physics_step(self, actions: Tensor) -> None:
        """Move the targets of the joints."""
        self.x_before.copy_(self.x)
        self.sim.write("ctrl", self.rest + 0.9 * actions)

    def post_physics_step(self) -> None:
        """Read the state; find out who has fallen."""
        self.qpos, self.qvel = self.sim.read("qpos"), self.sim.read("qvel")
        self.x, self.hips = self.qpos[:, 0], self.qpos[:, 1] + START
        column = ((self.x - FIRST) / self.period).floor().clamp(-1, COLUMNS - 1)
        standing = self.hips - (column + 1) * self.rise > STANDS
        self.finished = self.x >= FINISH
        self.fallen = (~standing | (self.qpos[:, 2].abs() > TILT)) & ~self.finished

    def ground(self, x: Tensor) -> Tensor:
        """Height of the ground at places `x`, shape ``(num_envs, k)``; `HOLE` below its base in a gap."""
        period = self.period[:, None]
        column = ((x - FIRST) / period).floor()
        along = x - FIRST - column * period
        there = (column >= 0) & (column < COLUMNS)
        on_stump = there & (along < WIDTH)
        in_gap = there & (along > WIDTH + self.spacing[:, None])
        base = (column.clamp(-1, COLUMNS - 1) + 1) * self.rise[:, None]
        stump = self.heights.gather(1, column.long().clamp(0, COLUMNS - 1))
        return base + torch.where(on_stump, stump, 0.0) + torch.where(in_gap, HOLE, 0.0)

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        """Past the finish, or fallen."""
        return self.finished | self.fallen, self.finished

    def compute_rewards(self) -> dict[str, Tensor]:
        """Go far, stand upright, do not waste."""
        torques = self.sim.read("actuator_force")
        return {
            "progress": 10.0 * (self.x - self.x_before),
            "upright": -0.05 * self.qpos[:, 2].abs(),
            "effort": -1e-6 * (torques**2).sum(1),
            "fall": -1.0 * self.fallen,
        }

    def compute_views(self) -> dict[str, Tensor]:
        """What the walker feels and sees, and what it cannot know."""
        feet = self.sim.read("site_xpos")[:, self.feet]
        clearance = feet[:, :, 2] - self.ground(feet[:, :, 0])
        profile = self.ground(self.x[:, None] + self.scan) - self.hips[:, None]
        policy = torch.cat(
            [
                self.qpos[:, 2:3], 0.3 * self.qvel[:, :3], self.qpos[:, 3:], 0.1 * self.qvel[:, 3:],
                (clearance < 0.02).to(torch.float32), profile,
            ],
            1,
        )  # fmt: skip
        return {
            "policy": policy,
            "privileged": torch.cat([policy, clearance, self.tasks.to(torch.float32)], 1),
        }


def _add_walker(spec: mujoco.MjSpec) -> None:
    """Trunk, and two legs of thigh, shin and a short rigid foot; joints are x, z, pitch, then the legs'."""
    capsule, slide = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtJoint.mjJNT_SLIDE
    body = {"contype": _WALKER, "conaffinity": _GROUND, "type": capsule, "friction": [1.0, 0.005, 0.0001]}
    trunk = spec.worldbody.add_body(name="trunk", pos=[0, 0, START])
    trunk.add_joint(name="x", type=slide, axis=[1, 0, 0])
    trunk.add_joint(name="z", type=slide, axis=[0, 0, 1])
    trunk.add_joint(name="pitch", axis=[0, 1, 0])
    trunk.add_geom(fromto=[0, 0, 0, 0, 0, 0.35], size=[0.1, 0, 0], mass=6.0, rgba=[0.3, 0.4, 0.7, 1], **body)
    trunk.add_camera(
        name="side", pos=[0.9, -3.6, 0.25], xyaxes=[1, 0, 0, 0, 0.1, 1], fovy=45,
        mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACK,
    )  # fmt: skip
    for side, y, colour in (("left", 0.06, [0.8, 0.4, 0.4, 1]), ("right", -0.06, [0.4, 0.7, 0.4, 1])):
        thigh = trunk.add_body(name=f"{side}_thigh", pos=[0, y, 0])
        thigh.add_joint(
            name=f"{side}_hip", axis=[0, 1, 0], range=[-2.0, 1.0], damping=[1.0, 0, 0], armature=0.02
        )
        thigh.add_geom(fromto=[0, 0, 0, 0, 0, -THIGH], size=[0.06, 0, 0], mass=1.5, rgba=colour, **body)
        shin = thigh.add_body(name=f"{side}_shin", pos=[0, 0, -THIGH])
        shin.add_joint(
            name=f"{side}_knee", axis=[0, 1, 0], range=[0.0, 2.4], damping=[1.0, 0, 0], armature=0.02
        )
        shin.add_geom(fromto=[0, 0, 0, 0, 0, -SHIN], size=[0.045, 0, 0], mass=0.7, rgba=colour, **body)
        shin.add_geom(
            fromto=[-0.04, 0, -SHIN, 0.12, 0, -SHIN], size=[0.045, 0, 0], mass=0.2, rgba=colour, **body
        )
        shin.add_site(name=f"{side}_foot", pos=[0.04, 0, -SHIN - 0.045])
        for joint in ("hip", "knee"):
            actuator = spec.add_actuator(
                name=f"{side}_{joint}", target=f"{side}_{joint}", trntype=mujoco.mjtTrn.mjTRN_JOINT,
                forcerange=[-120, 120],
            )  # fmt: skip
            actuator.set_to_position(kp=120.0, kv=3.0)

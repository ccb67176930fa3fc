"""Two batched tasks that are learnt in seconds: a rail for experts, a slider for students that see."""

from collections.abc import Mapping
from typing import Any, ClassVar

import mujoco
import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.cameras.camera_config import CameraConfig
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.recipe import WorldRecipe
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent
from tutelage.teachers.experts.mlp_expert import Advice

STEP = 0.3  # m that the slider moves for an action of 1


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


class Slider(VecTask):
    """x moves by 0.3 m times the action; success: within 0.15 m of the goal after 6 steps."""

    task_space = BoxTasks({"goal": (-0.8, 0.8)})
    num_actions = 1
    decimation = 1
    max_episode_length = 6
    default_obs_view: ClassVar[str] = "privileged"

    def build_spec(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.gravity = [0, 0, 0]
        world = spec.worldbody
        world.add_camera(name="front", pos=[0, 0, 1.8], fovy=60)
        world.add_light(pos=[0, 0, 3], dir=[0, 0, -1], castshadow=False)
        sphere = mujoco.mjtGeom.mjGEOM_SPHERE
        slider = world.add_body(name="slider")
        slider.add_joint(name="x", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[1, 0, 0])
        slider.add_geom(type=sphere, size=[0.1, 0, 0], rgba=[0, 0, 1, 1], contype=0, conaffinity=0)
        goal = world.add_body(name="goal", mocap=True)
        goal.add_geom(
            name="goal", type=sphere, size=[0.15, 0, 0], rgba=[1, 0, 0, 1], contype=0, conaffinity=0
        )
        return spec

    def setup(self) -> None:
        self.goal = self.new_buffer("goal")

    def start_episodes(self, rows: Rows) -> None:
        goal = rows.take(self.parameter("goal"))
        rows.put(self.goal, goal)
        zero = torch.zeros_like(goal)
        self.sim.write("mocap_pos", torch.stack([goal, zero, zero], 1)[:, None], rows)
        self.sim.write("qpos", self.streams.uniform(rows, 1, -0.8, 0.8), rows)

    def pre_physics_step(self, actions: Tensor) -> None:
        self.sim.write("qpos", self.sim.read("qpos") + STEP * actions)

    def post_physics_step(self) -> None:
        self.x = self.sim.read("qpos")[:, 0]

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(self.success), (self.x - self.goal).abs() < 0.15

    def compute_rewards(self) -> dict[str, Tensor]:
        return {"distance": -(self.x - self.goal).abs()}

    def compute_views(self) -> dict[str, Tensor]:
        x = self.sim.read("qpos").clone()
        return {"policy": x, "privileged": torch.cat([x, self.goal[:, None]], 1)}


class Pointing:
    """Goes straight to the goal."""

    view = "privileged"
    num_actions = 1

    def __init__(self) -> None:
        self.queries = 0

    def advise(self, obs_dict: Mapping[str, Tensor]) -> Advice:
        x, goal = obs_dict[self.view].unbind(1)
        self.queries += len(x)
        mean = ((goal - x) / STEP)[:, None]
        return Advice(mean, torch.full_like(mean, 0.3), None)


@pytest.fixture
def expert() -> Pointing:
    return Pointing()


@pytest.fixture
def slider() -> Any:
    """Makes the task: ``slider(num_envs, seed)``."""
    made: list[VecTask] = []

    def make(num_envs: int = 32, seed: int = 0, **options: Any) -> VecTask:
        camera = CameraConfig("front", 32, 32, options.pop("modalities", ("rgb",)))
        made.append(Slider(num_envs, seed=seed, threads=1, cameras=[camera], **options))
        return made[-1]

    yield make
    for task in made:
        task.close()


@pytest.fixture
def new_student() -> Any:
    """Makes a student of a task: ``new_student(task, seed=0, frames=2)``."""

    def make(task: VecTask, seed: int = 0, **config: Any) -> VisionStudent:
        config = {"images": ("front/rgb",), "hidden": (64,), **config}
        return VisionStudent.of_task(VisionConfig(**config), task, seed)

    return make


@pytest.fixture
def better() -> Any:
    """Whether one policy succeeds more often than another: one-sided z-test of proportions, p < 0.001."""

    def test(one: Episodes, other: Episodes) -> bool:
        n, m = len(one.successes), len(other.successes)
        pooled = (one.successes.sum() + other.successes.sum()) / (n + m)
        deviation = max(pooled * (1 - pooled) * (1 / n + 1 / m), 1e-12) ** 0.5
        return bool((one.success - other.success) / deviation > 3.09)

    return test

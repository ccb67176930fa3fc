"""A user's own world, distillation method, task teacher and student, each in one file outside the package."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.envs.contract.names import check_folder_names
from tutelage.envs.contract.recipe import WorldRecipe
from tutelage.experiments.compare import CompareConfig, ComparisonError, compare, resolve
from tutelage.experiments.data import RecordConfig
from tutelage.experiments.distill import DistillConfig, distill
from tutelage.experiments.reports.distill_results import read_distillation
from tutelage.experiments.reports.distill_summary import summary_rows
from tutelage.experiments.reports.summary import summary_table
from tutelage.experiments.runs.reading import read_grid
from tutelage.experiments.trainings.distill_checks import checked
from tutelage.experiments.trainings.recording import record_data
from tutelage.experiments.views import ViewsConfig, views
from tutelage.students.distillation.machinery.registry import method_card, method_class
from tutelage.students.experts.expert_training import train_expert
from tutelage.students.sb3.presets import student_preset

WORLD = """
import mujoco, torch
from tutelage.envs import BoxTasks, WorldRecipe, batched_ppo
from tutelage.envs.batched import VecTask

class Bare(VecTask):
    task_space = BoxTasks({"target": (-1.0, 1.0)})
    num_actions = 1
    max_episode_length = 5
    default_obs_view = "privileged"

    def build_spec(self):
        spec = mujoco.MjSpec()
        spec.option.gravity = [0, 0, 0]
        spec.worldbody.add_camera(name="front", pos=[0, -2, 0], xyaxes=[1, 0, 0, 0, 0, 1])
        body = spec.worldbody.add_body(name="mass")
        body.add_joint(name="slide", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[1, 0, 0], damping=[40, 0, 0])
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0, 0], mass=1)
        spec.add_actuator(name="motor", target="slide", trntype=mujoco.mjtTrn.mjTRN_JOINT).gainprm[0] = 200
        return spec

    def start_episodes(self, rows):
        self.sim.write("qpos", self.streams.uniform(rows, 1, -0.1, 0.1), rows)

    def pre_physics_step(self, actions):
        self.sim.write("ctrl", actions)

    def post_physics_step(self):
        self.qpos, self.qvel = self.sim.read("qpos"), self.sim.read("qvel")
        self.offset = self.parameter("target") - self.qpos[:, 0]

    def compute_outcomes(self):
        return self.qpos[:, 0].abs() > 3, self.offset.abs() < 0.1

    def compute_rewards(self):
        return {"near": -self.offset.abs()}

    def compute_views(self):
        policy = torch.cat([self.qpos, self.qvel], 1)
        return {"policy": policy, "privileged": torch.cat([policy, self.offset[:, None]], 1)}

class Rail(Bare):
    recipe = WorldRecipe(
        summary="a mass on a rail",
        mastered="on the target at the end",
        students={"ppo": batched_ppo(8, n_steps=5, batch_size=40, n_epochs=1, gamma=0.9)},
        test_sets={"few": lambda task: task.task_space.grid(4)},
        quick_steps=400,
        quick_task_teachers={"random": {}, "riac": {"max_region_size": 50}},
        quick_seeds=2,
        quick_evaluations=2,
        expert_steps=80,
        quick_frames=120,
        encoder="fast",
        looks="mild",
        stack=2,
    )
"""
TEACHER = '''
from pathlib import Path
from tutelage.teachers import Random, RandomConfig

class Halves(Random):
    """Random, which breaks off once, after the first evaluation."""

    def __init__(self, space, rng):
        super().__init__(space, rng, RandomConfig())

    def observe(self, episodes):
        super().observe(episodes)
        self.seen = getattr(self, "seen", 0) + len(episodes)
        if self.seen > 50 and not Path(MARK).exists():
            Path(MARK).touch()
            raise RuntimeError("a power cut")
'''
STUDENT = """
from stable_baselines3 import PPO

class Mine(PPO):
    def __init__(self, policy, env, **kwargs):
        super().__init__(policy, env, n_steps=5, batch_size=40, n_epochs=1, **kwargs)
"""
METHOD = """
from dataclasses import dataclass
from pathlib import Path
from tutelage.students.distillation import Dagger, DaggerConfig, MethodCard

@dataclass(frozen=True)
class StutterConfig(DaggerConfig):
    updates: int = 1
    fails_at: int = -1

class Stutter(Dagger):
    card = MethodCard("DAgger that stutters", settings={"fails_at": 1})
    config_class = StutterConfig

    def round(self):
        if self.rounds == self.config.fails_at and not Path(MARK).exists():
            Path(MARK).touch()
            raise RuntimeError("a power cut")
        return super().round()

class Calm(Stutter):
    card = MethodCard("DAgger that does not")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on ``sys.path`` with the four files; returns the folder for results."""
    home = tmp_path / "home"
    home.mkdir()
    files = {"own_world": WORLD, "own_teacher": TEACHER, "own_student": STUDENT, "own_method": METHOD}
    for name, text in files.items():
        (home / f"{name}.py").write_text(text.replace("MARK", repr(str(home / f"{name}.mark"))))
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.setenv("PYTHONPATH", str(home), prepend=":")
    yield tmp_path / "out"
    for name in files:
        sys.modules.pop(name, None)


def events(folder: Path) -> set[str]:
    """Folders that have TensorBoard events."""
    return {path.parent.relative_to(folder).as_posix() for path in folder.rglob("*tfevents*")}


def test_a_batched_world_has_its_own_quick_preset(own: Path) -> None:
    grid = resolve(CompareConfig(env="own_world:Rail"))
    assert (grid.steps, grid.evaluate_every, grid.seeds, grid.baseline) == (400, 200, (0, 1), "random")
    assert dict(grid.task_teachers) == {"random": {}, "riac": {"max_region_size": 50}}
    assert (grid.students["ppo"].n_envs, grid.students["ppo"].kwargs["gamma"]) == (8, 0.9)


def test_a_world_task_teacher_and_student_are_compared_and_continue(own: Path) -> None:
    config = CompareConfig(
        env="own_world:Rail",
        teachers=("random", "own_teacher:Halves"),
        students=("own_student:Mine",),
        seeds=1,
        evaluate_every=200,
        workers=1,
        out=own,
    )
    assert compare(replace(config, report=False)) == 1  # one cell meets the power cut
    finished = own / "own_student.Mine/random/seed-0/status.json"
    before = finished.stat().st_mtime_ns
    assert compare(config) == 0
    assert finished.stat().st_mtime_ns == before
    cells = {f"own_student.Mine/{teacher}/seed-0" for teacher in ("random", "own_teacher.Halves")}
    assert {str(p.parent.relative_to(own)) for p in own.glob("*/*/*/status.json")} == cells
    assert cells <= events(own)
    logs = [(own / cell / "log.txt").read_text() for cell in sorted(cells)]
    assert sum("a power cut" in log for log in logs) == 1

    grid = read_grid(own)
    assert list(grid.test_sets) == ["few"]
    assert all(cell.evaluations is not None for cell in grid.cells)
    rows = summary_table(grid)
    assert {(row["student"], row["task_teacher"]) for row in rows} == {
        ("own_student:Mine", teacher) for teacher in ("random", "own_teacher:Halves")
    }
    page = (own / "report/summary.md").read_text()
    assert "own_teacher:Halves" in page
    assert "own_student:Mine" in page
    assert "0 of 1" not in page


def test_a_world_and_a_method_are_distilled_and_continue(own: Path) -> None:
    config = DistillConfig(
        "own_world:Rail",
        method=("own_method:Calm", "own_method:Stutter"),
        out=own,
        size=16,
        num_envs=8,
        frames=400,
        episodes=4,
        evaluations=1,
        checkpoint_every=0.0,
        clips=False,
    )
    assert distill(replace(config, report=False)) == 1
    assert distill(config) == 0
    cell = own / "own_method.Stutter/seed-0"
    assert "continues at" in (cell / "log.txt").read_text()
    assert {"own_method.Calm/seed-0", "own_method.Stutter/seed-0"} <= events(own)

    sys.modules.pop("own_method", None)
    found = read_distillation(own)
    assert "own_method" not in sys.modules  # a report imports no module that a folder names
    assert [len(found.finished(method)) for method in found.methods] == [1, 1]
    rows = {row["method"]: row for row in summary_rows(found)}
    assert rows["own_method:Stutter"]["title"] == "DAgger that stutters"
    assert rows["own_method:Stutter"]["runs"] == 1
    assert "DAgger that stutters" in (own / "report/report.html").read_text()


def test_a_worlds_recipe_is_what_distill_starts_from(own: Path) -> None:
    config = checked(DistillConfig("own_world:Rail", size=16, num_envs=2))
    assert (config.cameras, config.encoder, config.looks, config.stack) == (("front",), "fast", "mild", 2)
    assert config.frames == 120
    assert train_expert("own_world:Rail", seed=0).facts["steps"] == 80


def test_a_world_is_shown_and_recorded(own: Path) -> None:
    sheet = views(ViewsConfig("own_world:Rail", n=2, size=16, steps=1, out=own / "views.png"))
    assert sheet.exists()
    record = RecordConfig(
        "own_world:Rail", own / "data", frames=80, num_envs=8, size=16, expert_steps=80, chunk_frames=40
    )
    record_data(record)
    assert json.loads((own / "data/zarr.json").read_text())


@pytest.mark.parametrize(
    "call",
    [
        lambda: resolve(CompareConfig(env="own_world:Bare")),
        lambda: checked(DistillConfig("own_world:Bare")),
        lambda: train_expert("own_world:Bare", seed=0),
    ],
)
def test_a_batched_world_without_a_recipe_is_an_error_that_names_the_cure(
    own: Path, call: Callable[[], object]
) -> None:
    with pytest.raises(
        ValueError, match="own_world:Bare has no recipe: give its class an attribute `recipe ="
    ):
        call()


def test_what_a_recipe_leaves_open_is_named(own: Path) -> None:
    with pytest.raises(ComparisonError, match=r"recipe of stump-tracks has no quick_steps.*give --steps"):
        resolve(CompareConfig(preset="quick", env="stump-tracks"))
    assert resolve(CompareConfig(preset="quick", env="stump-tracks", steps=5_000)).steps == 5_000
    odd = WorldRecipe("any", "any", students={"ppo": {"n_env": 3}})
    with pytest.raises(ValueError, match="'n_env'; did you mean 'n_envs'"):
        student_preset(odd, "ppo")


def test_methods_are_found_by_name_and_by_class(own: Path) -> None:
    assert method_card("pixels-ppo") == replace(
        method_card("asymmetric-ppo"), title="PPO from pixels", critic="student"
    )
    assert method_card("aacd-frozen").settings == {"freeze_critic": True}
    assert method_class("own_method:Stutter").card.title == "DAgger that stutters"
    with pytest.raises(ValueError, match="unknown method 'dager'; did you mean 'dagger'"):
        method_class("dager")
    with pytest.raises(ValueError, match="not a subclass of DistillationMethod"):
        method_class("own_world:Rail")


def test_two_names_of_one_folder_are_refused() -> None:
    check_folder_names("methods", ["a:B", "a.C"])
    with pytest.raises(ValueError, match=r"'a:B' and 'a\.B' would share the folder a\.B"):
        check_folder_names("methods", ["a:B", "a.B"])

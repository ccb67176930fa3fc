"""The grid: what the command line asks for, what it refuses, and what survives a kill or a crash."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tutelage.envs.batched.worlds.catalogue import VEC_TASKS
from tutelage.experiments.compare import CompareConfig, ComparisonError, compare, preset, resolve
from tutelage.experiments.runs.reading import read_grid

TUTELAGE = [sys.executable, "-m", "tutelage.experiments.main"]
SMALL = [
    "--env",
    "point-mass-gate",
    "--steps",
    "3000",
    "--evaluate-every",
    "1500",
    "--no-clips",
    "--workers",
    "2",
]


def _statuses(out: Path) -> dict[str, str]:
    return {
        str(p.parent.relative_to(out)): json.loads(p.read_text())["state"]
        for p in out.glob("*/*/*/status.json")
    }


@pytest.mark.parametrize("name", ["quick", "standard", "paper"])
def test_presets_resolve(name: Any) -> None:
    grid = resolve(CompareConfig(preset=name))
    assert grid == preset(name)
    assert len(grid.cells()) == len(grid.seeds) * len(grid.students) * len(grid.task_teachers)
    assert len(grid.seeds) >= 5
    assert len({cell.folder for cell in grid.cells()}) == len(grid.cells())


@pytest.mark.parametrize("env", VEC_TASKS)
def test_every_batched_task_has_a_quick_preset(env: str) -> None:
    grid = resolve(CompareConfig(env=env))
    assert grid == preset("quick", env)
    assert (grid.env, len(grid.seeds)) == (env, 5)
    assert {"random", "alp-gmm"} <= set(grid.task_teachers)
    assert grid.students["ppo"].n_envs >= 128  # a preset of its own, not the general one


def test_the_paper_preset_is_the_published_protocol() -> None:
    grid = preset("paper")
    assert (grid.steps, len(grid.seeds), grid.evaluate_every) == (20_000_000, 16, 500_000)


def test_another_body_keeps_the_students_of_the_preset() -> None:
    grid = resolve(CompareConfig(preset="paper", env="stump-tracks"))
    assert grid.env == "stump-tracks"
    assert grid.students == preset("paper").students
    other = resolve(CompareConfig(preset="paper", env="point-mass-gate"))
    assert other.students != grid.students


def test_options_override_the_preset() -> None:
    grid = resolve(
        CompareConfig(
            env="point-mass-gate", teachers=("adr", "random"), students=("sac",), seeds=3, steps=100_000
        )
    )
    assert list(grid.task_teachers) == ["adr", "random"]
    assert list(grid.students) == ["sac"]
    assert grid.seeds == (0, 1, 2)
    assert (grid.steps, grid.evaluate_every, grid.baseline) == (100_000, 5_000, "adr")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "stump-track"}, "unknown environment 'stump-track'; did you mean 'stump-tracks'"),
        ({"teachers": ("alp-gm",)}, "unknown task teacher 'alp-gm'.* did you mean 'alp-gmm'"),
        ({"students": ("pppo",)}, "unknown student 'pppo'; did you mean 'ppo'"),
        ({"students": ("dqn",)}, "'dqn' cannot be built"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"steps": -5}, "--steps is -5"),
        ({"workers": -1}, "--workers is -1"),
        ({"teachers": ()}, "at least one of --teachers"),
        ({"baseline": "riac", "teachers": ("random",)}, "--baseline 'riac' is not among"),
        ({"env": "nowhere:Env"}, "cannot be imported"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = CompareConfig(**{"env": "point-mass-gate", "out": tmp_path / "x", **changes})
    with pytest.raises(ComparisonError, match=message):
        compare(config)
    assert not (tmp_path / "x").exists()


def test_help_and_one_line_errors() -> None:
    shown = subprocess.run(
        [*TUTELAGE, "compare", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in (
        "--preset",
        "--env",
        "--teachers",
        "--students",
        "--seeds",
        "--steps",
        "--workers",
        "--out",
    ):
        assert option in shown
    wrong = subprocess.run([*TUTELAGE, "compare", "--env", "stump-track"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "did you mean 'stump-tracks'" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    code = (
        "import sys, tutelage.teachers, tutelage.experiments.main;"
        "heavy = ('torch', 'sklearn', 'stable_baselines3', 'pandas', 'matplotlib', 'scipy');"
        "print([m for m in heavy if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


@pytest.mark.slow
def test_a_grid_killed_at_any_moment_ends_with_the_same_numbers(tmp_path: Path) -> None:
    command = [*TUTELAGE, "compare", *SMALL, "--teachers", "random", "alp-gmm", "--seeds", "2"]
    whole = subprocess.run([*command, "--out", str(tmp_path / "whole")], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "alp-gmm" in whole.stdout
    assert (tmp_path / "whole" / "report" / "report.html").stat().st_size > 10_000

    process = subprocess.Popen([*command, "--out", str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while "finished" not in _statuses(tmp_path / "killed").values():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {name for name, state in _statuses(tmp_path / "killed").items() if state == "finished"}
    ages = {name: (tmp_path / "killed" / name / "episodes.parquet").stat().st_mtime_ns for name in done}
    again = subprocess.run([*command, "--out", str(tmp_path / "killed")], capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    for name, age in ages.items():  # finished cells are not run twice
        assert (tmp_path / "killed" / name / "episodes.parquet").stat().st_mtime_ns == age
    for path in (tmp_path / "whole").glob("*/*/*/evaluations.parquet"):
        other = tmp_path / "killed" / path.relative_to(tmp_path / "whole")
        pd.testing.assert_frame_equal(
            pd.read_parquet(path).filter(regex="^(?!.*seconds)"),
            pd.read_parquet(other).filter(regex="^(?!.*seconds)"),
            check_exact=True,
        )


USER = """
import gymnasium
import numpy as np
from tutelage.envs import DiscreteTasks, PointMassGate
from tutelage.envs.contract.state import rng_state, set_rng_state

class Mine(PointMassGate):
    pass

class Raises(PointMassGate):
    def step(self, action):
        if self.np_random.random() < 0.01:
            raise RuntimeError("the gripper fell off [/red] [nan]")
        return super().step(action)

class NaNRewards(PointMassGate):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, float("nan"), *rest

class Plain(gymnasium.Wrapper):
    # no render mode, no success, no expert knowledge, dict observations

    def __init__(self):
        super().__init__(PointMassGate())
        self.observation_space = gymnasium.spaces.Dict({"all": self.env.observation_space})
        self.task_space = self.env.task_space

    def reset(self, *, seed=None, options=None):
        observation, info = self.env.reset(seed=seed, options=options)
        return {"all": observation}, info

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return {"all": observation}, reward, terminated, truncated, {}

    def render(self):
        raise NotImplementedError

class Finite(gymnasium.Env):
    # a discrete task space: the task is the reward

    task_space = DiscreteTasks(["none", "one", "two"])
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.task, self.steps = int(options["task"]) if options else 0, 0
        return np.zeros(1, np.float32), {"task": self.task}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), float(self.task), self.steps == 5, False, {"success": self.task > 0}

class Lacking:
    def __init__(self, space, rng): pass
    def propose(self, n): pass

class Base:
    def __init__(self, space, rng): self.space, self.rng = space, rng
    def propose(self, n): return self.space.sample(self.rng, n)
    def observe(self, episodes): pass
    def metrics(self): return {}
    def state_dict(self): return {"rng": rng_state(self.rng)}
    def load_state_dict(self, state): set_rng_state(self.rng, state["rng"])
    def picture(self): return {}

class OutOfBox(Base):
    def propose(self, n): return super().propose(n) + 100.0

class NaNTasks(Base):
    def propose(self, n): return super().propose(n) * np.nan

class Dies(Base):
    def observe(self, episodes):
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "users_own.py").write_text(USER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)  # where a user types the command, and nothing more
    return "users_own"


def test_a_crashed_cell_is_named_and_the_others_finish(tmp_path: Path, users_module: str) -> None:
    out = tmp_path / "out"
    teachers = ["random", f"{users_module}:OutOfBox", f"{users_module}:NaNTasks", f"{users_module}:Dies"]
    result = subprocess.run(
        [*TUTELAGE, "compare", *SMALL, "--teachers", *teachers, "--seeds", "1", "--out", str(out)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    text = " ".join(result.stdout.split())
    assert "tasks proposed by OutOfBox: position" in text
    assert "tasks proposed by NaNTasks: position = nan" in text
    assert "killed by signal 9" in text
    assert _statuses(out) == {
        "ppo/random/seed-0": "finished",
        f"ppo/{users_module}.OutOfBox/seed-0": "failed",
        f"ppo/{users_module}.NaNTasks/seed-0": "failed",
        f"ppo/{users_module}.Dies/seed-0": "failed",
    }
    assert len(pd.read_parquet(out / "ppo/random/seed-0/evaluations.parquet")) > 0


@pytest.mark.parametrize(
    ("env", "message"),
    [("Raises", "the gripper fell off [/red] [nan]"), ("NaNRewards", "NaN or infinite reward")],
)
def test_a_users_environment_that_fails_ends_in_one_message(
    env: str, message: str, tmp_path: Path, users_module: str
) -> None:
    result = subprocess.run(
        [*TUTELAGE, "compare", "--env", f"{users_module}:{env}", "--teachers", "random", "--students", "ppo",
         "--seeds", "1", "--steps", "2000", "--no-clips", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 1
    assert message in " ".join(result.stdout.split())
    assert "Traceback" not in result.stdout + result.stderr
    assert "Traceback" in next((tmp_path / "out").glob("*/*/*/log.txt")).read_text()


def test_a_users_own_environment_and_student_are_compared(tmp_path: Path, users_module: str) -> None:
    failed = compare(
        CompareConfig(
            env=f"{users_module}:Mine",
            teachers=("random", "alp-gmm"),
            students=("stable_baselines3:A2C",),
            seeds=1,
            steps=500,
            evaluate_every=250,
            clips=False,
            workers=2,
            out=tmp_path / "out",
        )
    )
    assert failed == 0
    [scores] = [
        json.loads(p.read_text())["scores"] for p in (tmp_path / "out").glob("*/random/seed-0/status.json")
    ]
    assert np.isfinite([score for _, score in scores]).all()


@pytest.mark.parametrize(("env", "student"), [("Plain", "ppo"), ("Finite", "dqn")])
def test_unusual_environments_of_a_user_are_compared(
    env: str, student: str, tmp_path: Path, users_module: str
) -> None:
    result = subprocess.run(
        [*TUTELAGE, "compare", "--env", f"{users_module}:{env}", "--students", student, "--seeds", "1",
         "--teachers", "random", "--steps", "1500", "--evaluate-every", "500", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    [cell] = (tmp_path / "out").glob("*/random/seed-0")
    assert "pictures could not be drawn" not in (cell / "log.txt").read_text()
    evaluations = pd.read_parquet(cell / "evaluations.parquet")
    if env == "Finite":  # five steps of reward 0, 1, 2; the last two tasks succeed
        assert evaluations["return"].tolist()[:3] == [0, 5, 10]
        assert evaluations["success"].tolist()[:3] == [0, 1, 1]
    else:
        assert evaluations["success"].isna().all()


def test_a_task_teacher_that_lacks_methods_is_refused(tmp_path: Path, users_module: str) -> None:
    config = CompareConfig(teachers=(f"{users_module}:Lacking",), out=tmp_path / "out")
    with pytest.raises(ComparisonError, match="lacks observe, metrics, state_dict, load_state_dict"):
        compare(config)


def test_a_finished_comparison_grows_but_does_not_change(tmp_path: Path) -> None:
    """More seeds and one more task teacher: cells that are there stay; other settings are refused."""
    out = tmp_path / "x"
    arguments = [*TUTELAGE, "compare", *SMALL, "--no-report", "--out", str(out)]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*arguments, *more], capture_output=True, text=True)

    assert run("--teachers", "random", "--seeds", "1").returncode == 0
    first = out / "ppo" / "random" / "seed-0" / "status.json"
    before = first.stat().st_mtime_ns
    assert run("--teachers", "random", "riac", "--seeds", "2").returncode == 0
    assert first.stat().st_mtime_ns == before
    grid = read_grid(out)
    assert (grid.task_teachers, grid.seeds, len(grid.cells)) == (("random", "riac"), (0, 1), 4)
    assert {cell.state for cell in grid.cells} == {"finished"}
    other = run("--teachers", "random", "--seeds", "1", "--set", "ppo.learning-rate=1e-5")
    assert other.returncode == 2
    assert "different: students.ppo.kwargs.learning_rate" in " ".join(other.stderr.split())


CHECKED = """
import gymnasium as gym
import numpy as np

from tutelage.envs import BoxTasks


class Deaf(gym.Env):
    task_space = BoxTasks({"x": (0.0, 1.0)})
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {"task": np.array([0.5])}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t == 5, False, {"task": np.array([0.5])}
"""


def test_check_names_a_curriculum_that_is_not_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deaf_world.py").write_text(CHECKED)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = CompareConfig(
        env="deaf_world:Deaf", teachers=("random",), steps=100, seeds=1, check=True, out=tmp_path / "out"
    )
    assert compare(config) == 1
    assert "random: \n  error: " in capsys.readouterr().out
    assert not (tmp_path / "out").exists()

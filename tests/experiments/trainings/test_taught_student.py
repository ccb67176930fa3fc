"""Training one cell: exact resume after a kill, and clear ends where it cannot go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from stable_baselines3.common.monitor import load_results

from tutelage.envs.contract.state import StateError
from tutelage.envs.point_mass.point_mass_gate import PointMassGateVecEnv, uniform_test_tasks
from tutelage.experiments.runs.cell import EVALUATION_SEED
from tutelage.experiments.runs.config import CellConfig
from tutelage.experiments.runs.locking import FolderError, locked
from tutelage.experiments.runs.records import read_table
from tutelage.experiments.runs.report import Report
from tutelage.experiments.trainings.taught_student import TaughtStudent, load_trained, train_student
from tutelage.students.sb3.config import StudentConfig
from tutelage.students.sb3.evaluation import evaluate

PPO = StudentConfig(
    "ppo", n_envs=8, kwargs={"n_steps": 64, "batch_size": 128, "n_epochs": 2}, normalize_rewards=True
)
SAC = StudentConfig(
    "sac",
    n_envs=8,
    kwargs={
        "buffer_size": 3000,
        "learning_starts": 200,
        "train_freq": 8,
        "gradient_steps": 4,
        "batch_size": 64,
    },
)


def _config(student: StudentConfig = PPO, **changes: Any) -> CellConfig:
    values: dict[str, Any] = {
        "env": "point-mass-gate",
        "task_teacher": "alp-gmm",
        "student": student.algorithm,
        "student_config": student,
        "seed": 0,
        "steps": 6000,
        "evaluate_every": 1500,
        "task_teacher_config": {"fit_rate": 20},
    }
    return CellConfig(**{**values, **changes})


def _numbers(folder: Path) -> dict[str, Any]:
    """Everything a run left behind, but for what the clock decides."""
    frames = {
        name: pd.read_parquet(folder / f"{name}.parquet").filter(regex="^(?!.*seconds)")
        for name in ("episodes", "evaluations")
    }
    return {**frames, "weights": load_file(folder / "student" / "weights.safetensors")}


def _assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name in ("episodes", "evaluations"):
        pd.testing.assert_frame_equal(one[name], other[name], check_exact=True)
    assert set(one["weights"]) == set(other["weights"])
    for name, weights in one["weights"].items():
        np.testing.assert_array_equal(weights, other["weights"][name], err_msg=name)


@pytest.mark.parametrize(
    ("student", "env", "stage"),
    [
        (PPO, "point-mass-gate", "[1-9]*"),
        (SAC, "point-mass-gate", "[1-9]*"),
        (PPO, "point-mass-gate", "0"),
        (PPO, "stump-walker", "[1-9]*"),
    ],
    ids=["ppo", "sac", "ppo-first-stage", "mujoco"],
)
def test_a_killed_run_resumes_to_identical_numbers(
    student: StudentConfig, env: str, stage: str, tmp_path: Path
) -> None:
    config = _config(student, env=env, clips=False)
    train_student(config.to_json(), tmp_path / "whole")

    killed = tmp_path / "killed"
    code = (
        "import json, sys; from pathlib import Path;"
        "from tutelage.experiments.trainings.taught_student import train_student;"
        "train_student(json.loads(sys.argv[1]), Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, json.dumps(config.to_json()), str(killed)])
    deadline = time.monotonic() + 120
    while not list(killed.glob(f"checkpoints/step-{stage}")):  # in the midst of what follows
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((killed / "status.json").read_text())["state"] == "running"
    train_student(config.to_json(), killed)

    _assert_same(_numbers(tmp_path / "whole"), _numbers(killed))
    assert json.loads((killed / "status.json").read_text())["state"] == "finished"


def test_another_seed_gives_another_curve_and_the_same_seed_the_same(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_student(_config(seed=seed, steps=1500).to_json(), tmp_path / name)
    a, b, c = (_numbers(tmp_path / name) for name in "abc")
    _assert_same(a, b)
    assert not a["episodes"].equals(c["episodes"])


def test_the_folder_holds_what_others_read(tmp_path: Path) -> None:
    train_student(_config(steps=3000).to_json(), tmp_path)
    episodes = pd.read_parquet(tmp_path / "episodes.parquet")
    assert list(episodes.columns) == [
        "step",
        "seconds",
        "return",
        "length",
        "success",
        "task/position",
        "task/width",
        "id",
        "environment",
        "started",
    ]
    monitor = load_results(str(tmp_path))
    np.testing.assert_allclose(monitor["r"], episodes["return"], atol=1e-6)
    assert monitor["l"].tolist() == episodes["length"].tolist()
    evaluations = pd.read_parquet(tmp_path / "evaluations.parquet")
    assert set(evaluations["test_set"]) == {"target", "uniform"}
    assert (evaluations.groupby("step").size() == 150).all()  # 50 target and 100 uniform test tasks
    timings = json.loads((tmp_path / "timings.json").read_text())
    assert timings["episodes"] == len(episodes)
    assert sum(v for k, v in timings["seconds"].items() if k != "total") == pytest.approx(
        timings["seconds"]["total"]
    )
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("student", [PPO, SAC], ids=["ppo", "sac"])
def test_a_trained_student_is_loaded_as_it_was_evaluated_last(student: StudentConfig, tmp_path: Path) -> None:
    train_student(_config(student, steps=2000).to_json(), tmp_path)
    model = load_trained(tmp_path)
    evaluations = pd.read_parquet(tmp_path / "evaluations.parquet").query("test_set == 'uniform'")
    last = evaluations[evaluations["step"] == evaluations["step"].max()]
    again = evaluate(model, PointMassGateVecEnv(100), uniform_test_tasks(), EVALUATION_SEED)
    np.testing.assert_allclose(again.returns, last["return"], rtol=1e-5)
    with pytest.raises(FileNotFoundError):
        load_trained(tmp_path / "nowhere")


def test_a_damaged_checkpoint_is_named_and_records_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = TaughtStudent.advance

    def stopped(self: TaughtStudent, until: float, report: Report) -> None:
        if self.step >= 3000:
            raise KeyboardInterrupt
        advance(self, until, report)

    monkeypatch.setattr(TaughtStudent, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_student(_config().to_json(), tmp_path)
    monkeypatch.undo()
    before = read_table(tmp_path / "evaluations.parquet").to_pandas()
    [checkpoint] = (tmp_path / "checkpoints").glob("step-*")
    for name in ("run.npz", "student.npz", "weights.safetensors"):
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(StateError, match="delete it to start anew"):
            train_student(_config().to_json(), tmp_path)
        (checkpoint / name).write_bytes(content)
    pd.testing.assert_frame_equal(before, read_table(tmp_path / "evaluations.parquet").to_pandas())
    train_student(_config().to_json(), tmp_path)  # mended, it goes on


def test_a_folder_of_another_configuration_or_in_use_is_refused(tmp_path: Path) -> None:
    train_student(_config(steps=1000).to_json(), tmp_path)
    with pytest.raises(FolderError, match=r"different: seed\); choose another --out"):
        train_student(_config(steps=1000, seed=3).to_json(), tmp_path)
    with (
        locked(tmp_path),
        pytest.raises(FolderError, match="another process is at work"),
        locked(tmp_path, patience=0.3),
    ):
        pass


def test_a_full_disk_ends_in_one_message_and_spares_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tutelage.students.sb3.stages as cell

    saved: list[int] = []

    def full(folder: Path, model: Any, replay_buffer: bool = True) -> None:
        saved.append(model.num_timesteps)
        if len(saved) == 3:
            (folder / "weights.safetensors").write_bytes(b"half")
            raise OSError(28, "No space left on device")
        original(folder, model, replay_buffer)

    original = cell.save_student
    monkeypatch.setattr(cell, "save_student", full)
    with pytest.raises(OSError, match="No space left"):
        train_student(_config().to_json(), tmp_path / "full")
    monkeypatch.undo()
    train_student(_config().to_json(), tmp_path / "full")
    train_student(_config().to_json(), tmp_path / "roomy")
    _assert_same(_numbers(tmp_path / "full"), _numbers(tmp_path / "roomy"))


CHILD = """
import multiprocessing, os, sys, time
from tutelage.experiments.runs.locking import exit_with_parent

def work():
    exit_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    multiprocessing.get_context("forkserver").Process(target=work).start()
    time.sleep(60)
"""


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(CHILD)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)  # it is alive
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
            if Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.1)
    pytest.fail("the child outlived its parent")

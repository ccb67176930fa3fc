"""`tutelage data` from end to end on the smallest of datasets."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from tutelage.experiments.data import (
    DataConfig,
    InfoConfig,
    RecordConfig,
    RepairConfig,
    TrainConfig,
    ViewConfig,
    data,
    data_sheet,
)
from tutelage.experiments.main import main
from tutelage.experiments.runs.locking import FolderError, locked
from tutelage.experiments.trainings import cloned_student, recording
from tutelage.students.datasets.dataset import Dataset
from tutelage.students.datasets.dataset_cloning import DatasetCloning
from tutelage.students.datasets.dataset_files import DatasetError
from tutelage.students.vision.vision_student import VisionStudent
from tutelage.teachers.experts.mlp_expert import ExpertConfig, MLPExpert


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained expert for Reach."""
    config = ExpertConfig(view="privileged", num_obs=21, num_actions=4, hidden=(8,))
    generator = torch.Generator().manual_seed(0)
    sizes = {"0.weight": (8, 21), "0.bias": (8,), "2.weight": (4, 8), "2.bias": (4,)}
    tensors = {
        f"actor.layers.{name}": 0.3 * torch.randn(size, generator=generator) for name, size in sizes.items()
    }
    tensors |= {"actor.mean": torch.zeros(21), "actor.scale": torch.ones(21), "log_std": torch.zeros(4)}
    folder = tmp_path_factory.mktemp("expert")
    MLPExpert(config, tensors, {"seconds": 1.5, "steps": 100}).save(folder)
    return folder


def record_config(expert: Path, out: Path) -> RecordConfig:
    return RecordConfig(
        "reach",
        out,
        frames=4 * 60,
        expert=expert,
        obs="rgbd",
        size=32,
        num_envs=4,
        looks="mild",
        chunk_frames=4 * 20,
    )


@pytest.fixture(scope="module")
def recorded(expert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "reach"
    assert data(DataConfig(record_config(expert, out))) == 0
    return out


def test_record(
    recorded: Path, expert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(recorded)
    assert (dataset.frames, dataset.chunks, dataset.episodes) == (240, 3, 4)
    assert dataset.fields["obs/front/depth"] == ((4, 32, 32), "float16")
    assert dataset.fields["obs/wrist/rgb"] == ((4, 32, 32, 3), "uint8")
    told = dataset.metadata
    assert (told["name"], told["looks"], told["expert"]["facts"]["steps"]) == ("reach", "mild", 100)
    data(DataConfig(record_config(expert, recorded)))
    assert "has 240 frames or more already; --frames adds to them" in capsys.readouterr().out
    with pytest.raises(DatasetError, match=r"other data \(different: looks, visuals\)"):
        data(DataConfig(replace(record_config(expert, recorded), looks="strong")))
    monkeypatch.setattr(recording, "locked", partial(locked, patience=0.0))
    with locked(recorded), pytest.raises(FolderError, match="another process is at work"):
        data(DataConfig(record_config(expert, recorded)))


def test_a_killed_recording_goes_on(expert: Path, tmp_path: Path) -> None:
    out = tmp_path / "reach"
    command = [sys.executable, "-m", "tutelage.experiments.data", "record", "--task", "reach"]
    command += ["--expert", str(expert), "--size", "16", "--num-envs", "4", "--chunk-frames", "8"]
    with subprocess.Popen([*command, "--out", str(out), "--frames", "1000000"]) as process:
        log = out / "commits.jsonl"
        deadline = time.monotonic() + 120
        while not (log.exists() and log.read_bytes().count(b"\n") >= 3):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    there = Dataset(out).steps
    assert there >= 6
    config = RecordConfig("reach", out, 4 * there + 1, expert, size=16, num_envs=4, chunk_frames=8)
    data(DataConfig(config))
    dataset = Dataset(out)
    assert dataset.steps == there + 2
    started = dataset.read(0, dataset.steps, ["started"])["started"]
    assert started[there].all()
    assert started[[0, there]].all()


def test_info(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data(DataConfig(InfoConfig(recorded)))
    lines = capsys.readouterr().out
    assert f"{recorded}: reach, looks: mild, beta 1.0, noise 0.0, seed 0" in lines
    assert "240 frames: 60 steps of 4 environments in 3 chunks; 4 episodes, 0.0 % of them successful" in lines
    data(DataConfig(InfoConfig(recorded, json=True)))
    found = json.loads(capsys.readouterr().out)
    stored = sum(path.stat().st_size for path in recorded.rglob("c.*"))
    # Bytes of a frame: two pictures in colour and two of depth, 15 + 21 numbers of views, 4 + 4 + 4 of
    # actions, the reward, 3 of the task in double precision, 5 flags.
    raw = 240 * (2 * 32 * 32 * (3 + 2) + 4 * (15 + 21 + 12 + 1) + 3 * 8 + 5)
    assert (found["stored_bytes"], found["compression"]) == (stored, pytest.approx(raw / stored))
    assert found["fields"]["task"] == {
        "shape": [3],
        "dtype": "float64",
        "stored_bytes": sum(path.stat().st_size for path in (recorded / "task").glob("c.*")),
        "raw_bytes": 240 * 24,
    }


def test_view(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheets" / "data.png"
    data(DataConfig(ViewConfig(recorded, out, envs=2, first=5, columns=4, scale=1)))
    sheet = np.asarray(Image.open(out))
    # Two environments, four pictures each, at steps 5, 17, 29, 41: an episode has 50.
    assert sheet.shape == (4 + 8 * (32 + 4 + 16), 4 + 4 * 36, 3)
    pictures = Dataset(recorded).read(17, 18, ["obs/front/rgb"])["obs/front/rgb"][0]
    np.testing.assert_array_equal(sheet[4 + 16 : 4 + 16 + 32, 4 + 36 : 4 + 36 + 32], pictures[0].numpy())
    with pytest.raises(ValueError, match="first from 0 to 59, not 2, 4 and 60"):
        data_sheet(Dataset(recorded), 2, 60, 4)


def test_train(recorded: Path, tmp_path: Path) -> None:
    config = TrainConfig(recorded, tmp_path, images=("wrist/rgb", "wrist/depth"), updates=3, episodes=4)
    assert data(DataConfig(config)) == 0
    student = VisionStudent.load(tmp_path / "student")
    assert (student.config.images, student.num_actions) == (("wrist/rgb", "wrist/depth"), 4)
    assert student.config.opponents
    assert (student.config.encoder, student.config.fusion, student.config.frames) == ("fast", "late", 1)
    assert student.predictor is not None
    assert int(student.predictor.seen) == 240
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["frames"], results["updates"], results["data_success"]) == (240, 3, 0.0)
    assert {"training_looks_success", "held_out_looks_success"} <= set(results)
    with pytest.raises(ValueError, match=r"'wrst/rgb'; did you mean 'wrist/rgb'"):
        data(DataConfig(replace(config, images=("wrst/rgb",), out=tmp_path / "other")))


def test_defaults_of_a_task_are_those_of_distill(recorded: Path, tmp_path: Path) -> None:
    assert recording._looks(RecordConfig("ball-balance", tmp_path)) == "mild"
    assert recording._looks(RecordConfig("reach", tmp_path)) == "strong"
    dataset = Dataset(recorded)
    dataset.metadata = {**dataset.metadata, "name": "ball-balance"}
    config = TrainConfig(recorded, tmp_path)
    made = cloned_student._new_student(config, dataset)
    assert (made.config.encoder, made.config.frames, made.config.predicts) == ("fine", 3, "privileged")
    made = cloned_student._new_student(replace(config, memory=8, predict=False), dataset)
    assert (made.config.frames, made.config.predicts) == (1, None)


@pytest.mark.parametrize(("looks", "augments"), [("mild", True), ("none", False)])
def test_pictures_of_fixed_looks_are_not_augmented(
    recorded: Path, tmp_path: Path, monkeypatch: Any, looks: str, augments: bool
) -> None:
    dataset = Dataset(recorded)
    dataset.metadata = {**dataset.metadata, "looks": looks}
    monkeypatch.setattr(cloned_student, "Dataset", lambda folder: dataset)
    found: list[bool] = []

    def spy(dataset: Dataset, student: VisionStudent, config: Any, *rest: Any) -> Any:
        found.append(config.learning.augmentation is not None)
        return DatasetCloning(dataset, student, config, *rest)

    monkeypatch.setattr(cloned_student, "DatasetCloning", spy)
    config = TrainConfig(recorded, tmp_path / "auto", updates=1, episodes=0)
    data(DataConfig(config))
    data(DataConfig(replace(config, out=tmp_path / "none", augment="none")))
    assert found == [augments, False]


def test_training_that_would_come_to_nothing_does_not_begin(
    recorded: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    config = TrainConfig(recorded, tmp_path / "out", updates=3, episodes=4)
    (tmp_path / "notes.txt").touch()
    for changes, message in [
        ({"out": recorded}, "holds something else"),
        ({"out": tmp_path}, r"holds something else \(notes.txt\); choose another --out"),
        ({"episodes": -1}, "episodes must not be negative"),
        ({"device": "cudda"}, "device"),
    ]:
        with pytest.raises((ValueError, RuntimeError), match=message):
            data(DataConfig(replace(config, **changes)))
    unnamed = Dataset(recorded)
    unnamed.metadata = {"task": "a.module:Task"}  # recorded without the command
    monkeypatch.setattr(cloned_student, "Dataset", lambda folder: unnamed)
    with pytest.raises(ValueError, match=r"no name, looks, cameras in its metadata.*--episodes 0"):
        data(DataConfig(config))
    assert not (tmp_path / "out").exists()
    assert not (recorded / "results.json").exists()


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_student(recorded: Path, tmp_path: Path) -> None:
    """Larger than the ring, so that frames are read while it learns; killed after a checkpoint in mid-run."""
    config = TrainConfig(recorded, tmp_path / "whole", updates=400, buffer_frames=120, episodes=0)
    data(DataConfig(config))
    script = (
        "import sys; from dataclasses import replace; from pathlib import Path;"
        "from tutelage.experiments.data import TrainConfig;"
        "from tutelage.experiments.trainings import cloned_student;"
        "cloned_student.SAVE_EVERY = 0.0;"
        "c = TrainConfig(Path(sys.argv[1]), Path(sys.argv[2]), updates=400, buffer_frames=120, episodes=0);"
        "cloned_student.train_on(c)"
    )
    killed = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", script, str(recorded), str(killed)]) as process:
        deadline = time.monotonic() + 120
        while not (killed / "checkpoints" / "checkpoint.json").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (killed / "student").exists()
    data(DataConfig(replace(config, out=killed)))
    students = [VisionStudent.load(tmp_path / name / "student").state_dict() for name in ("whole", "killed")]
    assert all(torch.equal(tensor, students[1][name]) for name, tensor in students[0].items())


def test_repair(expert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    out = tmp_path / "reach"
    data(DataConfig(replace(record_config(expert, out), size=16, obs="rgb")))
    (out / "action" / "c.1.0.0").unlink()
    monkeypatch.setattr(sys, "argv", ["tutelage", "data", "info", str(out)])
    with pytest.raises(SystemExit, match="2"):
        main()
    message = capsys.readouterr().err
    assert f"c.1.0.0 is missing; 40 of 60 steps of {out} are intact; `tutelage data repair {out}`" in message
    data(DataConfig(RepairConfig(out)))
    assert f"{out}: 40 steps kept, 20 set aside" in capsys.readouterr().out
    assert Dataset(out).steps == 40
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with pytest.raises(DatasetError, match="is no dataset of tutelage"):
        data(DataConfig(RepairConfig(foreign)))
    assert not list(foreign.iterdir())


def test_what_does_not_exist_is_refused(expert: Path, tmp_path: Path) -> None:
    config = record_config(expert, tmp_path / "out")
    for changes, message in [
        ({"task": "reech"}, "unknown batched task 'reech'; did you mean 'reach'"),
        ({"cameras": ("frnt",)}, "no camera 'frnt'; did you mean 'front'"),
        ({"beta": 0.5}, "with --beta 0.5 a student acts too; name its folder by --student"),
        ({"frames": 0}, "frames and chunk_frames must be at least 1"),
        ({"task": "ball-balance", "cameras": ("front",)}, r"the expert reads \(21,\) numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            data(DataConfig(replace(config, **changes)))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("[!.]*"))


def test_a_student_that_is_not_there_is_named_before_an_expert_is_trained(
    expert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    student = tmp_path / "nope"
    command = ["tutelage", "data", "record", "--task", "reach", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*command, "--student", str(student)])
    monkeypatch.setattr(recording, "train_expert", None)
    with pytest.raises(SystemExit, match="2"):
        main()
    message = capsys.readouterr().err
    assert message == (
        f"tutelage: there is no student at {student}: it has no student.json; name the folder that a student "
        "was saved to, such as OUT/student of `tutelage data train`\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_command_line() -> None:
    found = tyro.cli(DataConfig, args=["view", "runs/d", "--columns", "3"]).do
    assert found == ViewConfig(Path("runs/d"), columns=3)
    found = tyro.cli(DataConfig, args=["record", "--task", "reach", "--out", "d", "--beta", "0.5"]).do
    assert found == RecordConfig("reach", Path("d"), beta=0.5)

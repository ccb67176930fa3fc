"""`tutelage distill` from end to end on the smallest of budgets, and what it refuses before it begins."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.experiments import distill_run
from tutelage.experiments.distill import DistillConfig, checked, distill, read_results
from tutelage.experiments.folders import FolderError
from tutelage.students.vision_student import VisionStudent
from tutelage.teachers.experts import ExpertConfig, MLPExpert

FRAMES = 8 * 25 * 3  # three rounds of eight environments


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained expert for Reach."""
    config = ExpertConfig(view="privileged", num_obs=21, num_actions=4, hidden=(8,))
    generator = torch.Generator().manual_seed(0)
    sizes = {
        "0.weight": (8, 21),
        "0.bias": (8,),
        "2.weight": (4, 8),
        "2.bias": (4,),
    }
    tensors = {
        f"actor.layers.{name}": 0.3 * torch.randn(size, generator=generator) for name, size in sizes.items()
    }
    tensors |= {"actor.mean": torch.zeros(21), "actor.scale": torch.ones(21), "log_std": torch.zeros(4)}
    folder = tmp_path_factory.mktemp("expert")
    MLPExpert(config, tensors, {"seconds": 1.5, "steps": 100}).save(folder)
    return folder


@pytest.fixture(autouse=True)
def few_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learn next to nothing, at once."""
    whole = distill_run.method_config

    def part(config: DistillConfig) -> Any:
        settings = whole(config)
        learning = replace(settings.learning, batch_size=16, sequence_length=8, threads=1)
        few = {"updates": 2} if hasattr(settings, "updates") else {"rollout_steps": 25, "epochs": 1}
        return replace(settings, learning=learning, **few)

    monkeypatch.setattr(distill_run, "method_config", part)


@pytest.fixture
def config(expert: Path, tmp_path: Path) -> DistillConfig:
    return DistillConfig(
        "reach",
        expert=expert,
        out=tmp_path,
        cameras=("front",),
        size=32,
        num_envs=8,
        frames=FRAMES,
        episodes=6,
        evaluations=1,
    )


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return found | {tag: [] for tag in events.Tags()["images"]}


def test_a_run_from_end_to_end(config: DistillConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(replace(config, seeds=2)) == 0
    printed = capsys.readouterr().out
    for seed in (0, 1):
        folder = config.folder / f"seed-{seed}"
        results = read_results(folder)
        assert results["frames"] == results["queries"] == FRAMES
        assert results["updates"] == 3 * 2
        parts = [results[f"{part}_seconds"] for part in ("expert", "rollout", "learning", "evaluation")]
        assert results["total_seconds"] == pytest.approx(sum(parts))
        assert parts[0] == 0  # it was given
        student = VisionStudent.load(folder / "student")
        assert student.config.images == ("front/rgb",)
        assert student.config.fovy == 44  # of Reach's camera
        assert MLPExpert.load(folder / "expert").facts["steps"] == 100
        assert json.loads((folder / "config.json").read_text())["seed"] == seed
        logged = scalars(folder)
        assert logged["success/student"][-1] == (FRAMES, pytest.approx(results["held_out_success"]))
        assert {"success/expert", "success_by_second/student", "distillation/loss"} <= set(logged)
        assert {"student/sees_in_training", "student/sees_in_evaluation"} <= set(logged)
        assert "clip/expert_above_student" in logged
        assert {f"action_error/{joint}" for joint in ("yaw", "shoulder", "elbow", "wrist")} <= set(logged)
        assert [step for step, _ in logged["distillation/loss"]] == [200, 400, 600]
    assert "mean" in printed
    assert f"tensorboard --logdir {config.folder}" in printed


def test_finished_seeds_are_not_run_again(
    config: DistillConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(config, clips=False, evaluations=0)
    distill(config)
    first = read_results(config.folder / "seed-0")
    begun = []
    monkeypatch.setattr(distill_run.SeedRun, "run", lambda self: begun.append(self.seed), raising=True)
    distill(replace(config, seeds=2))
    assert begun == [1]
    assert distill(replace(config, workers=2, seeds=1)) == 0
    assert read_results(config.folder / "seed-0") == first
    assert "finished before" in capsys.readouterr().out
    with pytest.raises(FolderError, match="another configuration \\(different: loss\\)"):
        distill(replace(config, loss="mse"))


def test_same_seed_same_results(config: DistillConfig, tmp_path: Path) -> None:
    weights = []
    for out in ("a", "b"):
        again = replace(config, out=tmp_path / out, clips=False, evaluations=2 * (out == "b"))
        distill(again)
        weights.append(VisionStudent.load(again.folder / "seed-0" / "student").state_dict())
    for one, other in zip(weights[0].values(), weights[1].values(), strict=True):
        assert torch.equal(one, other)


def test_a_failed_seed_says_so_and_is_tried_again(
    config: DistillConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("no more memory")

    config = replace(config, clips=False, evaluations=0)
    with monkeypatch.context() as patch:
        patch.setattr(distill_run.SeedRun, "run", fail)
        with pytest.raises(RuntimeError, match="no more memory"):
            distill(config)
    status = json.loads((config.folder / "seed-0" / "status.json").read_text())
    assert status == {"state": "failed", "message": "RuntimeError: no more memory"}
    distill(config)
    assert read_results(config.folder / "seed-0")


@pytest.mark.parametrize("method", ["bc", "on-policy"])
def test_other_methods_and_pictures(method: str, config: DistillConfig) -> None:
    config = replace(
        config, method=method, obs="rgbd", memory=4, cameras=("front", "wrist"), augment="shift", loss="kl"
    )
    assert distill(replace(config, head="gaussian", looks="mild")) == 0
    student = VisionStudent.load(config.folder / "seed-0" / "student")
    assert student.config.images == ("front/rgb", "front/depth", "wrist/rgb", "wrist/depth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "reech"}, "unknown batched task 'reech'; did you mean 'reach'"),
        ({"method": "dager"}, "unknown method 'dager'; did you mean 'dagger'"),
        ({"obs": "rbgd"}, "unknown obs 'rbgd'; did you mean 'rgbd'"),
        ({"cameras": ("frnt",)}, "no camera 'frnt'; did you mean 'front'"),
        ({"loss": "huuber"}, "unknown loss 'huuber'; did you mean 'huber'"),
        ({"encoder": "fasst"}, "'fasst'; did you mean 'fast'"),
        ({"encoder": "nature"}, "NatureCNN needs images of at least 36 x 36"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"frames": -5}, "a budget needs frames or seconds above 0"),
        ({"task": "ball-balance"}, r"the expert reads \(21,\) numbers in the view 'privileged'"),
        ({"expert": Path("nowhere")}, "nowhere"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_begins(
    changes: dict[str, Any], message: str, config: DistillConfig, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        distill(replace(config, **changes))
    assert not list(tmp_path.iterdir())


def test_points_of_depth(config: DistillConfig) -> None:
    assert distill(replace(config, obs="depth", encoder="points", evaluations=0, augment="none")) == 0
    logged = scalars(config.folder / "seed-0")
    assert "clip/expert_above_student" in logged  # in RGB, though the student sees depth alone


def test_defaults_of_a_task() -> None:
    reach = checked(DistillConfig("reach", num_envs=2))
    assert (reach.cameras, reach.stack) == (("front", "wrist"), 1)
    ball = checked(DistillConfig("ball-balance"))
    assert (ball.cameras, ball.stack) == (("front",), 3)
    assert checked(DistillConfig("ball-balance", memory=64)).stack == 1
    assert DistillConfig("reach", seconds=60.0).budget == {"frames": None, "seconds": 60.0}
    quick, standard = (DistillConfig("reach", preset=name).budget["frames"] for name in ("quick", "standard"))
    assert standard == 8 * quick

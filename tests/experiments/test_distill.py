"""One cell of `tutelage distill` on the smallest of budgets, and what the command refuses at once."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tutelage.experiments.distill import DistillConfig, distill, make_task, only
from tutelage.experiments.runs.locking import FolderError
from tutelage.experiments.trainings import distilled_student
from tutelage.experiments.trainings.distill_checks import checked
from tutelage.experiments.trainings.distill_grid import DistillGrid
from tutelage.experiments.trainings.distill_presets import PRESETS, on_the_way, test_sets
from tutelage.experiments.trainings.distilled_student import distil_student, make_student, method_settings
from tutelage.experiments.trainings.expert import make_expert
from tutelage.students.distillation.machinery.registry import METHODS, method_card
from tutelage.students.sb3.presets import student_preset
from tutelage.students.vision.aligned_student import AlignedStudent, load_vision_student
from tutelage.teachers.experts.mlp_expert import MLPExpert

test_sets.__test__ = False  # type: ignore[attr-defined]  # a name of the domain, not a test

FRAMES = 8 * 25 * 3  # three rounds of eight environments


@pytest.fixture(autouse=True)
def few_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learn next to nothing, at once."""
    whole = distilled_student.method_settings

    def part(config: DistillConfig, method: str) -> Any:
        settings = whole(config, method)
        learning = replace(settings.learning, batch_size=16, sequence_length=8)
        few = {"updates": 2} if hasattr(settings, "updates") else {}
        if method == "on-policy":
            few = {"rollout_steps": 25, "epochs": 1}
        return replace(settings, learning=learning, **few)

    monkeypatch.setattr(distilled_student, "method_settings", part)


@pytest.fixture
def config(reach_expert: Path, tmp_path: Path) -> DistillConfig:
    return DistillConfig(
        "reach",
        expert=reach_expert,
        out=tmp_path,
        cameras=("front",),
        size=16,
        num_envs=8,
        frames=FRAMES,
        episodes=4,
        evaluations=2,
        workers=2,
        clips=False,
    )


def run(config: DistillConfig, method: str = "dagger", seed: int = 0) -> Path:
    """Make the expert of a seed and run a cell in this process; return its folder."""
    config = checked(replace(config, method=(method,)))
    values = {"config": only(config, method).to_json(), "seed": seed}
    if method_card(method).expert != "nothing":
        make_expert(values, config.folder / f"experts/seed-{seed}")
    folder = config.folder / method / f"seed-{seed}"
    distil_student(values, folder)
    return folder


def read_results(folder: Path) -> dict[str, Any]:
    """``results.json`` of a cell that has finished."""
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars by tag; images are there without any."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return found | {tag: [] for tag in events.Tags()["images"]}


def test_a_cell_from_end_to_end(config: DistillConfig) -> None:
    folder = run(replace(config, clips=True, saliency=True))
    results = read_results(folder)
    assert results["frames"] == results["queries"] == FRAMES
    assert results["updates"] == 3 * 2
    assert (results["expert_steps"], results["environment_steps"]) == (0, FRAMES)  # the expert was given
    parts = [results[f"{part}_seconds"] for part in ("expert", "rollout", "learning", "evaluation")]
    assert results["total_seconds"] == pytest.approx(sum(parts))
    assert parts[0] == 0
    sets = {"held-out looks", "training looks", "looks beyond"}
    assert set(results["success"]) == set(results["expert_success"]) == sets
    assert set(results["action_error"]) == {"yaw", "shoulder", "elbow", "wrist"}
    student = load_vision_student(folder / "student")
    assert (student.config.images, student.config.opponents) == (("front/rgb",), True)
    assert student.config.fovy == 44  # of Reach's camera
    assert MLPExpert.load(config.folder / "experts/seed-0").facts["steps"] == 100
    assert json.loads((folder / "config.json").read_text())["method"] == "dagger"
    assert not (folder / "checkpoints").exists()
    names = {path.stem for path in (folder / "pictures").iterdir()}
    assert names == sets | {"training", "saliency", "beside what the expert knows"}

    tags = logged(folder)
    assert [step for step, _ in tags["distillation/loss"]] == [200, 400, 600]
    assert tags["cost/environment_steps"][-1] == (FRAMES, FRAMES)
    # due at 0 and 1/2 of the budget, hence after rounds 1 and 2, and at the end
    assert [step for step, _ in tags["success_on_held-out_looks/student"]] == [200, 400, 600]
    assert tags["success_on_held-out_looks/student"][-1][1] == results["success"]["held-out looks"]
    assert {"student/sees/held-out", "student/sees/beside_what_the_expert_knows"} <= set(tags)
    assert {"clip/expert_above_student", "student/sees/saliency", "action_error/elbow"} <= set(tags)
    assert "success_on_held-out_looks/student_by_second" in logged(folder / "by_second")


def test_same_seed_same_student(config: DistillConfig, tmp_path: Path) -> None:
    weights = []
    for out, evaluations in (("a", 0), ("b", 2)):
        folder = run(replace(config, out=tmp_path / out, evaluations=evaluations))
        weights.append(load_vision_student(folder / "student").state_dict())
    for one, other in zip(weights[0].values(), weights[1].values(), strict=True):
        assert torch.equal(one, other)


def test_methods_without_an_expert_need_none(config: DistillConfig) -> None:
    results = read_results(run(replace(config, frames=200, evaluations=0), "pixels-ppo"))
    assert not (config.folder / "experts").exists()
    assert results["queries"] == results["expert_steps"] == results["expert_seconds"] == 0
    assert results["share_of_expert"] is results["action_error"] is None


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name != "dagger"]
)
def test_every_method_fills_a_cell(method: str, config: DistillConfig) -> None:
    folder = run(replace(config, evaluations=0), method)
    results, card = read_results(folder), method_card(method)
    assert FRAMES <= results["frames"] < 2 * FRAMES
    assert (results["queries"] > 0) == (card.expert == "labels")
    student = load_vision_student(folder / "student")
    assert isinstance(student, AlignedStudent) == card.aligned
    assert (student.critic is not None) == (card.critic is not None)


def test_every_method_can_be_made(config: DistillConfig) -> None:
    names = tuple(METHODS)
    assert checked(replace(config, method=names, workers=1)).method == names


def test_other_pictures(config: DistillConfig) -> None:
    config = replace(config, obs="rgbd", memory=4, cameras=("front", "wrist"), augment="shift", loss="kl")
    config = replace(config, opponents=False, looks="mild", head="gaussian", evaluations=0)
    folder = run(config, "on-policy")
    student = load_vision_student(folder / "student")
    assert student.config.images == ("front/rgb", "front/depth", "wrist/rgb", "wrist/depth")
    assert not student.config.opponents


def test_points_of_depth_and_clips_in_rgb(config: DistillConfig) -> None:
    config = replace(config, obs="depth", encoder="points", evaluations=0, augment="none", clips=True)
    assert "clip/expert_above_student" in logged(run(replace(config, frames=200, saliency=True)))


def test_an_expert_plays_the_same_episodes_without_pictures(config: DistillConfig) -> None:
    config, views = checked(config), []
    for looks, pictures in (("none", False), ("held-out", True)):
        task = make_task(config, 3, looks, 0, pictures=pictures)
        tasks = task.task_space.sample(np.random.default_rng(0), 3)
        views.append(task.start([0, 1, 2], tasks, [5, 6, 7])["privileged"])
        task.close()
    assert torch.equal(*views)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "reech"}, "unknown batched task 'reech'; did you mean 'reach'"),
        ({"method": ("dagger", "kickstartin")}, "unknown method 'kickstartin'; did you mean 'kickstarting'"),
        ({"method": ("bc", "bc")}, "--method names one twice: bc bc"),
        ({"method": ()}, "name at least one method"),
        ({"method": ("bc",), "baseline": "dager"}, "unknown baseline 'dager'; did you mean 'dagger'"),
        ({"method": ("aacd",), "head": "deterministic"}, "aacd draws actions: it needs --head gaussian"),
        ({"obs": "rbgd"}, "unknown obs 'rbgd'; did you mean 'rgbd'"),
        ({"cameras": ("frnt",)}, "no camera 'frnt'; did you mean 'front'"),
        ({"loss": "huuber"}, "unknown loss 'huuber'; did you mean 'huber'"),
        ({"encoder": "fasst"}, "'fasst'; did you mean 'fast'"),
        ({"encoder": "nature"}, "NatureCNN needs images of at least 36 x 36"),
        (
            {"method": ("dagger", "kickstarting"), "expert": None, "augment": "shift", "stack": 3},
            "use single frames and no memory, or no augmentation",
        ),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"frames": -5}, "a budget needs frames or seconds above 0"),
        ({"seconds": 0.0}, "a budget needs frames or seconds above 0"),
        ({"seconds": math.nan}, "seconds must be a finite number, not nan"),
        ({"stack": 0}, "stack must be at least 1, not 0"),
        ({"expert_steps": 0}, "expert_steps must be at least 1, not 0"),
        ({"expert_success": 98.0}, "expert_success is a share, above 0 and up to 1, not 98"),
        ({"checkpoint_every": math.nan}, "checkpoint_every must not be negative, but is nan"),
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


def test_an_expert_without_a_critic_is_refused_where_one_is_needed(
    config: DistillConfig, reach_expert: Path, tmp_path: Path
) -> None:
    expert = MLPExpert.load(reach_expert)
    blind = replace(expert.config, critic_view=None, num_states=0, critic_hidden=())
    tensors = {k: v for k, v in expert.state_dict().items() if not k.startswith("critic")}
    MLPExpert(blind, tensors).save(tmp_path / "blind")
    with pytest.raises(ValueError, match="critic"):
        checked(replace(config, method=("aacd",), expert=tmp_path / "blind"))
    checked(replace(config, method=("dagger",), expert=tmp_path / "blind"))


def test_presets_and_defaults_of_a_task() -> None:
    reach = checked(DistillConfig("reach", num_envs=2))
    assert (reach.cameras, reach.stack, reach.frames) == (("front", "wrist"), 1, 80_000)
    assert (reach.encoder, reach.looks) == ("fast", "strong")
    assert (reach.seeds, reach.evaluations, reach.episodes) == (1, 4, 256)
    ball = checked(DistillConfig("ball-balance", memory=64, preset="standard", seeds=2))
    assert (ball.cameras, ball.stack, ball.seeds) == (("front",), 1, 2)
    assert (ball.encoder, ball.looks) == ("fine", "mild")
    assert checked(DistillConfig("ball-balance", looks="none", encoder="fast")).looks == "none"
    assert ball.frames == 8 * 64_000
    assert list(DistillConfig("reach", preset="paper", first_seed=3).seed_numbers) == [*range(3, 13)]
    assert PRESETS["paper"].scale > PRESETS["standard"].scale > PRESETS["quick"].scale == 1
    timed = checked(DistillConfig("reach", seconds=60.0, num_envs=2))
    assert timed.budget == {"frames": None, "seconds": 60.0}
    assert checked(DistillConfig.from_json(timed.to_json())) == timed


def test_what_follows_from_task_and_looks() -> None:
    """Without an expert that tells, PPO discounts as the task's experts do; looks that are fixed stay so."""
    fixed = checked(DistillConfig("reach", looks="none"))
    assert (
        method_settings(fixed, "pixels-ppo").ppo.gamma
        == student_preset("reach", "ppo").kwargs["gamma"]
        == 0.95
    )
    assert method_settings(fixed, "aacd").ppo.gamma is None  # the expert's
    assert method_settings(fixed, "dagger").learning.augmentation is None
    assert method_settings(checked(DistillConfig("reach")), "dagger").learning.augmentation is not None
    assert method_settings(checked(DistillConfig("reach")), "pixels-ppo").learning.augmentation is None


def test_who_predicts_what_the_expert_knows() -> None:
    """Students that learn from labels by the shared loss, unless told not to."""
    config = checked(DistillConfig("reach", size=16, num_envs=1))
    task = make_task(config, 1, "none", 0)
    predicts = {
        method: make_student(config, method, task, None, 0).config.predicts
        for method in METHODS
        if not method_card(method).aligned
    }
    labelled = {"dagger", "bc", "on-policy", "dagger-value", "distil-then-rl"}
    assert predicts == {name: "privileged" if name in labelled else None for name in predicts}
    silent = replace(config, predict=False)
    assert make_student(silent, "dagger", task, None, 0).config.predicts is None
    task.close()


def test_objects_that_no_training_shows() -> None:
    assert on_the_way("reach", "mild") == ("training looks",)
    assert on_the_way("reach", "strong") == ("held-out looks",)
    assert on_the_way("lift-object", "strong") == ("held-out looks", "held-out objects")
    assert on_the_way("lift-object", "none") == ("training looks", "held-out objects")
    assert list(test_sets("lift-object", "none").items()) == [
        ("training looks", ("none", False)),
        ("held-out objects", ("none", True)),
        ("held-out looks", ("held-out", False)),
    ]
    assert list(test_sets("lift-object", "mild").items()) == [
        ("training looks", ("mild", False)),
        ("held-out objects", ("mild", True)),
        ("held-out looks", ("held-out", False)),
    ]
    assert list(test_sets("lift-object", "strong").items()) == [
        ("held-out looks", ("held-out", False)),
        ("held-out objects", ("held-out", True)),
        ("training looks", ("strong", False)),
        ("looks beyond", ("beyond", False)),
    ]
    config = checked(DistillConfig("lift-object", size=16))
    tasks = [make_task(config, 1, "held-out", 0, held_out=held_out) for held_out in (False, True)]
    assert not {*tasks[0].families} & {*tasks[1].families}  # type: ignore[attr-defined]
    for task in tasks:
        task.close()


def test_a_folder_of_other_settings_is_refused(config: DistillConfig) -> None:
    config = replace(config, frames=200, evaluations=0)
    folder = run(config)
    before = (folder / "results.json").stat().st_mtime_ns
    run(replace(config, threads=2, workers=1, preset="paper", seeds=3))  # decide nothing
    assert (folder / "results.json").stat().st_mtime_ns == before
    with pytest.raises(FolderError, match="another configuration \\(different: loss\\)"):
        DistillGrid(checked(replace(config, loss="mse")), "tutelage distill")
    with pytest.raises(FolderError, match="another configuration \\(different: episodes\\)"):
        run(replace(config, episodes=5))


def test_a_folder_has_one_list_of_test_sets(config: DistillConfig) -> None:
    """An expert is shared by all methods of a seed, with its success on each."""

    def grid(looks: Any, method: str) -> DistillGrid:
        changed = checked(replace(config, looks=looks, method=(method,)))
        return DistillGrid(changed, "tutelage distill")

    assert grid("none", "dagger").description["test_sets"] == ["training looks", "held-out looks"]
    message = "is tested on training looks, held-out looks, and with --looks strong that would be held-out"
    with pytest.raises(FolderError, match=message):
        grid("strong", "bc")
    with pytest.raises(FolderError, match="looks that are called none, not mild; add --looks none"):
        grid("mild", "bc")
    grid("none", "bc")


def test_a_cell_of_fixed_looks(config: DistillConfig) -> None:
    folder = run(replace(config, looks="none", frames=200, saliency=True, clips=True))
    results = read_results(folder)
    assert list(results["success"]) == list(results["expert_success"]) == ["training looks", "held-out looks"]
    tags = logged(folder)
    assert [step for step, _ in tags["success_on_training_looks/student"]] == [200]
    assert {"student/sees/training", "student/sees/saliency", "clip/expert_above_student"} <= set(tags)
    scores = json.loads((folder / "status.json").read_text())["scores"]
    assert scores == [[200, pytest.approx(100 * results["success"]["training looks"])]]


def test_settings_of_methods_and_sweeps(config: DistillConfig) -> None:
    """A sweep makes a member for each value; a setting of one method leaves the others' cells as they are."""
    plain = checked(replace(config, method=("dagger", "bc")))
    swept = checked(replace(plain, set=("dagger.beta-end=0,0.5", "dagger.rollout-steps=10")))
    assert swept.method == ("dagger:beta-end=0.0", "dagger:beta-end=0.5", "bc")
    settings = [distilled_student.method_settings(swept, name) for name in swept.method[:2]]
    assert [(s.beta_end, s.rollout_steps) for s in settings] == [(0.0, 10), (0.5, 10)]
    own = only(swept, "dagger:beta-end=0.5")
    assert own.set == ("dagger.beta-end=0.5", "dagger.rollout-steps=10")
    assert distilled_student.method_settings(own, "dagger:beta-end=0.5") == settings[1]
    assert DistillConfig.from_json(own.to_json()) == own
    described = distilled_student.cell_description(swept, "bc", 0)
    assert described == distilled_student.cell_description(plain, "bc", 0)
    assert "set" not in described
    for wrong, message in {
        "dagger.beta-ennd=0": "beta-ennd.*did you mean 'beta-end'",
        "dagger.budget=3": "use --frames or --seconds",
        "kickstarting.clip=1": "kickstarting",
    }.items():
        with pytest.raises(ValueError, match=message):
            checked(replace(config, set=(wrong,)))

"""`tutelage specialists` from end to end on the smallest of budgets; what is there is not made again."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tutelage.envs.batched.worlds.object_tasks import ObjectTasks
from tutelage.envs.batched.worlds.reach import Reach
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.experiments.runs.locking import FolderError
from tutelage.experiments.specialists import SpecialistsConfig, results_table, specialists
from tutelage.experiments.trainings import specialists as training
from tutelage.experiments.trainings.specialists import make_task, route, train_specialists
from tutelage.experiments.trainings.task_clusters import OneCluster, TaskClusters
from tutelage.students.distillation.state_distillation import StateDaggerConfig
from tutelage.students.experts.expert_training import train_expert
from tutelage.students.vision.vision_student import VisionStudent
from tutelage.teachers.experts.expert_router import ExpertRouter
from tutelage.teachers.experts.mlp_expert import MLPExpert

LINE = BoxTasks({"place": (0.0, 10.0)})
PAIR = TaskClusters(np.array([0.0]), np.array([1.0]), np.array([[0.2], [0.6]]))  # of the unit cube


class TestClusters:
    def test_the_nearest_centre_by_hand(self) -> None:
        tasks = np.array([[0.0], [3.9], [4.1], [10.0]])  # the middle between the centres, 2 and 6, is 4
        assert PAIR.of(LINE, tasks).tolist() == [0, 0, 1, 1]
        assert PAIR.rule(LINE)(torch.from_numpy(tasks)).tolist() == [0, 0, 1, 1]
        again = TaskClusters(**{k: np.array(v) for k, v in json.loads(json.dumps(PAIR.to_json())).items()})
        np.testing.assert_array_equal(again.of(LINE, tasks), [0, 0, 1, 1])

    def test_they_repeat_and_part_objects_by_shape(self) -> None:
        space = ObjectTasks(("box", "mug", "tee", "cylinder"))
        first, again = (TaskClusters.fit(space, 6, 500, seed=3) for _ in range(2))
        np.testing.assert_array_equal(first.centres, again.centres)
        # A shape beyond all others: mugs, which alone have a handle, are not shared among all clusters.
        tasks = space.sample(np.random.default_rng(0), 400)
        found = first.of(space, tasks)
        assert len(set(found.tolist())) == 6
        mugs = np.floor(tasks[:, 0]) == 1
        shares = np.array([mugs[found == cluster].mean() for cluster in range(6)])
        assert shares.max() > 0.7
        assert shares.min() < 0.05
        # held-out objects are of the cluster whose shape is nearest
        assert set(first.of(ObjectTasks(("bottle",)), tasks[tasks[:, 0] < 1]).tolist()) <= set(range(6))

    def test_one_cluster_proposes_all_of_its_tasks_and_no_other(self) -> None:
        one, many = (OneCluster(LINE, np.random.default_rng(0), PAIR, 1) for _ in range(2))
        tasks = one.propose(3000)
        assert tasks.min() == pytest.approx(4.0, abs=0.05)
        assert tasks.max() == pytest.approx(10.0, abs=0.05)
        np.testing.assert_array_equal(np.concatenate([many.propose(n) for n in (1, 999, 2000)]), tasks)
        assert tasks.mean() == pytest.approx(7.0, abs=4 * 6 / 12**0.5 / 3000**0.5)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Reach, with the smallest of distillations, and held-out tasks; names of what is trained."""
    calls: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        whole = getattr(training, name)

        def run(*args: Any, **options: Any) -> Any:
            calls.append(name)
            return whole(*args, **options)

        return run

    for name in ("ExpertTraining", "distil_state", "evaluate_student"):
        monkeypatch.setattr(training, name, counted(name))
    monkeypatch.setattr(training, "ENVIRONMENTS", 20)
    monkeypatch.setattr(training, "SEEN_AT_ONCE", 16)
    monkeypatch.setattr(training, "FEWEST", 5)
    noisy = {"view_noise": {"privileged": 0.1}}
    monkeypatch.setattr(Reach, "recipe", replace(Reach.recipe, held_out=noisy))
    monkeypatch.setattr(
        training,
        "StateDaggerConfig",
        lambda frames: StateDaggerConfig(frames=frames, rollout_steps=10, updates=3, batch_size=32),
    )
    return calls


@pytest.fixture
def config(tmp_path: Path) -> SpecialistsConfig:
    return SpecialistsConfig(
        "reach",
        out=tmp_path / "runs",
        clusters=2,
        iterations=2,
        generalist_steps=3200,
        specialist_steps=3200,
        distil_frames=600,
        sampled_tasks=200,
        episodes=20,
    )


def run(config: SpecialistsConfig) -> None:
    """Seed 0 in this process."""
    values = {"config": config.filled().to_json(), "seed": 0}
    train_specialists(values, config.folder / "seed-0")


def read(config: SpecialistsConfig) -> dict[str, Any]:
    """The results of seed 0."""
    results: dict[str, Any] = json.loads((config.folder / "seed-0" / "results.json").read_text())
    return results


def curves(config: SpecialistsConfig, key: str) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of the success of seed 0 on a kind of tasks: stage -> steps and values."""
    events = EventAccumulator(str(config.folder / "seed-0"), {"scalars": 0}).Reload()
    tag = f"success_on_{key}_tasks/"
    return {
        name.removeprefix(tag): [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
        if name.startswith(tag)
    }


def check_curves(config: SpecialistsConfig, results: dict[str, Any]) -> None:
    """Every stage has a line that begins with the generalist; each point is there once."""
    for kind in ("training", "held_out"):
        points = {
            arm: (found["steps"], pytest.approx(found[kind]["success"]))
            for arm, found in results["arms"].items()
        }
        first = points["generalist"]
        assert curves(config, kind) == {
            "generalist": [first],
            "specialists": [first, points["specialists-0"], points["specialists"]],
            "distilled": [first, points["distilled-0"], points["distilled"]],
            "continued": [first, points["continued"]],
        }


def test_from_end_to_end(
    config: SpecialistsConfig, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(config)
    folder = config.folder / "seed-0"
    results = json.loads((folder / "results.json").read_text())
    # generalist, 2 x 2 specialists, the generalist trained on; two distillations; 6 arms, each on both tasks
    assert [made.count(name) for name in ("ExpertTraining", "distil_state", "evaluate_student")] == [6, 2, 12]
    steps = {arm: found["steps"] for arm, found in results["arms"].items()}
    assert steps == {
        "generalist": 0,
        "specialists-0": 6400,
        "distilled-0": 7000,
        "specialists": 13400,
        "distilled": 14000,
        "continued": 14000,
    }
    for found in results["arms"].values():
        for kind in ("training", "held_out"):
            part = found[kind]
            told = [value for value in part["clusters"] if value is not None]
            assert len(part["clusters"]) == 2
            assert part["worst_cluster"] == min(told) <= part["success"] <= max(told)
    continued = MLPExpert.load(folder / "continued")
    assert continued.facts["steps"] == 16_000  # 14,000 in whole roll-outs of 3200
    assert "distilled-1: training" in capsys.readouterr().out
    check_curves(config, results)

    made.clear()
    run(config)
    assert made == []
    assert json.loads((folder / "results.json").read_text()) == results

    # What a killed run lacks is made again, and is the same; what it has is left as it is.
    weights = (folder / "distilled-1" / "expert.safetensors").read_bytes()
    shutil.rmtree(folder / "distilled-1")
    (folder / "evaluations" / "distilled-1.json").unlink()
    run(config)
    assert made == ["distil_state", "evaluate_student", "evaluate_student"]
    assert (folder / "distilled-1" / "expert.safetensors").read_bytes() == weights
    check_curves(config, results)
    assert json.loads((folder / "results.json").read_text()) == results

    with pytest.raises(FolderError, match="specialist_steps"):
        run(replace(config, specialist_steps=9600))


def test_a_given_generalist_and_a_vision_student(
    config: SpecialistsConfig, made: list[str], tmp_path: Path
) -> None:
    untrained = train_expert("reach", seed=0, steps=1)
    untrained.save(tmp_path / "given")
    given = replace(config, iterations=1, clusters=1, generalist=tmp_path / "given")
    run(given)
    assert made.count("ExpertTraining") == 2
    before = read(given)
    first = MLPExpert.load(given.folder / "seed-0" / "generalist")
    assert all(torch.equal(t, untrained.state_dict()[name]) for name, t in first.state_dict().items())

    made.clear()
    run(replace(given, vision_frames=160))
    assert made == ["evaluate_student"] * 2
    assert before["arms"].items() < read(given)["arms"].items()
    vision = read(given)["arms"]["vision"]
    assert vision["steps"] == before["arms"]["distilled"]["steps"] + 160
    point = (vision["steps"], pytest.approx(vision["training"]["success"]))
    assert curves(given, "training")["vision"] == [point]
    student = VisionStudent.load(given.folder / "seed-0" / "vision")
    assert (student.config.images, student.config.opponents) == (("front/rgb", "wrist/rgb"), True)

    # More episodes measure all arms anew, the student that sees too, and train nothing.
    made.clear()
    run(replace(given, vision_frames=160, episodes=30))
    arms = read(given)["arms"]
    assert made == ["evaluate_student"] * 2 * len(arms)
    assert {arm["episodes"] for arm in arms.values()} == {30}


def test_the_router_asks_the_specialist_of_the_task() -> None:
    task = make_task(SpecialistsConfig("reach"), 6, seed=0)
    clusters = TaskClusters.fit(task.task_space, 2, 100, 0)

    class Says:
        view, num_actions, queries = "policy", 4, 0

        def __init__(self, value: float) -> None:
            self.value = value

        def advise(self, obs_dict: Any) -> Any:
            from tutelage.teachers.experts.mlp_expert import Advice

            n = len(obs_dict["policy"])
            return Advice(torch.full((n, 4), self.value), torch.ones(n, 4), None)

    router: ExpertRouter = route([Says(0.0), Says(1.0)], clusters, task)  # type: ignore[list-item]
    expected = clusters.of(task.task_space, task.tasks.numpy())
    assert router.advise(task.obs_dict).mean[:, 0].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "lift-objekt"}, "did you mean 'lift-object'"),
        ({"task_teacher": "alp-gm"}, "did you mean 'alp-gmm'"),
        ({"task_teacher": "oracle"}, "needs no knowledge"),
        ({"clusters": 0}, "clusters must be above 0"),
        ({"sampled_tasks": 1, "clusters": 2}, "1 sampled_tasks make no 2 clusters"),
        ({"vision_frames": -1}, "must not be negative"),
        ({"generalist": Path("nowhere")}, "there is no expert at nowhere"),
    ],
)
def test_mistakes_are_named_before_anything_is_made(
    config: SpecialistsConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        specialists(replace(config, **changes))
    assert not config.folder.exists()


def test_the_table_has_means_and_ranges() -> None:
    def result(success: float) -> dict[str, Any]:
        part = {"success": success, "worst_cluster": success / 2, "clusters": []}
        return {"arms": {"generalist": {"training": part, "held_out": {}, "steps": 0}}}

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results_table(SpecialistsConfig().filled(), [(0, result(0.5)), (1, result(0.7))]))
    text = console.export_text()
    assert "60.0 (50.0 to 70.0)" in text
    assert "30.0 (25.0 to 35.0)" in text


def test_presets_fill_in_what_is_not_given() -> None:
    config = SpecialistsConfig(preset="standard", clusters=3).filled()
    assert (config.clusters, config.iterations, config.distil_frames) == (3, 2, 400_000)

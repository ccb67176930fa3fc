"""A student that is cloned from a dataset alone: the training of `tutelage data train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from tutelage.envs.batched.worlds.catalogue import VEC_TASKS, vec_task_class, vec_task_recipe
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.recipe import WorldRecipe
from tutelage.envs.contract.state import StateDict
from tutelage.experiments.runs.cell import run_cell
from tutelage.experiments.runs.records import read_json
from tutelage.experiments.runs.report import Report
from tutelage.experiments.runs.training import Costs, PlayTestSet, Progress, Results
from tutelage.experiments.trainings.distilled_student import AUGMENTATIONS
from tutelage.experiments.trainings.expert import EVALUATION_SEED
from tutelage.experiments.trainings.recording import make_task
from tutelage.students.datasets.dataset import Dataset
from tutelage.students.datasets.dataset_cloning import CloningConfig, DatasetCloning
from tutelage.students.datasets.dataset_recording import VIEWS
from tutelage.students.distillation.machinery.checkpoint import load_checkpoint, read_beside, save_checkpoint
from tutelage.students.distillation.machinery.evaluation import evaluate_student
from tutelage.students.distillation.machinery.learner import LABEL, LearningConfig
from tutelage.students.distillation.machinery.progress import DistillationProgress
from tutelage.students.vision.vision_config import VisionConfig
from tutelage.students.vision.vision_student import VisionStudent

if TYPE_CHECKING:
    from pathlib import Path

    from tutelage.experiments.data import TrainConfig

SAVE_EVERY = 60.0  # seconds between checkpoints
UNDECISIVE = ("episodes", "out")
LOOKS = ("training", "held-out")
"""Test sets: in the looks of the data, and in others."""


def train_on(config: TrainConfig) -> dict[str, Any]:
    """Train a student from a dataset, save and evaluate it; return what is in results.json.

    A killed run goes on from its last checkpoint; a finished one is not made again.

    Raises:
        ValueError: when the dataset lacks a picture that was asked for; names the nearest. When `out` holds
            something else, or the task of the dataset cannot be made to evaluate the student.
        FolderError: when `out` is in use, or was made with other options.
        DatasetError: when it is damaged.
    """
    dataset = Dataset(config.data)
    _check_training(config, dataset)
    description = {name: _plain(value) for name, value in asdict(config).items() if name not in UNDECISIVE}
    run_cell(lambda: ClonedStudent(config, dataset), description, config.out, save_every=SAVE_EVERY)
    results = read_json(config.out / "results.json")
    for name, value in results.items():
        print(f"{name}: {value:,.4g}" if isinstance(value, float) else f"{name}: {value}")
    return results


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


class ClonedStudent:
    """A student of a dataset; a `tutelage.experiments.runs.training.Training` whose steps are gradient steps.

    Args:
        config: of the command.
        dataset: what it learns from.
    """

    evaluates_untrained = False
    evaluations: Sequence[float] = (1.0,)

    def __init__(self, config: TrainConfig, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        augment: str = config.augment
        if augment == "auto":
            augment = "none" if dataset.metadata.get("looks") == "none" else "strong"
        learning = LearningConfig(loss=config.loss, augmentation=AUGMENTATIONS[augment])
        settings = CloningConfig(config.updates, None, learning, buffer_frames=config.buffer_frames)
        self.student = _new_student(config, dataset)
        self.cloning = DatasetCloning(dataset, self.student, settings, config.seed)
        self.costs = Costs()
        self._success: dict[str, float] = {}

    @property
    def step(self) -> int:
        """Gradient steps so far."""
        return self.cloning.counts.updates

    @property
    def spent(self) -> float:
        """The share of the gradient steps that is done."""
        return self.cloning.spent

    @property
    def progress(self) -> Progress:
        """Gradient steps."""
        return Progress(self.step, self.config.updates, "updates")

    def hyperparameters(self) -> Mapping[str, bool | int | float | str]:
        """What distinguishes it."""
        values = {name: _plain(value) for name, value in asdict(self.config).items()}
        return {name: value for name, value in values.items() if isinstance(value, int | float | str)}

    def advance(self, until: float, report: Report) -> None:
        """Learn, round by round."""

        def on_progress(progress: DistillationProgress) -> bool:
            self.costs.seconds |= {
                "reading": self.cloning.counts.seconds["rollout"],
                "learning": self.cloning.counts.seconds["learning"],
            }
            values = {
                "distillation/loss": progress.loss,
                "distillation/learning_rate": progress.learning_rate,
                "rates/trained_frames_per_second": progress.trained_per_second,
                "cost/seconds": progress.seconds,
                "cost/frames": float(progress.frames),
            }
            report.scalars(values, progress.updates)
            report.progress(True)
            return self.spent < until

        self.cloning.run(on_progress)

    def test_sets(self, at_end: bool) -> Sequence[str]:
        """Looks of the data and others; none without episodes."""
        return LOOKS if self.config.episodes else ()

    def policies(self) -> Mapping[str, PlayTestSet]:
        """The student, deterministic, on the task of the dataset."""

        def play(name: str, at_end: bool) -> Episodes:
            metadata = self.dataset.metadata
            task = make_task(
                metadata["name"],
                min(self.config.episodes, self.dataset.num_envs),
                metadata["looks"] if name == "training" else name,
                self.config.seed,
                metadata["cameras"],
                self.config.device,
            )
            try:
                return evaluate_student(task, self.student, self.config.episodes, EVALUATION_SEED)
            finally:
                task.close()

        return {"student": play}

    def scores(self, results: Mapping[str, Episodes]) -> Mapping[str, float]:
        """Success in each kind of looks."""
        self._success = {name: episodes.success for name, episodes in results.items()}
        return {f"success/{name}": success for name, success in self._success.items()}

    def evaluated(self, results: Results, report: Report) -> None:
        """There is nothing to add."""

    def finish(self, report: Report) -> Mapping[str, Any]:
        """Save the student; return the results."""
        counts, dataset = self.cloning.counts, self.dataset
        self.student.save(report.folder / "student")
        return {
            "data": str(self.config.data),
            "frames": counts.frames,
            "updates": counts.updates,
            "reading_seconds": counts.seconds["rollout"],
            "learning_seconds": counts.seconds["learning"],
            "loss": counts.history[-1].loss,
            "data_success": dataset.success if dataset.episodes else None,
            **{f"{name.replace('-', '_')}_looks_success": value for name, value in self._success.items()},
        }

    def save(self, folder: Path, run: StateDict) -> None:
        """Write a checkpoint: of the frames in memory what is new."""
        save_checkpoint(folder, self.cloning, run)

    def load(self, folder: Path) -> StateDict | None:
        """Continue from the last checkpoint, if there is one."""
        return read_beside(folder) if load_checkpoint(folder, self.cloning) else None

    def close(self) -> None:
        """Nothing is open."""


def _check_training(config: TrainConfig, dataset: Dataset) -> None:
    """Make sure, before minutes are spent, that the student can be put there, and evaluated."""
    ours = (
        "student",
        "checkpoints",
        "*.json",
        "*.parquet",
        "*.parquet.parts",
        "events.out.tfevents.*",
        ".*",
    )
    found = sorted(config.out.iterdir()) if config.out.is_dir() else []
    if foreign := [path.name for path in found if not any(map(path.match, ours))]:
        raise ValueError(f"{config.out} holds something else ({foreign[0]}); choose another --out")
    if config.episodes < 0:
        raise ValueError(f"episodes must not be negative, but is {config.episodes}")
    if config.device != "cpu":
        from tutelage.envs.batched.simulators.warp_model import usable_device

        usable_device(torch.device(config.device))
    if config.episodes:
        if lacking := [name for name in ("name", "looks", "cameras") if name not in dataset.metadata]:
            raise ValueError(
                f"{config.data} does not tell how its task is made: no {', '.join(lacking)} in its metadata; "
                "train with --episodes 0, and evaluate the student yourself"
            )
        vec_task_class(dataset.metadata["name"])


def _new_student(config: TrainConfig, dataset: Dataset) -> VisionStudent:
    shapes = {
        name.removeprefix(VIEWS): kind.shape[1:]
        for name, kind in dataset.fields.items()
        if name.startswith(VIEWS)
    }
    images = config.images or tuple(name for name, shape in shapes.items() if len(shape) > 1)
    recipe = WorldRecipe(summary="a recorded task", mastered="unknown")
    task = dataset.metadata.get("name")
    if config.episodes or task in VEC_TASKS:  # else the dataset's own module is not imported
        recipe = vec_task_recipe(str(task))
    vision = VisionConfig(
        images=images,
        encoder=config.encoder or recipe.encoder,
        fusion=config.fusion,
        opponents=any(len(shapes.get(name, ())) == 3 for name in images),
        frames=config.stack or (1 if config.memory else recipe.stack),
        memory=config.memory,
        predicts="privileged" if config.predict and "privileged" in shapes else None,
        head=config.head,
    )
    num_actions = dataset.fields[LABEL].shape[1]
    return VisionStudent(vision, shapes, num_actions, config.seed).to(config.device)

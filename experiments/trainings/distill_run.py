"""One cell of `tutelage distill`: a student of one method and one seed, from first frame to results."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.envs.batched.looks.image_augmentation import ImageAugmentation
from tutelage.experiments.distill import DistillConfig, make_task
from tutelage.experiments.reports import distill_pictures as pictures
from tutelage.experiments.runs.locking import check_same_config, locked
from tutelage.experiments.runs.records import read_status, write_json
from tutelage.experiments.tensorboard.event_log import RunLog
from tutelage.experiments.trainings.distill_expert import EVALUATION_SEED, expert_name, read_expert
from tutelage.experiments.trainings.distill_methods import METHODS
from tutelage.experiments.trainings.distill_presets import ON_THE_WAY, main_looks, on_the_way, test_sets
from tutelage.experiments.trainings.distill_record import StudentRecord
from tutelage.students.distillation.machinery.checkpoint import load_checkpoint, save_checkpoint
from tutelage.students.distillation.machinery.evaluation import evaluate_student
from tutelage.students.distillation.machinery.progress import Budget, DistillationProgress, DistillationResult
from tutelage.students.sb3.presets import student_preset
from tutelage.students.vision.aligned_student import AlignedStudent, load_vision_student
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.teachers.experts.mlp_expert import MLPExpert

AUGMENTATIONS = {
    "none": None,
    "shift": ImageAugmentation.drq(),
    "strong": ImageAugmentation.unseen_looks(),
    "camera": ImageAugmentation.camera(),
}
CHECKPOINT = "checkpoint"
"""Folder, in the cell's, that a killed run continues from."""


def run_cell(values: Mapping[str, Any], folder: Path) -> None:
    """Distil one student into its folder, from its last checkpoint if it has one; a job of the grid.

    Args:
        values: ``config``, of `DistillConfig.to_json`, with one method; and ``seed``.
        folder: METHOD/seed-K in the grid's.

    Raises:
        FolderError: when the folder is in use, or was made with another configuration.
        StateError: when the checkpoint is damaged.
    """
    config, seed = DistillConfig.from_json(values["config"]), int(values["seed"])
    with locked(folder):
        check_same_config(folder / "config.json", cell_description(config, config.method[0], seed))
        if read_status(folder).get("state") != "finished":
            StudentRun(config, seed, folder).distil()
        elif config.saliency and not (folder / "pictures" / "saliency.png").exists():
            sheet = saliency_of(config, load_vision_student(folder / "student", config.device), seed)
            pictures.write_png(folder / "pictures" / "saliency.png", sheet)
            with RunLog(folder / "saliency") as log:
                log.image("student/sees/saliency", sheet, int(read_status(folder).get("frames", 0)))


def cell_description(config: DistillConfig, method: str, seed: int) -> dict[str, Any]:
    """What decides a cell's results, for its ``config.json``."""
    return {**config.decisive(), "method": method, "seed": seed}


def hyperparameters(config: DistillConfig, method: str, seed: int) -> dict[str, bool | int | float | str]:
    """What distinguishes a cell, as flat values for TensorBoard's HParams tab."""
    values = cell_description(config, method, seed)
    flat = {name: " ".join(value) if isinstance(value, list) else value for name, value in values.items()}
    return {name: value for name, value in flat.items() if value is not None}


def read_results(folder: Path) -> dict[str, Any]:
    """``results.json`` of a finished cell, or an empty one."""
    try:
        results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return results if read_status(folder).get("state") == "finished" else {}


def method_settings(config: DistillConfig, method: str) -> Any:
    """Settings of a method, e.g. a `DaggerConfig`.

    Methods without an expert get the discount of SB3's preset of the task, which experts are trained with too
    unless the user says otherwise.

    Raises:
        ValueError: for an unknown loss, or a number out of range.
    """
    card = METHODS[method]
    settings = card.load()[1](budget=Budget(**config.budget), **card.settings)
    augment: str = config.augment
    if augment == "auto":
        augment = "strong" if card.augments and config.training_looks != "none" else "none"
    learning = replace(
        settings.learning,
        augmentation=AUGMENTATIONS[augment],
        threads=1 if config.workers > 1 or not card.sharded else config.threads,
        **({"loss": config.loss} if config.loss is not None else {}),
    )
    settings = replace(settings, learning=learning)
    if card.expert == "nothing":  # else the expert tells the discount
        gamma = student_preset(config.task, "ppo").kwargs.get("gamma")
        settings = replace(settings, ppo=replace(settings.ppo, gamma=gamma))
    return settings


def make_student(
    config: DistillConfig, method: str, task: VecTask, expert: MLPExpert | None, seed: int
) -> VisionStudent:
    """A new student of a method for a task, its parameters drawn from the seed; on the task's device.

    Raises:
        ValueError: for an unknown encoder, pictures that it cannot take, or an expert that lacks what the
            method needs of it.
    """
    card = METHODS[method]
    views = {"privileged": type(task).default_states_view, "student": "student"}
    vision = VisionConfig(
        images=config.images,
        encoder=config.chosen_encoder,
        fusion=config.fusion,
        opponents=config.opponents and config.obs != "depth" and config.chosen_encoder != "points",
        frames=config.stack or 1,
        memory=config.memory,
        head=config.head or ("gaussian" if card.gaussian else "deterministic"),
        predicts=views["privileged"] if config.predict and card.predicts else None,
        critic_view=views.get(card.critic or ""),  # the expert's critic is given to it by the method
        fovy=float(task.model.camera(config.cameras[0]).fovy[0]),
    )
    if card.aligned and expert is not None:
        return AlignedStudent.of_expert(vision, task, expert, seed=seed)
    return VisionStudent.of_task(vision, task, seed)


def saliency_of(config: DistillConfig, student: VisionStudent, seed: int) -> pictures.Picture:
    """What a student's actions depend on, in looks of the main test set."""
    from tutelage.experiments.tensorboard.saliency import saliency_sheet

    looks = main_looks(config.task, config.training_looks)
    task = make_task(config, pictures.SHOWN, looks, seed)
    try:
        return saliency_sheet(task, student)
    finally:
        task.close()


class StudentRun:
    """One cell: a student of one method and one seed.

    Args:
        config: with all that preset and task decide filled in, see
            `tutelage.experiments.trainings.distill_checks.checked`, and one method.
        seed: of everything but the evaluations.
        folder: METHOD/seed-K in the folder of the grid.
    """

    def __init__(self, config: DistillConfig, seed: int, folder: Path) -> None:
        self.config, self.seed, self.folder = config, seed, folder
        self.method = config.method[0]
        self.budget = Budget(**config.budget)
        self.sets = test_sets(config.task, config.training_looks)
        self.expert: MLPExpert | None = None
        self.charged: dict[str, Any] = {}  # what the expert cost, and how good it is
        if METHODS[self.method].expert != "nothing":
            self.expert, self.charged = read_expert(folder.parents[1] / expert_name(seed), config.device)
        self.record = StudentRecord(config, folder, self.charged)
        self.tasks: dict[str, VecTask] = {}

    def distil(self) -> None:
        """Train the student, evaluate it on all test sets, write everything down."""
        config, record = self.config, self.record
        task = make_task(config, config.num_envs, config.training_looks, self.seed)
        self.joints = _action_names(task)
        self.student = make_student(config, self.method, task, self.expert, self.seed)
        cls, _ = METHODS[self.method].load()
        settings = method_settings(config, self.method)
        self.training = cls(task, self.expert, self.student, settings, self.seed)
        resumed = load_checkpoint(self.folder / CHECKPOINT, self.training)
        ledger = self.training.ledger
        seconds = sum(ledger.seconds.values())
        if resumed:
            record.resume(ledger.frames)
            print(f"continues at {ledger.frames:,} frames", flush=True)
        record.open(ledger.frames, seconds, resumed)
        if not resumed:
            record.log.hparams(hyperparameters(config, self.method, self.seed))
            self._picture("training", pictures.sheet(config.images, task.obs_dict), 0)
        record.status("running", ledger.frames, seconds)
        self._saved = time.perf_counter()
        cost = self.training.run(self.on_progress)
        self._checkpoint()  # what follows takes minutes where episodes are many
        task.close()
        self.student.save(self.folder / "student")
        self._finish(cost)
        for used in self.tasks.values():
            used.close()
        record.close()
        shutil.rmtree(self.folder / CHECKPOINT, ignore_errors=True)

    def on_progress(self, progress: DistillationProgress) -> None:
        """Log a round; evaluate where that is due; save now and then."""
        diagnostics = getattr(self.training, "diagnostics", {})  # of methods that learn from rewards
        self.record.add_round(progress, self.joints, diagnostics)
        share = self.budget.spent(progress.frames, progress.seconds)
        if (due := self.record.due(share)) is not None:
            for name in on_the_way(self.config.task, self.config.training_looks):
                self.evaluate(name, progress.frames, progress.seconds, due)
            self._log_pictures(progress.frames)
        self.record.status("running", progress.frames, progress.seconds, at_most_every=0.5)
        if share < 1 and time.perf_counter() - self._saved >= self.config.checkpoint_every:
            self._checkpoint()

    def evaluate(self, name: str, frames: int, seconds: float, share: float) -> None:
        """Play the fixed episodes of a test set; all of them at the end of the budget."""
        began, task = time.perf_counter(), self.task_of(name)
        episodes = (self.config.episodes or 1) if share == 1 else task.num_envs
        found = evaluate_student(task, self.student, episodes, EVALUATION_SEED)
        self.record.add(name, found, frames, seconds, share, time.perf_counter() - began)

    def task_of(self, name: str) -> VecTask:
        """Environments of a test set."""
        if name not in self.tasks:
            looks, held_out = self.sets[name]
            count = min(self.config.episodes or 1, ON_THE_WAY)
            self.tasks[name] = make_task(self.config, count, looks, self.seed, held_out=held_out)
        return self.tasks[name]

    def _finish(self, cost: DistillationResult) -> None:
        """Evaluate on every test set; write the results."""
        record, config = self.record, self.config
        learned = cost.rollout_seconds + cost.learning_seconds
        for name in self.sets:
            self.evaluate(name, cost.frames, learned, 1.0)
            seen = pictures.sheet(config.images, self.task_of(name).obs_dict)
            pictures.write_png(self.folder / "pictures" / f"{name}.png", seen)
        self._log_pictures(cost.frames)
        if config.clips:
            frames = pictures.clip(config, self.seed, self.expert, self.student)
            record.log.clip("clip/expert_above_student", frames, cost.frames, fps=12)
        if config.saliency:
            self._picture("saliency", saliency_of(config, self.student, self.seed), cost.frames)
        record.write()
        write_json(self.folder / "results.json", self._results(cost))
        record.status("finished", cost.frames, learned)

    def _results(self, cost: DistillationResult) -> dict[str, Any]:
        """What the cell came to; the expert is charged as it stands in its own results."""
        success = {name: self.record.mean(name, "success") for name in self.sets}
        theirs: dict[str, float] | None = self.charged.get("success")
        errors: dict[str, float] | None = None
        if self.expert is not None:
            task = self.task_of(next(iter(self.sets)))
            found = pictures.action_errors(task, self.student, self.expert, EVALUATION_SEED)
            errors = dict(zip(self.joints, found, strict=True))
        seconds = {
            "expert": float(self.charged.get("seconds", 0.0)),
            "rollout": cost.rollout_seconds,
            "learning": cost.learning_seconds,
            "evaluation": self.record.evaluation_seconds,
        }
        return {
            "task": self.config.task,
            "method": self.method,
            "seed": self.seed,
            "success": success,
            "return": {name: self.record.mean(name, "return") for name in self.sets},
            "expert_success": theirs,
            "share_of_expert": theirs
            and {name: share / theirs[name] if theirs[name] else None for name, share in success.items()},
            "action_error": errors,
            "frames": cost.frames,
            "queries": cost.queries,
            "updates": cost.updates,
            "expert_steps": self.charged.get("steps", 0),
            "environment_steps": cost.frames + self.charged.get("steps", 0),
            "expert_given": bool(self.charged.get("given", False)),
            **{f"{name}_seconds": value for name, value in seconds.items()},
            "total_seconds": sum(seconds.values()),
        }

    def _log_pictures(self, frames: int) -> None:
        """What the student sees, and beside it what the expert knows."""
        name = next(iter(self.sets))
        task = self.task_of(name)
        self.record.log.image(
            f"student/sees/{name.split()[0]}", pictures.sheet(self.config.images, task.obs_dict), frames
        )
        if self.expert is not None:
            picture = pictures.knowledge(self.config.images, task, self.expert, self.student)
            self._picture("beside what the expert knows", picture, frames)

    def _picture(self, name: str, picture: pictures.Picture, frames: int) -> None:
        """Put a picture into TensorBoard and into the folder."""
        self.record.log.image(f"student/sees/{name.replace(' ', '_')}", picture, frames)
        pictures.write_png(self.folder / "pictures" / f"{name}.png", picture)

    def _checkpoint(self) -> None:
        """Save all; the record first, as what it has beyond the checkpoint is void."""
        self.record.write()
        save_checkpoint(self.folder / CHECKPOINT, self.training)
        self._saved = time.perf_counter()


def _action_names(task: VecTask) -> list[str]:
    """Names of the actuators, where each action is of one; else their numbers."""
    names = [task.model.actuator(i).name for i in range(task.model.nu)]
    return (
        names if len(names) == task.num_actions and all(names) else [str(i) for i in range(task.num_actions)]
    )

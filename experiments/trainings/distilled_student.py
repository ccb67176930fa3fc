"""A vision student, distilled from an expert: the training of a cell of `tutelage distill`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.envs.batched.looks.image_augmentation import ImageAugmentation
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.names import base_name
from tutelage.envs.contract.state import StateDict
from tutelage.experiments.distill import DistillConfig, make_task, only
from tutelage.experiments.runs.cell import run_cell
from tutelage.experiments.runs.records import read_json, read_status
from tutelage.experiments.runs.report import Report
from tutelage.experiments.runs.settings import parse_settings
from tutelage.experiments.runs.sweeps import Variant, expand_methods, settings_of
from tutelage.experiments.runs.training import Costs, PlayTestSet, Progress, Results
from tutelage.experiments.tensorboard.event_log import RunLog
from tutelage.experiments.trainings import distill_pictures as pictures
from tutelage.experiments.trainings.distill_presets import ON_THE_WAY, main_looks, on_the_way, test_sets
from tutelage.experiments.trainings.expert import EVALUATION_SEED, expert_name
from tutelage.students.distillation.machinery.checkpoint import load_checkpoint, read_beside, save_checkpoint
from tutelage.students.distillation.machinery.evaluation import evaluate_student
from tutelage.students.distillation.machinery.method import DistillationMethod
from tutelage.students.distillation.machinery.progress import Budget, DistillationProgress
from tutelage.students.distillation.machinery.registry import method_card, method_class
from tutelage.students.experts.expert_training import load_expert
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
BY_SECOND = "by_second"
"""TensorBoard log of a run against seconds, those of the expert's training included."""


def distil_student(values: Mapping[str, Any], folder: Path) -> None:
    """Distil one student into its folder; a job of a grid.

    Args:
        values: ``config``, of `DistillConfig.to_json`, with one method; and ``seed``.
        folder: METHOD/seed-K in the grid's.

    Raises:
        FolderError: when the folder is in use, or was made with another configuration.
        StateError: when the checkpoint is damaged.
    """
    config, seed = DistillConfig.from_json(values["config"]), int(values["seed"])

    def add_saliency() -> None:
        if config.saliency and not (folder / "pictures" / "saliency.png").exists():
            sheet = saliency_of(config, load_vision_student(folder / "student", config.device), seed)
            pictures.write_png(folder / "pictures" / "saliency.png", sheet)
            with RunLog(folder / "saliency") as log:
                log.image("student/sees/saliency", sheet, int(read_status(folder).get("frames", 0)))

    run_cell(
        lambda: DistilledStudent(config, seed, folder.parents[1] / expert_name(seed)),
        cell_description(config, config.method[0], seed),
        folder,
        save_every=config.checkpoint_every,
        complete=add_saliency,
    )


def cell_description(config: DistillConfig, method: str, seed: int) -> dict[str, Any]:
    """What decides a cell's results, for its ``config.json``."""
    return {**only(config, method).decisive(), "method": method, "seed": seed}


def hyperparameters(config: DistillConfig, method: str, seed: int) -> dict[str, bool | int | float | str]:
    """What distinguishes a cell, as flat values for TensorBoard's HParams tab."""
    values = cell_description(config, method, seed)
    flat = {name: " ".join(value) if isinstance(value, list) else value for name, value in values.items()}
    return {name: value for name, value in flat.items() if value is not None}


GIVEN_BY_OPTIONS = {
    "budget": "use --frames or --seconds",
    "learning.threads": "use --threads",
    "learning.augmentation": "use --augment",
}
"""Fields of a method's settings that options of the command decide."""


def members(config: DistillConfig) -> list[Variant]:
    """The methods of a command with their settings: each once, or once for each value of a sweep.

    Raises:
        ValueError: for an unknown loss or setting, or a number out of range.
    """
    plain = [method for method in config.method if base_name(method) == method]
    others = [Variant(m, method_settings(config, m), None) for m in config.method if m not in plain]
    settings = parse_settings(config.set)
    return expand_methods(plain, partial(_plain_settings, config), settings, GIVEN_BY_OPTIONS) + others


def method_settings(config: DistillConfig, method: str) -> Any:
    """Settings of a method, e.g. a `DaggerConfig`, or of a member of a sweep, with those of ``--set``.

    Raises:
        ValueError: for an unknown loss or setting, or a number out of range.
    """
    name = base_name(method)
    settings = parse_settings(settings_of(method, config.set))
    [found] = expand_methods([name], partial(_plain_settings, config), settings, GIVEN_BY_OPTIONS)
    return found.config


def _plain_settings(config: DistillConfig, method: str) -> Any:
    """Settings of a method as the options of the command make them.

    Methods without an expert get the discount of SB3's preset of the task, which experts are trained with too
    unless the user says otherwise.

    Raises:
        ValueError: for an unknown loss, or a number out of range.
    """
    card = method_card(method)
    config_class: Any = method_class(method).config_class
    settings = config_class(budget=Budget(**config.budget), **card.settings)
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
    card = method_card(method)
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


class DistilledStudent:
    """A student of one method and one seed; a `tutelage.experiments.runs.training.Training`.

    Args:
        config: with all that preset and task decide filled in, see
            `tutelage.experiments.trainings.distill_checks.checked`, and one method.
        seed: of everything but the evaluations.
        expert: folder of the seed's expert, where the method has anything of it.
    """

    evaluates_untrained = False

    def __init__(self, config: DistillConfig, seed: int, expert: Path) -> None:
        self.config, self.seed, self.method = config, seed, config.method[0]
        self.sets = test_sets(config.task, config.training_looks)
        self.expert: MLPExpert | None = None
        self.charged: dict[str, Any] = {}  # results.json of the expert: what it cost, and how good it is
        if method_card(self.method).expert != "nothing":
            self.expert, self.charged = (
                load_expert(expert).to(config.device),
                read_json(expert / "results.json"),
            )
        task = make_task(config, config.num_envs, config.training_looks, seed)
        self.joints = _action_names(task)
        self.student = make_student(config, self.method, task, self.expert, seed)
        self.first_seen = pictures.sheet(config.images, task.obs_dict)
        method = method_class(self.method)
        settings = method_settings(config, self.method)
        self.distillation: DistillationMethod = method(task, self.expert, self.student, settings, seed)
        self.training_task, self.tasks = task, {}
        count = config.evaluations or 0
        self.evaluations: Sequence[float] = [*(k / count for k in range(count)), 1.0]
        self.costs = Costs(expert=int(self.charged.get("steps", 0)))
        self.costs.seconds["expert"] = float(self.charged.get("seconds", 0.0))
        self._resumed = False

    tasks: dict[str, VecTask]

    @property
    def step(self) -> int:
        """Frames rolled out so far."""
        return self.distillation.counts.frames

    @property
    def seconds(self) -> float:
        """Seconds of rolling out and learning so far."""
        return sum(self.distillation.counts.seconds.values())

    @property
    def spent(self) -> float:
        """The share of the budget that is used up."""
        return self.distillation.counts.spent

    @property
    def progress(self) -> Progress:
        """Frames, or seconds where those are the budget."""
        if self.config.seconds is not None:
            return Progress(self.seconds, self.config.seconds, "seconds")
        return Progress(self.step, self.config.budget["frames"], "frames")

    def hyperparameters(self) -> Mapping[str, bool | int | float | str]:
        """What distinguishes the cell."""
        return hyperparameters(self.config, self.method, self.seed)

    def advance(self, until: float, report: Report) -> None:
        """Roll out and learn, round by round, at least one."""
        if self.step == 0:
            self._picture("training", self.first_seen, report)

        def on_progress(progress: DistillationProgress) -> bool:
            self._count(progress)
            report.scalars(self._of_round(progress), progress.frames)
            report.progress(True)
            return self.spent < until

        self.distillation.run(on_progress)

    def _count(self, progress: DistillationProgress) -> None:
        self.costs.student, self.costs.queries = progress.frames, progress.queries
        self.costs.seconds |= self.distillation.counts.seconds

    def _of_round(self, progress: DistillationProgress) -> dict[str, float]:
        """What all methods report of a round, the error of each action, and what else a method has to say."""
        scalars = {
            "distillation/loss": progress.loss,
            "distillation/learning_rate": progress.learning_rate,
            "distillation/expert_share": progress.expert_share,
            "success/roll_out": progress.success,
            "rates/rolled_frames_per_second": progress.rolled_per_second,
            "rates/trained_frames_per_second": progress.trained_per_second,
            "cost/expert_queries": float(progress.queries),
            "cost/gradient_steps": float(progress.updates),
            "cost/environment_steps": float(self.costs.charged),
            "cost/seconds": progress.seconds + self.costs.seconds["expert"],
        }
        errors = zip(self.joints, progress.action_error.tolist(), strict=True)
        scalars |= {f"action_error/{name}": error for name, error in errors}
        diagnostics = getattr(self.distillation, "diagnostics", {})  # of methods that learn from rewards
        scalars |= {f"diagnostics/{name}": value for name, value in diagnostics.items()}
        return {name: value for name, value in scalars.items() if math.isfinite(value)}

    # --- evaluation ------------------------------------------------------------------------------------

    def test_sets(self, at_end: bool) -> Sequence[str]:
        """All at the end; on the way the main one, and held-out objects."""
        return list(self.sets) if at_end else on_the_way(self.config.task, self.config.training_looks)

    def policies(self) -> Mapping[str, PlayTestSet]:
        """The student, deterministic."""

        def play(name: str, at_end: bool) -> Episodes:
            task = self._task_of(name)
            episodes = (self.config.episodes or 1) if at_end else task.num_envs
            return evaluate_student(task, self.student, episodes, EVALUATION_SEED)

        return {"student": play}

    def scores(self, results: Mapping[str, Episodes]) -> Mapping[str, float]:
        """Success of the student, and beside it the expert's."""
        scores = {}
        for name, episodes in results.items():
            tag = f"success_on_{name.replace(' ', '_')}"
            scores[f"{tag}/student"] = float(episodes.successes.mean())
            if self.charged:
                scores[f"{tag}/expert"] = self.charged["success"][name]
        return scores

    def evaluated(self, results: Results, report: Report) -> None:
        """Log the same against seconds, and what the student sees beside what the expert knows."""
        spent = self.seconds + self.costs.seconds["expert"]
        if BY_SECOND not in report.logs:
            purge = int(spent) + 1 if self._resumed else None
            report.logs[BY_SECOND] = RunLog(report.folder / BY_SECOND, purge)
        scores = self.scores(results["student"])
        report.logs[BY_SECOND].scalars({f"{tag}_by_second": v for tag, v in scores.items()}, int(spent))
        for name, episodes in results["student"].items():
            success = 100 * episodes.successes.mean()
            print(f"{self.step:,} frames, {spent:.0f} s: {success:.1f} % on {name}", flush=True)
        name = next(iter(self.sets))
        task = self._task_of(name)
        seen = pictures.sheet(self.config.images, task.obs_dict)
        report.log.image(f"student/sees/{name.split()[0]}", seen, self.step)
        if self.expert is not None:
            picture = pictures.knowledge(self.config.images, task, self.expert, self.student)
            self._picture("beside what the expert knows", picture, report)

    def finish(self, report: Report) -> Mapping[str, Any]:
        """Save the student and pictures of it; return the results."""
        config = self.config
        self.student.save(report.folder / "student")
        for name in self.sets:
            seen = pictures.sheet(config.images, self._task_of(name).obs_dict)
            pictures.write_png(report.folder / "pictures" / f"{name}.png", seen)
        if config.clips:
            frames = pictures.clip(config, self.seed, self.expert, self.student)
            report.log.clip("clip/expert_above_student", frames, self.step, fps=12)
        if config.saliency:
            self._picture("saliency", saliency_of(config, self.student, self.seed), report)
        return self._results(report)

    def _results(self, report: Report) -> dict[str, Any]:
        """What the cell came to; the expert is charged as it stands in its own results."""
        columns, counts = report.record.evaluations.recent(), self.distillation.counts

        def means(column: str) -> dict[str, float]:
            rows = {name: (columns["share"] == 1) & (columns["test_set"] == name) for name in self.sets}
            return {name: float(columns[column][chosen].mean()) for name, chosen in rows.items()}

        success = means("success")
        theirs: dict[str, float] | None = self.charged.get("success")
        errors: dict[str, float] | None = None
        if self.expert is not None:
            task = self._task_of(next(iter(self.sets)))
            found = pictures.action_errors(task, self.student, self.expert, EVALUATION_SEED)
            errors = dict(zip(self.joints, found, strict=True))
        seconds = {
            "expert": self.costs.seconds["expert"],
            **counts.seconds,
            "evaluation": report.record.evaluation_seconds,
        }
        return {
            "task": self.config.task,
            "method": self.method,
            "seed": self.seed,
            "success": success,
            "return": means("return"),
            "expert_success": theirs,
            "share_of_expert": theirs
            and {name: share / theirs[name] if theirs[name] else None for name, share in success.items()},
            "action_error": errors,
            "frames": counts.frames,
            "queries": counts.queries,
            "updates": counts.updates,
            "expert_steps": self.costs.expert,
            "environment_steps": self.costs.charged,
            "expert_given": bool(self.charged.get("given", False)),
            **{f"{name}_seconds": value for name, value in seconds.items()},
            "total_seconds": sum(seconds.values()),
        }

    # --- saving ----------------------------------------------------------------------------------------

    def save(self, folder: Path, run: StateDict) -> None:
        """Write a checkpoint: of the ring of frames what is new."""
        save_checkpoint(folder, self.distillation, run)

    def load(self, folder: Path) -> StateDict | None:
        """Continue from the last checkpoint, if there is one."""
        self._resumed = load_checkpoint(folder, self.distillation)
        return read_beside(folder) if self._resumed else None

    def close(self) -> None:
        """Free all environments."""
        for task in (self.training_task, *self.tasks.values()):
            task.close()

    def _task_of(self, name: str) -> VecTask:
        """Environments of a test set."""
        if name not in self.tasks:
            looks, held_out = self.sets[name]
            count = min(self.config.episodes or 1, ON_THE_WAY)
            self.tasks[name] = make_task(self.config, count, looks, self.seed, held_out=held_out)
        return self.tasks[name]

    def _picture(self, name: str, picture: pictures.Picture, report: Report) -> None:
        """Put a picture into TensorBoard and into the folder."""
        report.log.image(f"student/sees/{name.replace(' ', '_')}", picture, self.step)
        pictures.write_png(report.folder / "pictures" / f"{name}.png", picture)


def _action_names(task: VecTask) -> list[str]:
    """Names of the actuators, where each action is of one; else their numbers."""
    names = [task.model.actuator(i).name for i in range(task.model.nu)]
    return (
        names if len(names) == task.num_actions and all(names) else [str(i) for i in range(task.num_actions)]
    )

"""One seed of `tutelage distill`: expert, student, evaluations, TensorBoard, files."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tutelage.envs.batched.contact_sheet import contact_sheet
from tutelage.envs.batched.image_augmentation import ImageAugmentation
from tutelage.experiments.distill import DistillConfig, given_expert, make_task, read_results
from tutelage.experiments.event_log import RunLog
from tutelage.experiments.folders import check_same_config, locked
from tutelage.experiments.records import write_json
from tutelage.students import distillation
from tutelage.students.distillation.evaluation import Evaluation, deterministic, evaluate_student
from tutelage.students.distillation.progress import Budget, DistillationProgress
from tutelage.students.expert_training import load_expert, train_expert
from tutelage.students.vision_student import VisionConfig, VisionStudent
from tutelage.teachers.experts import MLPExpert

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tutelage.envs.batched.vec_task import VecTask

EVALUATION_SEED = 2_000_000  # the same episodes for every expert, student and seed
ON_THE_WAY = 128  # episodes, at most, of an evaluation in training
CLIP_STARTS = 3  # columns of a clip
SHOWN = 8  # environments on the contact sheet
AUGMENTATIONS = {
    "none": None,
    "shift": ImageAugmentation.drq(),
    "strong": ImageAugmentation(
        shift=4, brightness=0.3, contrast=0.3, saturation=0.5, hue=0.12, cutouts=1, cutout_size=0.5
    ),
}
METHOD_FILES = {"dagger": "dagger", "bc": "behaviour_cloning", "on-policy": "on_policy"}
NOT_IN_CONFIG = ("seeds", "first_seed", "workers", "threads", "out", "clips")


def run_seed(config: DistillConfig, seed: int, folder: Path) -> None:
    """Distil one seed into its folder, unless that is done.

    A killed run keeps its expert; the student begins anew.

    Raises:
        FolderError: when the folder is in use, or was made with another configuration.
    """
    with locked(folder):
        check_same_config(folder / "config.json", {**_plain(config), "seed": seed})
        if read_results(folder):
            print(f"seed {seed}: finished before, in {folder}", flush=True)
            return
        try:
            with RunLog(folder) as log:
                SeedRun(config, seed, folder, log).run()
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
            write_json(folder / "status.json", {"state": "failed", "message": message})
            raise


def method_config(config: DistillConfig) -> Any:
    """Settings of the method: a `DaggerConfig`, `BehaviourCloningConfig` or `OnPolicyConfig`.

    Raises:
        ValueError: for an unknown loss, or a number out of range.
    """
    learning = distillation.LearningConfig(
        loss=config.loss,
        augmentation=AUGMENTATIONS[config.augment],
        threads=1 if config.workers > 1 else config.threads,
    )
    cls = {
        "dagger": distillation.DaggerConfig,
        "bc": distillation.BehaviourCloningConfig,
        "on-policy": distillation.OnPolicyConfig,
    }[config.method]
    return cls(budget=Budget(**config.budget), learning=learning)


def make_student(config: DistillConfig, task: VecTask, seed: int) -> VisionStudent:
    """A new student for a task, its parameters drawn from the seed; on the task's device.

    Raises:
        ValueError: for an unknown encoder, or pictures that it cannot take.
    """
    vision = VisionConfig(
        images=config.images,
        encoder=config.encoder,
        frames=config.stack or 1,
        memory=config.memory,
        head=config.head,
        fovy=float(task.model.camera(config.cameras[0]).fovy[0]),
    )
    return VisionStudent.of_task(vision, task, seed)


class SeedRun:
    """One seed.

    Args:
        config: with cameras and stack filled in, see `tutelage.experiments.distill.checked`.
        seed: of everything but the evaluations.
        folder: of this seed.
        log: its TensorBoard log.
    """

    def __init__(self, config: DistillConfig, seed: int, folder: Path, log: RunLog) -> None:
        self.config, self.seed, self.folder, self.log = config, seed, folder, log
        self.seconds = {"expert": 0.0, "evaluation": 0.0}
        self.began = time.perf_counter()
        self.held_out_envs = min(config.episodes, ON_THE_WAY)
        self._evaluated = 0  # evaluations on the way so far
        self._told = 0.0
        self._status("expert", 0)

    def run(self) -> None:
        """Expert, student, results."""
        config = self.config
        expert = self.expert_policy = self.expert()
        task = make_task(config, config.num_envs, config.looks, self.seed)
        known = make_task(config, self.held_out_envs, config.looks, self.seed)
        self.held_out = make_task(config, self.held_out_envs, "held-out", self.seed)
        self.joints = _action_names(task)
        student = self.student = make_student(config, task, self.seed)
        self.log.hparams({**_plain(config), "seed": self.seed})
        expert_found = self.evaluate(self.held_out, expert, config.episodes)
        self.expert_success = expert_found.success
        self._say(f"expert: {100 * expert_found.success:.1f} % of {config.episodes} episodes")
        self.log.image("student/sees_in_training", self.sheet(task), 0)

        settings = method_config(config)
        self.budget: Budget = settings.budget
        method = getattr(distillation, METHOD_FILES[config.method])
        cost = method.distil(task, expert, student, settings, self.seed, self.on_progress)

        student.save(self.folder / "student")
        held_out = self.evaluate(self.held_out, student, config.episodes)
        training = self.evaluate(known, student, config.episodes)
        self.seconds |= {"rollout": cost.rollout_seconds, "learning": cost.learning_seconds}
        seconds = dict(self.seconds)
        self._log_success(cost.frames, sum(seconds.values()), held_out.success)
        if config.clips:
            self.log.clip("clip/expert_above_student", self.clip(), cost.frames, fps=12)
        for used in (task, known, self.held_out):
            used.close()
        results = {
            "task": config.task,
            "method": config.method,
            "seed": self.seed,
            "expert_success": expert_found.success,
            "training_looks_success": training.success,
            "held_out_success": held_out.success,
            "share_of_expert": held_out.success / max(expert_found.success, 1e-9),
            "expert_return": float(expert_found.returns.mean()),
            "held_out_return": float(held_out.returns.mean()),
            "frames": cost.frames,
            "queries": cost.queries,
            "updates": cost.updates,
            **{f"{name}_seconds": value for name, value in seconds.items()},
            "total_seconds": sum(seconds.values()),
            "expert": expert.facts,
        }
        write_json(self.folder / "results.json", results)
        self._status("finished", cost.frames)

    def expert(self) -> MLPExpert:
        """The expert that was given, the one of an earlier attempt, or a new one; saved in the folder."""
        config, folder = self.config, self.folder / "expert"
        if config.expert is not None:
            expert = given_expert(config)
        elif (folder / "expert.json").exists():
            expert = load_expert(folder)
        else:
            expert = train_expert(
                config.task,
                seed=self.seed,
                steps=config.expert_steps,
                method=config.expert_method,
                until_success=config.expert_success,
                device=config.device,
            )
            self._say(f"expert trained: {expert.facts['steps']:,} steps in {expert.facts['seconds']:.1f} s")
        if config.expert is None:
            self.seconds["expert"] = float(expert.facts["seconds"])
        expert.save(folder)
        return expert.to(config.device)

    def evaluate(self, task: VecTask, policy: VisionStudent | MLPExpert, episodes: int) -> Evaluation:
        """Play the fixed episodes."""
        began = time.perf_counter()
        found = evaluate_student(task, policy, episodes, EVALUATION_SEED)
        self.seconds["evaluation"] += time.perf_counter() - began
        return found

    def on_progress(self, progress: DistillationProgress) -> None:
        """Log a round; evaluate now and then."""
        spent = progress.seconds + sum(self.seconds.values())
        scalars = {
            "distillation/loss": progress.loss,
            "distillation/learning_rate": progress.learning_rate,
            "distillation/expert_share": progress.expert_share,
            "success/roll_out": progress.success,
            "rates/rolled_frames_per_second": progress.rolled_per_second,
            "rates/trained_frames_per_second": progress.trained_per_second,
            "cost/expert_queries": float(progress.queries),
            "cost/seconds": spent,
        }
        errors = zip(self.joints, progress.action_error.tolist(), strict=True)
        scalars |= {f"action_error/{name}": error for name, error in errors}
        self.log.scalars(
            {name: value for name, value in scalars.items() if math.isfinite(value)}, progress.frames
        )
        share = self.budget.spent(progress.frames, progress.seconds)
        if self._evaluated < self.config.evaluations * min(share, 1.0) and share < 1:
            self._evaluated += 1
            success = self.evaluate(self.held_out, self.student, self.held_out.num_envs).success
            self._log_success(progress.frames, spent, success)
            self.log.image("student/sees_in_evaluation", self.sheet(self.held_out), progress.frames)
            self._say(
                f"{progress.frames:,} frames, {spent:.0f} s: held-out looks {100 * success:.1f} %, "
                f"loss {progress.loss:.4f}"
            )
        self._status("student", progress.frames, at_most_every=0.5)

    def sheet(self, task: VecTask) -> NDArray[np.uint8]:
        """What the student sees now: a row for each kind of picture, a column for each environment."""
        pictures = [task.obs_dict[name][:SHOWN] for name in self.config.images]
        columns = len(pictures[0])
        labels = [label for name in self.config.images for label in [name, *[""] * (columns - 1)]]
        return contact_sheet(pictures, columns, labels)

    def clip(self) -> list[NDArray[np.uint8]]:
        """Expert (above) and student (below) on the same starts in the same held-out looks."""
        config, starts = self.config, CLIP_STARTS
        task = make_task(config, 2 * starts, "held-out", self.seed, also_rgb=True)
        rng = np.random.default_rng(EVALUATION_SEED)
        tasks = np.tile(task.task_space.sample(rng, starts), (2, 1))
        seeds = [*range(starts)] * 2
        above = (torch.arange(2 * starts, device=task.device) < starts)[:, None]
        policies = [deterministic(policy) for policy in (self.expert_policy, self.student)]
        obs_dict = task.start(torch.arange(2 * starts, device=task.device), tasks, seeds)
        started = torch.ones(2 * starts, dtype=torch.bool, device=task.device)
        labels = ["expert", *[""] * (starts - 1), "student", *[""] * (starts - 1)]
        frames = []
        for _ in range(task.max_episode_length):
            frames.append(contact_sheet(obs_dict[f"{config.cameras[0]}/rgb"], starts, labels, scale=3))
            expert, student = (policy(obs_dict, started) for policy in policies)
            obs_dict, _, dones, _ = task.step(torch.where(above, expert, student))
            started = dones.bool()
            if bool(started.all()):
                break
        task.close()
        return frames

    def _log_success(self, frames: int, seconds: float, student: float) -> None:
        """The student's success beside the expert's, against frames and against seconds."""
        values = {"student": student, "expert": self.expert_success}
        self.log.scalars({f"success/{who}": value for who, value in values.items()}, frames)
        self.log.scalars({f"success_by_second/{who}": value for who, value in values.items()}, int(seconds))

    def _status(self, state: str, frames: int, at_most_every: float = 0.0) -> None:
        if time.perf_counter() - self._told < at_most_every:
            return
        self._told = time.perf_counter()
        write_json(
            self.folder / "status.json",
            {"state": state, "frames": frames, "seconds": time.perf_counter() - self.began},
        )

    def _say(self, text: str) -> None:
        print(f"seed {self.seed}: {text}", flush=True)


def _plain(config: DistillConfig) -> dict[str, bool | int | float | str | None]:
    """What decides a seed's results, as JSON values."""
    values = {name: value for name, value in asdict(config).items() if name not in NOT_IN_CONFIG}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _action_names(task: VecTask) -> list[str]:
    """Names of the actuators, where each action is of one; else their numbers."""
    names = [task.model.actuator(i).name for i in range(task.model.nu)]
    return (
        names if len(names) == task.num_actions and all(names) else [str(i) for i in range(task.num_actions)]
    )

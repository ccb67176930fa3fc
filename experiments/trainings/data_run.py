"""What `tutelage data record` and `tutelage data train` do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from tutelage.envs.batched.cameras.camera_config import CameraConfig
from tutelage.envs.batched.looks.visual_randomization import VisualRandomization
from tutelage.envs.batched.worlds.catalogue import VEC_TASKS, make_vec_task, vec_task_class, vec_task_recipe
from tutelage.envs.contract.recipe import WorldRecipe
from tutelage.experiments.runs.locking import locked
from tutelage.experiments.runs.records import write_json
from tutelage.experiments.tensorboard.event_log import RunLog
from tutelage.experiments.trainings.distill_expert import EVALUATION_SEED
from tutelage.experiments.trainings.distill_presets import MODALITIES
from tutelage.experiments.trainings.distill_run import AUGMENTATIONS
from tutelage.students.datasets.dataset import Dataset
from tutelage.students.datasets.dataset_cloning import CloningConfig, clone_from
from tutelage.students.datasets.dataset_recording import VIEWS, RecordingConfig, record
from tutelage.students.distillation.machinery.evaluation import evaluate_student
from tutelage.students.distillation.machinery.learner import LABEL, LearningConfig
from tutelage.students.experts.expert_training import load_expert, train_expert
from tutelage.students.vision.aligned_student import load_vision_student
from tutelage.students.vision.vision_config import VisionConfig
from tutelage.students.vision.vision_student import VisionStudent

if TYPE_CHECKING:
    from pathlib import Path

    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.experiments.data import RecordConfig, TrainConfig
    from tutelage.students.distillation.machinery.progress import DistillationProgress
    from tutelage.teachers.experts.mlp_expert import MLPExpert


def record_data(config: RecordConfig) -> Path:
    """Train or load the expert, record until there are as many frames as wanted; return the folder.

    Raises:
        FileNotFoundError: when there is no such expert or student.
        ValueError: for an unknown task or camera, an expert or student that does not fit, a folder that holds
            something else.
        FolderError: when another process records into the folder.
    """
    settings = RecordingConfig(config.frames, config.beta, config.noise, config.chunk_frames)
    if config.beta < 1 and config.student is None:
        raise ValueError(f"with --beta {config.beta} a student acts too; name its folder by --student")
    # Before an expert is trained for minutes.
    student = None if config.student is None else load_vision_student(config.student, config.device)
    task = _record_task(config)
    expert = _expert(config, task)
    began = told = time.perf_counter()

    def on_progress(frames: int) -> None:
        nonlocal told
        now = time.perf_counter()
        if now - told > 2 or frames >= config.frames:
            told = now
            print(f"{frames:,} of {config.frames:,} frames, {now - began:,.0f} s", flush=True)

    config.out.mkdir(parents=True, exist_ok=True)
    metadata = {"name": config.task, "looks": _looks(config)}
    with locked(config.out):
        new = record(task, expert, config.out, settings, config.seed, student, metadata, on_progress)
    task.close()
    if not new:
        print(f"{config.out} has {config.frames:,} frames or more already; --frames adds to them")
    return config.out


def _record_task(config: RecordConfig) -> VecTask:
    default = vec_task_class(config.task).default_camera
    cameras = config.cameras or vec_task_recipe(config.task).cameras or (default,)
    cameras_as = {
        name: {"width": config.size, "height": config.size, "modalities": MODALITIES[config.obs]}
        for name in cameras
    }
    return _make_task(config.task, config.num_envs, _looks(config), config.seed, cameras_as, config.device)


def _looks(config: RecordConfig) -> str:
    """Looks that are recorded."""
    return vec_task_recipe(config.task).looks if config.looks == "auto" else config.looks


def _make_task(
    name: str, num_envs: int, looks: str, seed: int, cameras: dict[str, dict[str, Any]], device: str
) -> VecTask:
    return make_vec_task(
        name,
        num_envs,
        seed=seed,
        device=device,
        cameras=[
            CameraConfig(camera, one["width"], one["height"], tuple(one["modalities"]))
            for camera, one in cameras.items()
        ],
        visuals=getattr(VisualRandomization, looks.replace("-", "_"))(),
    )


def _expert(config: RecordConfig, task: VecTask) -> MLPExpert:
    """The expert that was named, that of an earlier attempt, or a new one."""
    kept = config.out.with_name(f"{config.out.name}-expert")
    if config.expert is not None or (kept / "expert.json").exists():
        path = config.expert or kept
        view = task.default_obs_view if path.suffix == ".zip" else None
        expert = load_expert(path, config.trust, view=view)
    else:
        print("training an expert", flush=True)
        expert = train_expert(
            config.task, seed=config.seed, steps=config.expert_steps, device=config.device, until_success=0.98
        )
        expert.save(kept)
    return expert.to(config.device)


def train_on(config: TrainConfig) -> dict[str, Any]:
    """Train a student from a dataset, save and evaluate it; return what is in results.json.

    Raises:
        ValueError: when the dataset lacks a picture that was asked for; names the nearest. When `out` holds
            something else, or the task of the dataset cannot be made to evaluate the student.
        DatasetError: when it is damaged.
    """
    dataset = Dataset(config.data)
    _check_training(config, dataset)
    augment: str = config.augment
    if augment == "auto":
        augment = "none" if dataset.metadata.get("looks") == "none" else "strong"
    learning = LearningConfig(loss=config.loss, augmentation=AUGMENTATIONS[augment])
    settings = CloningConfig(config.updates, None, learning, buffer_frames=config.buffer_frames)
    student = _new_student(config, dataset)
    told = time.perf_counter()
    with RunLog(config.out) as log:

        def on_progress(progress: DistillationProgress) -> None:
            nonlocal told
            if (now := time.perf_counter()) - told > 2:
                told, loss = now, f"loss {progress.loss:.4g}"
                print(f"{progress.updates:,} of {config.updates:,} gradient steps, {loss}", flush=True)
            values = {
                "distillation/loss": progress.loss,
                "distillation/learning_rate": progress.learning_rate,
                "rates/trained_frames_per_second": progress.trained_per_second,
                "cost/seconds": progress.seconds,
                "cost/frames": float(progress.frames),
            }
            log.scalars(values, progress.updates)

        cost = clone_from(dataset, student, settings, config.seed, on_progress)
        student.save(config.out / "student")
        results: dict[str, Any] = {
            "data": str(config.data),
            "frames": cost.frames,
            "updates": cost.updates,
            "reading_seconds": cost.rollout_seconds,
            "learning_seconds": cost.learning_seconds,
            "loss": cost.history[-1].loss,
            "data_success": dataset.success if dataset.episodes else None,
        }
        for looks in ("training", "held-out") if config.episodes else ():
            name = f"{looks.replace('-', '_')}_looks_success"
            results[name] = _success(config, dataset, student, looks)
            log.scalars({f"success/{looks}": results[name]}, cost.updates)
    write_json(config.out / "results.json", results)
    for name, value in results.items():
        print(f"{name}: {value:,.4g}" if isinstance(value, float) else f"{name}: {value}")
    return results


def _check_training(config: TrainConfig, dataset: Dataset) -> None:
    """Make sure, before minutes are spent, that the student can be put there, and evaluated."""
    ours = ("student", "results.json", "events.out.tfevents.*", ".*")
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


def _success(config: TrainConfig, dataset: Dataset, student: VisionStudent, looks: str) -> float:
    """The student's success on the task of the dataset, in the looks of the data or in held-out ones."""
    told = dataset.metadata
    task = _make_task(
        told["name"],
        min(config.episodes, dataset.num_envs),
        told["looks"] if looks == "training" else looks,
        config.seed,
        told["cameras"],
        config.device,
    )
    try:
        return evaluate_student(task, student, config.episodes, EVALUATION_SEED).success
    finally:
        task.close()

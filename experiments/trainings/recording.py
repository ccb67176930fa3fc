"""What `tutelage data record` does: frames of an expert, or of it and a student, on disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tutelage.envs.batched.cameras.camera_config import CameraConfig
from tutelage.envs.batched.looks.visual_randomization import VisualRandomization
from tutelage.envs.batched.worlds.catalogue import make_vec_task, vec_task_class, vec_task_recipe
from tutelage.experiments.runs.locking import locked
from tutelage.experiments.trainings.distill_presets import MODALITIES
from tutelage.students.datasets.dataset_recording import RecordingConfig, record
from tutelage.students.experts.expert_training import load_expert, train_expert
from tutelage.students.vision.aligned_student import load_vision_student

if TYPE_CHECKING:
    from pathlib import Path

    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.experiments.data import RecordConfig
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
    return make_task(config.task, config.num_envs, _looks(config), config.seed, cameras_as, config.device)


def _looks(config: RecordConfig) -> str:
    """Looks that are recorded."""
    return vec_task_recipe(config.task).looks if config.looks == "auto" else config.looks


def make_task(
    name: str, num_envs: int, looks: str, seed: int, cameras: dict[str, dict[str, Any]], device: str
) -> VecTask:
    """Environments in these looks, with pictures as a dataset describes them: camera -> width, height, ..."""
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

"""`tutelage distill`: from nothing, or from an expert, to a student that sees a camera and its own joints."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

if TYPE_CHECKING:
    from rich.table import Table

    from tutelage.envs.batched.vec_task import VecTask
    from tutelage.teachers.experts import MLPExpert

METHODS = {"dagger": "DAgger", "bc": "behaviour cloning", "on-policy": "on-policy distillation"}
"""Names of methods, and what they are called."""

MODALITIES: dict[str, tuple[str, ...]] = {"rgb": ("rgb",), "depth": ("depth",), "rgbd": ("rgb", "depth")}
"""What the student sees, and the pictures that this is of."""

CAMERAS = {"reach": ("front", "wrist")}
"""Cameras of students of tasks where the default one alone is not enough.

`front` of Reach is turned by up to 6 degrees in held-out looks: what it sees moves by more than the goal is
large. `wrist`, fixed to the hand, shows how to go on from there.
"""

QUICK_FRAMES = {"reach": 128_000, "ball-balance": 320_000}
"""Frames of a student's training in the preset ``quick``; others take `DEFAULT_FRAMES`."""

DEFAULT_FRAMES = 400_000
SUCCESSES = {
    "expert_success": "expert",
    "training_looks_success": "student, training looks",
    "held_out_success": "student, held-out looks",
    "share_of_expert": "that, of the expert's",
}
SECONDS = {
    "expert": "expert's training",
    "rollout": "roll-out",
    "learning": "learning",
    "evaluation": "evaluation",
    "total": "all",
}
"""Rows of the table, by names in ``results.json``."""

STANDARD = 8  # times as many frames in the preset ``standard``
STACKS = {"ball-balance": 3}
"""Frames that a student sees at once, where one alone does not show what matters."""


@dataclass(frozen=True)
class DistillConfig:
    """Distil a privileged expert into a student that sees a camera and its own joints.

    Everything lies in runs/distill-TASK/METHOD/seed-K: the expert, the student, results.json, TensorBoard
    events. Seeds that are finished are not run again.
    """

    task: str
    """Name of a batched task, or module:Class of your own."""
    method: str = "dagger"
    """dagger, bc (behaviour cloning) or on-policy."""
    obs: str = "rgb"
    """What the student sees beside its own joints: rgb, depth or rgbd."""
    preset: Literal["quick", "standard"] = "quick"
    """quick: minutes on two CPU cores; standard: eight times as many frames."""
    seeds: int = 1
    """How many, each with an expert of its own."""
    first_seed: int = 0
    """The first of them."""
    workers: int = 1
    """Seeds at work at the same time, each in a process of its own."""
    out: Path | None = None
    """Folder of all runs of the task; default: runs/distill-TASK."""
    expert: Path | None = None
    """An expert to load rather than train: a folder of ours or rsl_rl's, a cell of compare, an SB3 .zip."""
    trust: bool = False
    """Load an SB3 .zip although such files can run code when they are read."""
    expert_method: Literal["sb3", "rsl_rl"] = "sb3"
    """What trains the expert."""
    expert_steps: int | None = None
    """Environment steps of the expert's training at most; default: what the task needs."""
    expert_success: float = 0.98
    """The expert's training ends when this share of its episodes succeeds, exploration included."""
    cameras: tuple[str, ...] = ()
    """Cameras of the model, one or more; default: what suits the task."""
    size: int = 64
    """Width and height of the pictures in pixels."""
    looks: Literal["none", "mild", "strong"] = "strong"
    """How much looks differ in training; evaluation is on held-out ones too."""
    frames: int | None = None
    """Environment steps of the student's training; default: the preset's."""
    seconds: float | None = None
    """Seconds of the student's training, in place of frames."""
    num_envs: int = 128
    """Environments at once."""
    stack: int | None = None
    """Pictures that the student sees at once; default: 1, or what the task needs."""
    memory: int = 0
    """Units of the student's recurrent memory; 0: none."""
    encoder: Literal["fast", "nature", "impala", "points"] = "fast"
    """The student's image encoder."""
    head: Literal["deterministic", "gaussian"] = "deterministic"
    """Whether the student answers with actions or with their distribution."""
    loss: str = "huber"
    """huber, mse, kl (of distributions) or sigma (weighted by the expert's deviations)."""
    augment: Literal["none", "shift", "strong"] = "strong"
    """Change pictures at random while learning: shift them by up to four pixels; strong: also change their
    colours and cover parts of them, so that colours never seen in training do not pass for the goal."""
    episodes: int = 256
    """Episodes of an evaluation at the end."""
    threads: int = 1
    """Of torch while it learns; small networks gain nothing from more than one."""
    evaluations: int = 6
    """Evaluations on the way, on held-out looks, of up to 128 episodes; the first after the first round."""
    clips: bool = True
    """Put clips of expert and student, side by side, into TensorBoard."""
    device: str = "cpu"
    """cpu or cuda."""

    @property
    def folder(self) -> Path:
        """Where the runs of this task and method lie."""
        name = self.task.replace(":", ".").replace("/", "-")
        return (self.out or Path("runs") / f"distill-{name}") / self.method

    @property
    def images(self) -> tuple[str, ...]:
        """Names in ``obs_dict`` of what the student sees."""
        return tuple(f"{camera}/{modality}" for camera in self.cameras for modality in MODALITIES[self.obs])

    @property
    def budget(self) -> dict[str, Any]:
        """Limits of the student's training, as arguments of `Budget`."""
        if self.seconds is not None:
            return {"frames": self.frames, "seconds": self.seconds}
        usual = QUICK_FRAMES.get(self.task, DEFAULT_FRAMES) * (STANDARD if self.preset == "standard" else 1)
        return {"frames": self.frames or usual}


def distill(config: DistillConfig) -> int:
    """Run all seeds that are not finished, print the table; return the exit status.

    Raises:
        ValueError: for an unknown task, camera, method, picture, encoder or loss, or an expert that does not
            fit: before anything is trained.
        FolderError: when a folder is in use, or was made with another configuration.
    """
    # Threads that wait for work must not spin where cores are shared; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from rich.console import Console

    config = checked(config)
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    jobs = [(config, seed, config.folder / f"seed-{seed}") for seed in seeds]
    failed = _run_all(jobs, min(config.workers, config.seeds))
    console = Console()
    results = [(seed, found) for _, seed, folder in jobs if (found := read_results(folder))]
    if results:
        console.print(results_table(config, results))
        console.print(
            f"Everything is in {config.folder}; look at it: tensorboard --logdir {config.folder}",
            soft_wrap=True,
        )
    for folder, message in failed:
        print(f"failed: {folder}: {message}", file=sys.stderr)
    if failed:
        print("The same command tries them again.", file=sys.stderr)
    return 1 if failed else 0


def checked(config: DistillConfig) -> DistillConfig:
    """The config with the cameras and stack that are meant; makes sure that all of it exists.

    Raises:
        ValueError: see `distill`.
    """
    from tutelage.envs.batched.catalogue import vec_task_class
    from tutelage.experiments.distill_run import make_student, method_config
    from tutelage.teachers.experts import check_expert, unknown

    if config.method not in METHODS:
        raise ValueError(unknown("method", config.method, list(METHODS)))
    if config.obs not in MODALITIES:
        raise ValueError(unknown("obs", config.obs, list(MODALITIES)))
    for name in ("seeds", "workers", "size", "num_envs", "episodes", "threads"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(config, name)}")
    if config.evaluations < 0 or config.first_seed < 0:
        raise ValueError("evaluations and first_seed must not be negative")
    method_config(config)  # refuses an unknown loss and bad numbers
    cls, values = vec_task_class(config.task), asdict(config)
    values["cameras"] = config.cameras or CAMERAS.get(config.task) or (cls.default_camera,)
    values["stack"] = config.stack or (1 if config.memory else STACKS.get(config.task, 1))
    config = DistillConfig(**values)
    probe = make_task(config, 1, "none", 0)
    try:
        make_student(config, probe, 0)
        if config.expert is not None:
            check_expert(given_expert(config), probe)
    finally:
        probe.close()
    return config


def given_expert(config: DistillConfig) -> MLPExpert:
    """The expert that the user named; one of SB3's files is taken to see what the task calls ``obs``.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it is damaged, or not trusted; see `load_expert`.
    """
    from tutelage.envs.batched.catalogue import vec_task_class
    from tutelage.students.expert_training import load_expert

    assert config.expert is not None
    view = vec_task_class(config.task).default_obs_view if config.expert.suffix == ".zip" else None
    return load_expert(config.expert, config.trust, view=view)


def make_task(config: DistillConfig, num_envs: int, looks: str, seed: int, also_rgb: bool = False) -> VecTask:
    """Environments with the pictures that the student sees.

    Args:
        config: which.
        num_envs: how many.
        looks: ``none``, ``mild``, ``strong`` or ``held-out``.
        seed: of tasks, starts and looks.
        also_rgb: take RGB pictures also where the student sees depth alone.
    """
    from tutelage.envs.batched.cameras import CameraConfig
    from tutelage.envs.batched.catalogue import make_vec_task
    from tutelage.envs.batched.visual_randomization import VisualRandomization

    visuals = getattr(VisualRandomization, looks.replace("-", "_"))()
    modalities: Any = MODALITIES[config.obs]
    if also_rgb:
        modalities = tuple(dict.fromkeys(("rgb", *modalities)))
    cameras = [CameraConfig(name, config.size, config.size, modalities) for name in config.cameras]
    threads = 1 if config.workers > 1 else 0
    return make_vec_task(
        config.task,
        num_envs,
        seed=seed,
        device=config.device,
        threads=threads,
        cameras=cameras,
        visuals=visuals,
    )


def read_results(folder: Path) -> dict[str, Any]:
    """``results.json`` of a finished seed, or an empty one."""
    from tutelage.experiments.records import read_status

    try:
        results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return results if read_status(folder).get("state") == "finished" else {}


def results_table(config: DistillConfig, results: list[tuple[int, dict[str, Any]]]) -> Table:
    """A column for each seed, and for their mean."""
    from rich.table import Table

    columns = [(f"seed {seed}", found) for seed, found in results]
    if len(columns) > 1:
        keys = [key for key, value in results[0][1].items() if isinstance(value, int | float)]
        mean = {key: sum(found[key] for _, found in results) / len(results) for key in keys}
        columns.append(("mean", mean))
    title = f"{config.task}: {METHODS[config.method]}, {config.obs} of {', '.join(config.cameras)}"
    table = Table(title=title, title_justify="left")
    table.add_column("success")
    for name, _ in columns:
        table.add_column(name, justify="right")
    for key, name in SUCCESSES.items():
        table.add_row(name, *(f"{100 * found[key]:.1f} %" for _, found in columns))
    table.add_section()
    for key, name in SECONDS.items():
        table.add_row(f"seconds: {name}", *(f"{found[f'{key}_seconds']:.1f}" for _, found in columns))
    table.add_section()
    for key, name in (("frames", "frames"), ("queries", "expert queries"), ("updates", "gradient steps")):
        table.add_row(name, *(f"{found[key]:,.0f}" for _, found in columns))
    return table


def _run_all(jobs: list[tuple[DistillConfig, int, Path]], workers: int) -> list[tuple[Path, str]]:
    """Run what is not finished; return the folders of those that failed, and why."""
    from tutelage.experiments.distill_run import run_seed
    from tutelage.experiments.folders import exit_with_parent
    from tutelage.experiments.grid import THREADS

    failed: list[tuple[Path, str]] = []
    if workers == 1:
        for job in jobs:
            run_seed(*job)
        return failed
    os.environ.update(THREADS)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=exit_with_parent) as pool:
        futures = [pool.submit(run_seed, *job) for job in jobs]
        for (_, _, folder), future in zip(jobs, futures, strict=True):
            if (error := future.exception()) is not None:
                failed.append((folder, f"{type(error).__name__}: {error}"))
    return failed


if __name__ == "__main__":
    sys.exit(distill(tyro.cli(DistillConfig, prog="tutelage distill")))

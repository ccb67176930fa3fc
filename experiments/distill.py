"""`tutelage distill`: from nothing, or from an expert, to students that see a camera and their own joints.

A grid of methods and seeds in one folder, like that of `tutelage compare`. What the command asks for, and
what it refuses before anything begins, is here; `distill_grid` runs the cells, `distill_expert` and
`distilled_student` are what happens in one.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tutelage.envs.batched.worlds.catalogue import vec_task_recipe
from tutelage.envs.contract.names import folder_name
from tutelage.experiments.trainings.distill_presets import MODALITIES, PRESETS

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.vision.vision_config import Encoder
    from tutelage.teachers.experts.mlp_expert import MLPExpert

UNDECISIVE_FIELDS = (
    "method",
    "preset",
    "seeds",
    "first_seed",
    "workers",
    "threads",
    "out",
    "baseline",
    "clips",
    "saliency",
    "report",
    "checkpoint_every",
)
"""Fields of the config that change no result of a cell, once all others are filled in."""

EXPERT_FIELDS = (
    "task",
    "expert",
    "trust",
    "expert_method",
    "expert_steps",
    "expert_success",
    "episodes",
    "device",
)
"""Fields that decide what the expert of a seed is."""


@dataclass(frozen=True)
class DistillConfig:
    """Distil privileged experts into students that see a camera and their own joints; compare methods.

    Example: `tutelage distill --task reach --method dagger bc on-policy --seeds 5 --workers 2`.

    Everything lies in runs/distill-TASK: experts/seed-K, of which all methods learn; METHOD/seed-K, each with
    student, results.json, evaluations and TensorBoard events; report/. Cells that are finished are not run
    again; those that were killed continue from their last checkpoint.
    """

    task: str
    """Name of a batched task, or module:Class of your own."""
    method: tuple[str, ...] = ("dagger",)
    """One or more: dagger, bc (behaviour cloning), on-policy, dagger-value, feature-alignment, kickstarting,
    distil-then-rl; without labels: aacd, aacd-frozen (they keep the expert's critic), asymmetric-ppo,
    pixels-ppo (they learn from rewards alone)."""
    obs: str = "rgb"
    """What the student sees beside its own joints: rgb, depth or rgbd."""
    preset: Literal["quick", "standard", "paper"] = "quick"
    """quick: minutes on two CPU cores a cell; standard: 8 times as many frames, 5 seeds; paper: 64 times as
    many, 10 seeds, for a GPU."""
    seeds: int | None = None
    """How many, each with an expert of its own; default: the preset's (1, 5, 10)."""
    first_seed: int = 0
    """The first of them."""
    workers: int = 1
    """Cells at work at the same time, each in a process; with more than one, of one thread each."""
    out: Path | None = None
    """Folder of all runs of the task; default: runs/distill-TASK."""
    baseline: str | None = None
    """The method that others are compared with; default: the first."""
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
    looks: Literal["auto", "none", "mild", "strong"] = "auto"
    """How much looks differ in training; auto: strong, or what the task allows. Evaluation is on held-out
    ones too. Methods are compared on held-out looks, but with none and mild, of students that see no other
    colours, on those of the training."""
    frames: int | None = None
    """Environment steps of the student's training; default: the preset's."""
    seconds: float | None = None
    """Seconds of the student's training, rolling out and learning, in place of frames; the expert's come on
    top, and are shown."""
    num_envs: int = 128
    """Environments at once."""
    stack: int | None = None
    """Pictures that the student sees at once; default: 1, or what the task needs."""
    memory: int = 0
    """Units of the student's recurrent memory; 0: none."""
    fusion: Literal["early", "late"] = "late"
    """late: an encoder for each camera; early: all images are channels of one input."""
    encoder: Literal["fast", "fine", "nature", "impala", "points"] | None = None
    """The student's image encoder; default: what suits the task, fast or, for small things among many others,
    fine. points is a PointNet of one camera's depth, for GPUs: on a CPU it learns some fifty times as slowly
    as fast."""
    opponents: bool = True
    """Show the encoder, beside red, green and blue, how far they are apart: it then tells colours that no
    training showed. Not for depth, nor for points."""
    predict: bool = True
    """Let students also predict what the expert knows, in training alone: it teaches them where things are.
    Of dagger, bc, on-policy, dagger-value and distil-then-rl."""
    head: Literal["deterministic", "gaussian"] | None = None
    """Whether the student answers with actions or with their distribution; default: deterministic, where the
    method draws no actions."""
    loss: str | None = None
    """huber, mse, kl (of distributions) or sigma (weighted by the expert's deviations), of methods that learn
    from labels; default: the method's."""
    augment: Literal["auto", "none", "shift", "strong", "camera"] = "auto"
    """Change pictures at random while learning: shift them by up to four pixels; strong: also change their
    colours, so that colours never seen in training do not pass for the goal; camera: also blur, noise,
    covered parts and lost depth, as of a real one; the frames of a stack or of a memory's sequence alike.
    auto: strong; none with --looks none, and for methods that learn from rewards, which take neither stack
    nor memory with it."""
    episodes: int | None = None
    """Episodes of an evaluation at the end; default: the preset's."""
    evaluations: int | None = None
    """Evaluations on the way, of up to 128 episodes, at equal shares of the budget for all methods, the first
    after the first round; default: the preset's."""
    threads: int = 0
    """That gradient steps are shared by; 0: all cores. No result depends on it."""
    clips: bool = True
    """Put clips of expert and student, side by side, into TensorBoard."""
    saliency: bool = False
    """Show what the student's actions depend on in its pictures; for finished cells too."""
    report: bool = True
    """Write the report at the end."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints, from which a killed cell continues."""
    set: tuple[str, ...] = ()
    """Settings of methods: dagger.beta-end=0, kickstarting.ppo.epochs=3, bc.learning.batch-size=512. Several
    values, dagger.beta-end=0,0.1,0.3, make a sweep: each has cells, curves and rows of its own."""
    device: str = "cpu"
    """cpu or cuda."""

    def run(self) -> int:
        """Run the grid; return the exit status."""
        return distill(self)

    @property
    def folder(self) -> Path:
        """Where the runs of this task lie."""
        return self.out or Path("runs") / f"distill-{folder_name(self.task)}"

    @property
    def images(self) -> tuple[str, ...]:
        """Names in ``obs_dict`` of what the student sees."""
        return tuple(f"{camera}/{modality}" for camera in self.cameras for modality in MODALITIES[self.obs])

    @property
    def budget(self) -> dict[str, Any]:
        """Limits of the student's training, as arguments of `Budget`."""
        if self.seconds is not None:
            return {"frames": self.frames, "seconds": self.seconds}
        usual = vec_task_recipe(self.task).quick_frames * PRESETS[self.preset].scale
        return {"frames": usual if self.frames is None else self.frames}

    @property
    def seed_numbers(self) -> range:
        """All seeds."""
        count = PRESETS[self.preset].seeds if self.seeds is None else self.seeds
        return range(self.first_seed, self.first_seed + count)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values; no ``set`` where there are no settings."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if not self.set:
            del plain["set"]
        return {k: str(v) if isinstance(v, Path) else v for k, v in plain.items()}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> DistillConfig:
        """The inverse of `to_json`."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        paths = {k: Path(plain[k]) for k in ("out", "expert") if plain.get(k) is not None}
        return DistillConfig(**{**plain, **paths})

    @property
    def training_looks(self) -> str:
        """Looks that the student learns from."""
        return vec_task_recipe(self.task).looks if self.looks == "auto" else self.looks

    @property
    def chosen_encoder(self) -> Encoder:
        """The student's image encoder."""
        return self.encoder or vec_task_recipe(self.task).encoder

    def decisive(self) -> dict[str, Any]:
        """The fields that decide a cell's results, beside method and seed, as JSON values."""
        return {name: value for name, value in self.to_json().items() if name not in UNDECISIVE_FIELDS}


def distill(config: DistillConfig) -> int:
    """Run all cells that are not finished, print the table, write the report; return the exit status.

    Raises:
        ValueError: for an unknown task, method, camera, picture, encoder or loss, things that do not go
            together, or an expert that does not fit: before anything is trained.
        FolderError: when the folder is in use, or a cell was made with another configuration.
    """
    from rich.console import Console
    from rich.markup import escape

    from tutelage.experiments.reports.distill_results import read_distillation
    from tutelage.experiments.reports.distill_summary import print_tables
    from tutelage.experiments.runs.locking import check_kind, locked
    from tutelage.experiments.trainings.distill_checks import checked
    from tutelage.experiments.trainings.distill_grid import DistillGrid
    from tutelage.students.vision.warm_up import compile_kernels

    config, console = checked(config), Console()
    out, program = config.folder, "tutelage" if shutil.which("tutelage") else sys.argv[0]
    check_kind(out, "distill.json")
    with locked(out, patience=2.0):
        grid = DistillGrid(config, shlex.join(["tutelage", *sys.argv[1:]]))
        watch = escape(f"TensorBoard, now or later: {program} watch {out}")
        console.print(escape(f"Results: {out}\n") + watch, soft_wrap=True)
        if config.workers > 1:
            compile_kernels()
        failed = grid.run(console)
        print_tables(read_distillation(out), console)
        if config.report:
            from tutelage.experiments.report import ReportConfig, report

            try:
                console.print(escape(f"Report: {report(ReportConfig(out))}"), soft_wrap=True)
            except Exception as error:  # the results are there, whatever a report makes of them
                console.print(escape(f"No report could be made ({error}); see: {program} report {out}"))
        console.print(watch, soft_wrap=True)
    return 1 if failed else 0


def given_expert(config: DistillConfig) -> MLPExpert:
    """The expert that the user named; one of SB3's files is taken to see what the task calls ``obs``.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when it is damaged, or not trusted; see `load_expert`.
    """
    from tutelage.envs.batched.worlds.catalogue import vec_task_class
    from tutelage.students.experts.expert_training import load_expert

    assert config.expert is not None
    view = vec_task_class(config.task).default_obs_view if config.expert.suffix == ".zip" else None
    return load_expert(config.expert, config.trust, view=view)


def make_task(
    config: DistillConfig,
    num_envs: int,
    looks: str,
    seed: int,
    *,
    held_out: bool = False,
    also_rgb: bool = False,
    pictures: bool = True,
) -> VecTask:
    """Environments with the pictures that the student sees.

    Args:
        config: which.
        num_envs: how many.
        looks: ``none``, ``mild``, ``strong``, ``held-out`` or ``beyond``.
        seed: of tasks, starts and looks.
        held_out: with objects that no training shows, where the task has any.
        also_rgb: take RGB pictures also where the student sees depth alone.
        pictures: take any; an expert needs none, and plays the same episodes without.
    """
    from tutelage.envs.batched.cameras.camera_config import CameraConfig
    from tutelage.envs.batched.looks.visual_randomization import VisualRandomization
    from tutelage.envs.batched.worlds.catalogue import make_vec_task

    modalities: Any = MODALITIES[config.obs]
    if also_rgb:
        modalities = tuple(dict.fromkeys(("rgb", *modalities)))
    cameras = [CameraConfig(name, config.size, config.size, modalities) for name in config.cameras]
    return make_vec_task(
        config.task,
        num_envs,
        seed=seed,
        device=config.device,
        threads=1 if config.workers > 1 else 0,
        cameras=cameras if pictures else (),
        visuals=getattr(VisualRandomization, looks.replace("-", "_"))(),
        **(vec_task_recipe(config.task).held_out if held_out else {}),
    )


def only(config: DistillConfig, method: str) -> DistillConfig:
    """The config of one method alone, with its own settings."""
    from tutelage.experiments.runs.sweeps import settings_of

    return replace(config, method=(method,), set=settings_of(method, config.set))


if __name__ == "__main__":
    from tutelage.experiments.command import run_as_module

    sys.exit(run_as_module(DistillConfig))

"""Recording of a dataset: an expert acts, or a mixture of expert and student, and all frames go to disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tutelage.students.datasets.dataset import CHUNK_FRAMES, DatasetWriter
from tutelage.students.datasets.dataset_files import ENDED, GROUP, SUCCESS, Layout, read_layout, read_log
from tutelage.students.distillation.machinery.learner import DEVIATION, LABEL
from tutelage.students.distillation.machinery.roll_out import check_fit
from tutelage.students.torch_tools.threads import torch_threads
from tutelage.teachers.experts.mlp_expert import check_expert

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import Observations, VecTask
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Expert

VIEWS = "obs/"
"""What names of views begin with in a dataset: the picture ``front/rgb`` is ``obs/front/rgb``."""

ALIASES = ("obs", "states")
"""In ``obs_dict``, but views under another name, clipped."""


@dataclass(frozen=True)
class RecordingConfig:
    """Settings of a recording: who acts, and for how many frames.

    Attributes:
        frames: of the whole dataset, environment steps of all environments; rounded up to whole chunks.
        beta: probability that the expert acts, in each environment at each step; below 1 a student acts
            elsewhere: DAgger's mixture, of one round.
        noise: standard deviation of Gaussian noise on the expert's actions, never on its labels, to show how
            it recovers.
        chunk_frames: frames of a chunk. Larger ones take less disk and more memory, and more is lost with a
            kill.

    Raises:
        ValueError: for a number out of range.
    """

    frames: int = 100_000
    beta: float = 1.0
    noise: float = 0.0
    chunk_frames: int = CHUNK_FRAMES

    def __post_init__(self) -> None:
        if self.frames < 1 or self.chunk_frames < 1:
            raise ValueError(
                f"frames and chunk_frames must be at least 1, not {self.frames} and {self.chunk_frames}"
            )
        if not 0 <= self.beta <= 1 or self.noise < 0:
            raise ValueError(f"need beta in [0, 1] and noise >= 0, not {self.beta} and {self.noise}")


def record(
    task: VecTask,
    expert: Expert,
    folder: str | Path,
    config: RecordingConfig,
    seed: int,
    student: VisionStudent | None = None,
    metadata: Mapping[str, Any] | None = None,
    on_progress: Callable[[int], bool | None] | None = None,
) -> int:
    """Record until the dataset has `config.frames`; frames on disk count, so that a killed recording goes on.

    ====================  ===============================================================================
    field                 of each environment at each step
    ====================  ===============================================================================
    ``obs/<view>``        what it showed before the action: every view, pictures too; depth in float16
    ``expert/mean, std``  what the expert said, before clipping; ``expert/value`` where it has a critic
    ``action``            that was taken, in [-1, 1]
    ``by_expert``         whether it was the expert's
    ``reward``            of the step
    ``started``           whether this was the first frame of an episode
    ``ended``             whether the step ended the episode; ``time_out``: by the time limit alone
    ``success``           whether it ended with success
    ``task``              parameters of the episode, float64
    ====================  ===============================================================================

    Args:
        task: environments with the cameras and looks that are wanted; seeded and reset here.
        expert: labels all states.
        folder: a dataset to go on with, of the same task, expert and settings, or where to begin one.
        config: settings.
        seed: of starts, tasks, looks, noise and who acts. A recording that goes on draws new ones, from the
            seed and the steps that are there: two that were killed at other moments differ.
        student: who acts where the expert does not.
        metadata: what else is to be told of the data, JSON values; an appending recording must tell the same.
        on_progress: called with the frames on disk after every chunk; where it returns False, the recording
            ends.

    Returns:
        Frames that were recorded now.

    Raises:
        ValueError: when expert or student do not fit the task, or there is no student for a `beta` below 1.
        DatasetError: when the folder holds other data, or damaged ones; see `DatasetWriter`.
    """
    if config.beta < 1 and student is None:
        raise ValueError(
            f"with beta={config.beta} a student acts too; give one, or beta=1 for the expert alone"
        )
    if student is None:
        check_expert(expert, task)
    else:
        check_fit(task, expert, student)
    folder = Path(folder)
    before = _steps_there(folder)
    seeds = np.random.default_rng([seed, before]).integers(0, 2**31, task.num_envs + 1).tolist()
    generator = torch.Generator(task.device).manual_seed(seeds.pop())
    task.auto_reset = True
    task.seed(seeds)
    recording = _Recording(task, expert, student, config, generator)
    described = {**describe(task, expert, config, student), "seed": seed, **(metadata or {})}
    with DatasetWriter(folder, recording.peek(), described, config.chunk_frames) as writer, torch_threads(1):
        while writer.steps * task.num_envs < config.frames:
            was = writer.steps
            recording.step(writer)
            done = writer.steps * task.num_envs
            if writer.steps > was and on_progress is not None and on_progress(done) is False:
                break
        return (writer.steps - before) * task.num_envs


class _Recording:
    """Running episodes that are recorded."""

    def __init__(
        self,
        task: VecTask,
        expert: Expert,
        student: VisionStudent | None,
        config: RecordingConfig,
        generator: torch.Generator,
    ) -> None:
        self.task, self.expert, self.student = task, expert, student
        self.config, self.generator = config, generator
        self.obs_dict = task.reset()
        self.state = None if student is None else student.start(task.num_envs)
        self.started = torch.ones(task.num_envs, dtype=torch.bool, device=task.device)
        self.advice = expert.advise(self.obs_dict)
        self.judges = self.advice.value is not None

    def step(self, writer: DatasetWriter) -> None:
        """Take a step of all environments and hand it to the writer."""
        mean = self.advice.mean
        right, n = mean.clamp(-1, 1), len(mean)
        by_expert = torch.rand(n, generator=self.generator, device=mean.device) < self.config.beta
        jitter = torch.randn(mean.shape, generator=self.generator, device=mean.device)
        actions = (right + self.config.noise * jitter).clamp(-1, 1)
        if self.student is not None and self.state is not None:
            acts, self.state = self.student.act(self.obs_dict, self.state)
            actions = torch.where(by_expert[:, None], actions, acts)
        fields = self._fields(self.obs_dict, actions, by_expert)
        fields["task"] = self.task.tasks.clone()  # the automatic reset will overwrite it
        self.obs_dict, reward, dones, extras = self.task.step(actions)
        fields |= {
            "reward": reward,
            ENDED: dones.bool(),
            "time_out": extras["time_outs"],
            SUCCESS: extras["success"],
        }
        writer.add(fields, self.started)
        self.started = dones.bool()
        if self.state is not None:
            self.state = self.state.reset(self.started)
        self.advice = self.expert.advise(self.obs_dict)

    def peek(self) -> dict[str, Tensor]:
        """Fields of the right shapes and types."""
        task, flag = self.task, torch.zeros_like(self.started)
        fields = self._fields(self.obs_dict, task.actions, flag)
        ends = {"reward": task.rew_buf, ENDED: flag, "time_out": flag, SUCCESS: flag}
        return {**fields, "task": task.tasks, **ends}

    def _fields(self, obs_dict: Observations, actions: Tensor, by_expert: Tensor) -> dict[str, Tensor]:
        fields = {f"{VIEWS}{name}": view for name, view in obs_dict.items() if name not in ALIASES}
        fields |= {LABEL: self.advice.mean, DEVIATION: self.advice.std}
        if self.judges:  # of several experts, those that are asked in another step may have no values
            unknown = torch.full_like(self.advice.mean[:, 0], torch.nan)
            fields["expert/value"] = unknown if self.advice.value is None else self.advice.value
        return {**fields, "action": actions, "by_expert": by_expert}


def describe(
    task: VecTask, expert: Expert, config: RecordingConfig, student: VisionStudent | None
) -> dict[str, Any]:
    """Describe the data of a recording, as JSON values."""
    cls = type(task)
    cameras: dict[str, dict[str, Any]] = {}
    for name, view in task.obs_dict.items():
        camera, slash, modality = name.rpartition("/")
        if slash:
            height, width = view.shape[1:3]
            cameras.setdefault(camera, {"width": width, "height": height, "modalities": []})
            cameras[camera]["modalities"].append(modality)
    values = {
        "task": f"{cls.__module__}:{cls.__qualname__}",
        "task_space": task.task_space.to_json(),
        "max_episode_length": task.max_episode_length,
        "cameras": cameras,
        "visuals": None if task.visuals is None else asdict(task.visuals),
        "expert": {"view": expert.view, "facts": getattr(expert, "facts", {})},
        "student": None if student is None else asdict(student.config),
        "beta": config.beta,
        "noise": config.noise,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: _version(name) for name in ("tutelage", "mujoco", "torch", "zarr", "numpy")},
    }
    return dict(json.loads(json.dumps(values)))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _steps_there(folder: Path) -> int:
    """Count the steps of the dataset in a folder, if there is one."""
    if not (folder / GROUP).exists():
        return 0
    layout: Layout = read_layout(folder)[0]
    return len(read_log(folder)[0]) * layout.chunk_steps

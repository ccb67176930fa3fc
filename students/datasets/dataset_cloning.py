"""Behaviour cloning from a dataset on disk: no environment, no expert, the same learner."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tutelage.envs.contract.names import unknown_name
from tutelage.envs.contract.state import StateDict, StateError
from tutelage.students.datasets.dataset import Dataset
from tutelage.students.datasets.dataset_files import DTYPES, ENDED, SUCCESS
from tutelage.students.datasets.dataset_recording import VIEWS
from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.learner import DEVIATION, LABEL, Learner, LearningConfig
from tutelage.students.distillation.machinery.method import load_optimizer, optimizer_state
from tutelage.students.distillation.machinery.progress import (
    Budget,
    DistillationResult,
    OnProgress,
    RunCounts,
)
from tutelage.students.torch_tools.threads import torch_threads

if TYPE_CHECKING:
    from tutelage.students.vision.vision_student import VisionStudent


@dataclass(frozen=True)
class CloningConfig:
    """Settings of behaviour cloning from a dataset.

    Attributes:
        updates: gradient steps; with 128 environments and 200,000 frames, `BehaviourCloningConfig` makes
            3,780.
        seconds: of reading and learning after which to end before that; None for no limit.
        learning: the student's gradient steps.
        round_updates: gradient steps between two reports.
        buffer_frames: frames in memory at a time. 60,000 RGB pictures of 64 x 64 take 0.74 GB.
        samples_per_frame: where the dataset has more frames: how often each is drawn, on average, before it
            makes room for the next; in behaviour cloning that rolls out, it is 4.8.

    Raises:
        ValueError: for a number out of range.
    """

    updates: int = 3_780
    seconds: float | None = None
    learning: LearningConfig = field(default_factory=LearningConfig)
    round_updates: int = 110
    buffer_frames: int = 60_000
    samples_per_frame: float = 4.8

    def __post_init__(self) -> None:
        for name in ("updates", "seconds", "round_updates", "buffer_frames", "samples_per_frame"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")


def clone_from(
    dataset: Dataset,
    student: VisionStudent,
    config: CloningConfig,
    seed: int,
    on_progress: OnProgress | None = None,
) -> DistillationResult:
    """Train a student by `DatasetCloning`, from the first round to the last; see there."""
    return DatasetCloning(dataset, student, config, seed).run(on_progress)


class DatasetCloning:
    """A student's training on the expert's labels of recorded frames, round by round.

    A dataset that fits into the ring is read once, in order. Of a larger one, stretches of chunks are read in
    an order that is drawn anew for every pass, and the oldest in the ring make room; an episode that is under
    way where a stretch begins counts as begun there, which concerns stacked frames and memories alone.

    It is saved and continued as distillation methods are, by `save_checkpoint` and `load_checkpoint`.

    Args:
        dataset: of `tutelage.students.datasets.dataset_recording.record`, or with its fields.
        student: trained in place; its views must have been recorded.
        config: settings.
        seed: of minibatches, augmentation and the order of reading. The same dataset, student and seed give
            the same student on a CPU.

    Attributes:
        counts: counts and clocks. Frames and queries are those of the dataset that were read, each counted
            once; `rollout` seconds are those of reading; success is that of the episodes that were read;
            action errors are NaN.

    Logged metrics, after every round: ``distillation/loss``, ``distillation/learning_rate``,
    ``rates/trained_frames_per_second``, ``cost/seconds`` and ``cost/frames``, read so far.

    Raises:
        ValueError: when the dataset lacks what the student sees, or its actions are of another size.
        DatasetError: when a file is damaged; from `run` too.
    """

    def __init__(self, dataset: Dataset, student: VisionStudent, config: CloningConfig, seed: int) -> None:
        names = check_dataset(dataset, student)
        self.student, self.config = student, config
        self.generator = torch.Generator(student.device).manual_seed(seed)
        self.learner = Learner(student, config.learning, self.generator)
        budget = Budget(seconds=math.inf if config.seconds is None else config.seconds)
        self.counts = RunCounts(budget, student.num_actions, student.device)
        self.feed = _Feed(dataset, names, self.learner, self.counts, config, seed)

    @property
    def ring(self) -> FrameBuffer:
        """The ring of frames in memory."""
        return self.feed.buffer

    @property
    def spent(self) -> float:
        """The share of the budget that is used up; 1 and more is all of it."""
        return max(self.counts.updates / self.config.updates, self.counts.spent)

    def run(self, on_progress: OnProgress | None = None) -> DistillationResult:
        """Go on until the budget is spent, or `on_progress` returns False; return what it cost.

        Raises:
            RuntimeError: when the loss is no longer finite.
        """
        going = self.spent < 1
        while going:
            with self.counts.clock("rollout"), torch_threads(1):
                self.feed.fill()
            done = self.counts.updates
            with self.counts.clock("learning"), torch_threads(1):
                self.learner.decay(self.spent)
                trained = 0
                for _ in range(min(self.config.round_updates, self.config.updates - done)):
                    loss, frames = self.learner.update(self.ring)
                    self.counts.add_update(loss, frames)
                    trained += frames
            self.feed.owe(trained)
            going = self.counts.report(on_progress, 1.0, self.learner.learning_rate) and self.spent < 1
        return self.counts.result()

    def state_dict(self, frames: bool = True) -> StateDict:
        """All that the following rounds depend on, by value; see `DistillationMethod.state_dict`."""
        return {
            "method": type(self).__name__,
            "student": {name: tensor.detach().clone() for name, tensor in self.student.state_dict().items()},
            "optimizer": optimizer_state(self.learner.optimizer),
            "generator": self.generator.get_state(),
            "ledger": self.counts.state_dict(),
            "ring": self.ring.state_dict(frames),
            "feed": self.feed.state_dict(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict` of the same dataset, student and config.

        Raises:
            StateError: when it is of something else, or damaged.
        """
        if state.get("method") != type(self).__name__:
            raise StateError(f"the state is of {state.get('method')}; this is {type(self).__name__}")
        self.ring.check_state(state["ring"])
        self.student.load_state_dict(state["student"])
        load_optimizer(self.learner.optimizer, state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.counts.load_state_dict(state["ledger"])
        self.ring.load_state_dict(state["ring"])
        self.feed.load_state_dict(state["feed"])


def check_dataset(dataset: Dataset, student: VisionStudent) -> dict[str, str]:
    """Check that a dataset has the fields that a student learns from; return view -> field.

    Raises:
        ValueError: naming the field that is missing or of another shape.
    """
    names = {view: f"{VIEWS}{view}" for view in student.config.views}
    labels = dict.fromkeys((LABEL, DEVIATION), (student.num_actions,))
    shapes = {names[view]: shape for view, shape in student.shapes.items()} | labels
    for name, shape in shapes.items():
        if name not in dataset.fields:
            raise ValueError(
                f"{dataset.folder} lacks what the student learns from: "
                f"{unknown_name('field', name, list(dataset.fields))}"
            )
        stored = dataset.fields[name].shape[1:]
        if stored != tuple(shape):
            raise ValueError(
                f"{name!r} of {dataset.folder} has shape {stored}, and the student takes {tuple(shape)}; "
                "make a student for this dataset, or record one for the student"
            )
    if not dataset.frames:
        raise ValueError(f"{dataset.folder} has no frames yet; record some by `tutelage data record`")
    return names


class _Feed:
    """Fills a ring from a dataset, once where it fits, or else again and again."""

    def __init__(
        self,
        dataset: Dataset,
        names: dict[str, str],
        learner: Learner,
        counts: RunCounts,
        config: CloningConfig,
        seed: int,
    ) -> None:
        self.dataset, self.names, self.learner, self.counts = dataset, names, learner, counts
        self.samples_per_frame = config.samples_per_frame
        example = {
            name: torch.zeros(dataset.fields[name].shape, dtype=DTYPES[dataset.fields[name].dtype])
            for name in self._wanted()
        }
        capacity = max(dataset.num_envs, min(config.buffer_frames, dataset.frames))
        self.buffer = FrameBuffer(capacity, dataset.num_envs, self._learnt(example), learner.student.device)
        self.fits = self.buffer.steps >= dataset.steps
        # An eighth of the ring: long enough for episodes, short enough to mix those of many tasks.
        self.stretch = max(1, self.buffer.steps // 8 // dataset.chunk_steps)
        self._order = torch.Generator().manual_seed(seed)
        self._begin_pass()
        self._owed = float(self.buffer.steps * self.buffer.num_envs)  # frames that are to be read

    def fill(self) -> None:
        """Read what is owed: the whole ring at first, then as much as was learnt from often enough."""
        while self._owed >= self.buffer.num_envs:
            self._owed -= self.buffer.num_envs
            self._add()

    def owe(self, trained: int) -> None:
        """Replace some frames in the next round, where there are others, after learning from so many."""
        if not self.fits:
            self._owed += trained / self.samples_per_frame

    def state_dict(self) -> StateDict:
        """Where in the order of reading it is."""
        return {"pass": self._pass_began, "taken": self._taken, "owed": self._owed}

    def load_state_dict(self, state: StateDict) -> None:
        """Go on reading there: chunks that were passed are not read again."""
        self._order.set_state(state["pass"])
        self._begin_pass(state["taken"])
        self._owed = state["owed"]

    def _begin_pass(self, taken: int = 0) -> None:
        """Draw the order of a pass over the dataset, and pass over its first steps."""
        self._pass_began, self._taken = self._order.get_state(), taken
        order = torch.arange(self.dataset.chunks)
        if not self.fits:
            parts = order.split(self.stretch)
            drawn = torch.randperm(len(parts), generator=self._order).tolist()
            order = torch.cat([parts[i] for i in drawn])
        whole, rest = divmod(taken, self.dataset.chunk_steps)
        # The chunk before tells whether an episode goes on in the next.
        first = max(0, whole - 1)
        self._steps = self.dataset.stream(order.tolist()[first:], self._wanted())
        for _ in range((whole - first) * self.dataset.chunk_steps + rest):
            next(self._steps)

    def _add(self) -> None:
        if self._taken == self.dataset.steps:
            self._begin_pass()
        values, started = next(self._steps)
        self._taken += 1
        started = started.to(self.buffer.device)
        ended, success = (
            values.pop(name).to(self.buffer.device) if name in values else torch.zeros_like(started)
            for name in (ENDED, SUCCESS)
        )
        learnt = self._learnt(values)
        self.buffer.add(learnt, started)
        self.learner.student.observe(learnt)
        size = (len(started), self.learner.student.num_actions)
        self.counts.add_step(ended, success, torch.full(size, math.nan, device=self.buffer.device))
        self.counts.frames = self.counts.queries = min(self.counts.frames, self.dataset.frames)

    def _wanted(self) -> list[str]:
        ends = [name for name in (ENDED, SUCCESS) if name in self.dataset.fields]
        return [*self.names.values(), LABEL, DEVIATION, *ends]

    def _learnt(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the learner keeps of a step."""
        obs_dict = {view: values[name] for view, name in self.names.items()}
        return self.learner.fields(obs_dict, values[LABEL], values[DEVIATION])

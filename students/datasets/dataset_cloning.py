"""Behaviour cloning from a dataset on disk: no environment, no expert, the same learner."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tutelage.envs.contract.names import unknown_name
from tutelage.students.datasets.dataset import Dataset
from tutelage.students.datasets.dataset_files import DTYPES, ENDED, SUCCESS
from tutelage.students.datasets.dataset_recording import VIEWS
from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.learner import DEVIATION, LABEL, Learner, LearningConfig
from tutelage.students.distillation.machinery.progress import Budget, DistillationResult, Ledger, OnProgress
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
    """Train a student on the expert's labels of recorded frames.

    A dataset that fits into the ring is read once, in order. Of a larger one, stretches of chunks are read in
    an order that is drawn anew for every pass, and the oldest in the ring make room; an episode that is under
    way where a stretch begins counts as begun there, which concerns stacked frames and memories alone.

    Args:
        dataset: of `tutelage.students.datasets.dataset_recording.record`, or with its fields.
        student: trained in place; its views must have been recorded.
        config: settings.
        seed: of minibatches, augmentation and the order of reading. The same dataset, student and seed give
            the same student on a CPU.
        on_progress: called after every round; where it returns False, the training ends. Success is that of
            the episodes that were read in the round, `rollout_seconds` those of reading, `action_error` NaN.

    Returns:
        What it cost; `frames` and `queries` are those of the dataset that were read, each counted once.

    Raises:
        ValueError: when the dataset lacks what the student sees, or its actions are of another size.
        DatasetError: when a file is damaged.
        RuntimeError: when the loss is no longer finite.
    """
    names = check_dataset(dataset, student)
    generator = torch.Generator(student.device).manual_seed(seed)
    learner = Learner(student, config.learning, generator)
    budget = Budget(seconds=math.inf if config.seconds is None else config.seconds)
    ledger = Ledger(budget, student.num_actions, student.device)
    feed = _Feed(dataset, names, learner, ledger, config, seed)
    with ledger.clock("rollout"), torch_threads(1):
        feed.fill()
    done, going = 0, True
    while going and done < config.updates:
        updates = min(config.round_updates, config.updates - done)
        with ledger.clock("learning"), torch_threads(1):
            learner.decay(max(done / config.updates, ledger.spent))
            trained = 0
            for _ in range(updates):
                loss, frames = learner.update(feed.buffer)
                ledger.add_update(loss, frames)
                trained += frames
        done += updates
        going = ledger.report(on_progress, 1.0, learner.learning_rate)
        with ledger.clock("rollout"), torch_threads(1):
            feed.renew(trained)
    return ledger.result()


def check_dataset(dataset: Dataset, student: VisionStudent) -> dict[str, str]:
    """Make sure that a dataset has what a student learns from; return view -> field.

    Raises:
        ValueError: naming what is missing or of another shape.
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
        found = dataset.fields[name].shape[1:]
        if found != tuple(shape):
            raise ValueError(
                f"{name!r} of {dataset.folder} has shape {found}, and the student takes {tuple(shape)}; make "
                "a student for this dataset, or record one for the student"
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
        ledger: Ledger,
        config: CloningConfig,
        seed: int,
    ) -> None:
        self.dataset, self.names, self.learner, self.ledger = dataset, names, learner, ledger
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
        self._steps = self._pass(shuffled=not self.fits)
        self._owed = 0.0  # frames that are to be renewed

    def fill(self) -> None:
        """Fill the ring for the first time."""
        for _ in range(self.buffer.steps):
            self._add()

    def renew(self, trained: int) -> None:
        """Replace some frames, where there are others, after learning from so many."""
        if self.fits:
            return
        self._owed += trained / self.samples_per_frame
        while self._owed >= self.buffer.num_envs:
            self._owed -= self.buffer.num_envs
            self._add()

    def _add(self) -> None:
        values, started = next(self._steps)
        started = started.to(self.buffer.device)
        ended, success = (
            values.pop(name).to(self.buffer.device) if name in values else torch.zeros_like(started)
            for name in (ENDED, SUCCESS)
        )
        learnt = self._learnt(values)
        self.buffer.add(learnt, started)
        self.learner.student.observe(learnt)
        size = (len(started), self.learner.student.num_actions)
        self.ledger.add_step(ended, success, torch.full(size, math.nan, device=self.buffer.device))
        self.ledger.frames = self.ledger.queries = min(self.ledger.frames, self.dataset.frames)

    def _pass(self, shuffled: bool) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """All steps, again and again where they are shuffled."""
        chunks = torch.arange(self.dataset.chunks)
        while True:
            order = chunks
            if shuffled:
                parts = chunks.split(self.stretch)
                drawn = torch.randperm(len(parts), generator=self._order).tolist()
                order = torch.cat([parts[i] for i in drawn])
            yield from self.dataset.stream(order.tolist(), self._wanted())

    def _wanted(self) -> list[str]:
        ends = [name for name in (ENDED, SUCCESS) if name in self.dataset.fields]
        return [*self.names.values(), LABEL, DEVIATION, *ends]

    def _learnt(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the learner keeps of a step."""
        obs_dict = {view: values[name] for view, name in self.names.items()}
        return self.learner.fields(obs_dict, values[LABEL], values[DEVIATION])

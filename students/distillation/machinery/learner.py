"""Gradient steps of a vision student towards an expert's labels, which all distillation methods share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from tutelage.students.distillation.machinery.losses import check_loss, distillation_loss
from tutelage.students.torch_tools.sharded_gradients import ShardedGradients
from tutelage.students.vision.vision_config import camera_of

if TYPE_CHECKING:
    from tutelage.envs.batched.looks.image_augmentation import ImageAugmentation
    from tutelage.students.distillation.machinery.frames import FrameBuffer
    from tutelage.students.vision.student_state import StudentState
    from tutelage.students.vision.vision_student import VisionStudent

LABEL, DEVIATION = "expert/mean", "expert/std"
"""Fields of the ring that hold the expert's means (as the loss wants them) and standard deviations."""


@dataclass(frozen=True)
class LearningConfig:
    """Settings of a student's learning from labelled frames.

    Attributes:
        loss: one of `tutelage.students.distillation.machinery.losses.LOSSES`.
        huber_beta: where the Huber loss turns from squared to absolute.
        temperature: softens the expert's distribution, in `kl` and `sigma`; see
            `tutelage.students.distillation.machinery.losses.tempered`.
        clip_labels: clip the expert's means to [-1, 1], as the task does with actions: how far an expert
            overshoots a limit makes no difference to what happens, and is hard to see in an image.
        learning_rate, final_learning_rate: Adam's, falling linearly from the first to the second (a share of
            the first) over the budget.
        batch_size: frames of a gradient step; of students with memory, ``batch_size // sequence_length``
            sequences.
        sequence_length: steps that gradients go back through, of students with memory.
        burn_in: a sequence that begins within an episode starts from an empty memory; its first steps only
            fill it and are left out of the loss. At most ``sequence_length - 1``.
        max_grad_norm: gradients are scaled down to it.
        augmentation: of the images, in learning alone; None for none.
        prediction: weight of the loss of what the student predicts, if anything: see `VisionConfig.predicts`.
        fresh_looks: draw the task's looks anew at every step of a roll-out, not only at resets, for students
            without memory that see single frames: see `RollOut.refresh`. Not for reinforcement learning.
        shard_size: on a CPU, minibatches are cut into shards of at most so many frames, which threads work
            at side by side. Each draws its frames and their augmentation from a generator of its own: results
            depend on this number, but not on `threads`.
        threads: that work at shards; 0 for all cores that this process may use.

    Raises:
        ValueError: for an unknown loss, or a number out of range.
    """

    loss: str = "huber"
    huber_beta: float = 0.1
    temperature: float = 1.0
    clip_labels: bool = True
    learning_rate: float = 2e-3
    final_learning_rate: float = 0.05
    batch_size: int = 256
    sequence_length: int = 16
    burn_in: int = 4
    max_grad_norm: float = 10.0
    augmentation: ImageAugmentation | None = None
    prediction: float = 0.1
    fresh_looks: bool = True
    shard_size: int = 128
    threads: int = 0

    def __post_init__(self) -> None:
        check_loss(self.loss)
        positive = (
            "huber_beta",
            "temperature",
            "learning_rate",
            "batch_size",
            "sequence_length",
            "max_grad_norm",
            "shard_size",
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if not self.prediction >= 0:
            raise ValueError(f"prediction must not be negative, but is {self.prediction}")
        if self.threads < 0:
            raise ValueError(f"threads must be at least 1, or 0 for all cores, not {self.threads}")
        if not 0 <= self.burn_in < self.sequence_length:
            raise ValueError(
                f"burn_in must be from 0 to sequence_length - 1 = {self.sequence_length - 1}, not "
                f"{self.burn_in}"
            )
        if not 0 <= self.final_learning_rate <= 1:
            raise ValueError(f"final_learning_rate is a share from 0 to 1, not {self.final_learning_rate}")


class Learner:
    """Takes the gradient steps of one student.

    Args:
        student: trained in place.
        config: how.
        generator: of minibatches and augmentation, on the student's device.
    """

    def __init__(self, student: VisionStudent, config: LearningConfig, generator: Generator) -> None:
        self.student, self.config, self.generator = student, config, generator
        self.gradients = ShardedGradients(student, config.threads)
        self.optimizer = torch.optim.Adam(student.parameters(), config.learning_rate, fused=True)
        self.stacks = dict.fromkeys(student.config.images, student.config.frames)
        self.inputs = student.config.views

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next gradient step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    @property
    def recurrent(self) -> bool:
        """Whether the student has a memory, and so learns from sequences."""
        return self.student.config.memory > 0

    def decay(self, spent: float) -> None:
        """Set the learning rate for the share of the budget that is spent.

        ``lr = lr_0 (1 - (1 - final) min(spent, 1))``
        """
        final = self.config.final_learning_rate
        rate = self.config.learning_rate * (1 - (1 - final) * min(spent, 1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def fields(self, obs_dict: Mapping[str, Tensor], mean: Tensor, std: Tensor) -> dict[str, Tensor]:
        """Return the fields that the ring keeps of a step: the student's views, and the label."""
        label = mean.clamp(-1, 1) if self.config.clip_labels else mean
        return {**{name: obs_dict[name] for name in self.inputs}, LABEL: label, DEVIATION: std}

    def update(self, buffer: FrameBuffer) -> tuple[Tensor, int]:
        """Take one gradient step on a minibatch; return the loss and the number of its frames.

        With memory: on sequences, from an empty memory, gradients truncated to the sequence (Werbos 1990).
        """
        config = self.config
        length = min(config.sequence_length, buffer.size) if self.recurrent else 1
        samples = max(1, config.batch_size // length)  # frames, or sequences of them
        shards = 1 if buffer.device.type == "cuda" else math.ceil(samples * length / config.shard_size)
        shards = min(shards, samples)
        parts = [samples // shards + (k < samples % shards) for k in range(shards)]
        loss = self.gradients(
            [
                partial(self._shard_loss, buffer, part, length, generator)
                for part, generator in zip(parts, self._generators(shards), strict=True)
            ]
        )
        self.descend()
        return loss, samples * length

    def sequence_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean loss of sequences, fields ``(length, sequences, ...)``, from an empty memory.

        The memory is cleared where an episode begins. A step counts once the memory has had `burn_in` steps
        to fill, or all of its episode.
        """
        total, count = self._sequence_sums(batch, self.student, self.generator)
        return total / count.clamp(min=1e-8)

    def losses(
        self,
        batch: Mapping[str, Tensor],
        state: StudentState | None,
        student: VisionStudent | None = None,
        generator: Generator | None = None,
    ) -> tuple[Tensor, StudentState]:
        """Loss of each sample, and the memory after the last.

        Args:
            batch: fields of frames, ``(n, ...)``; with a `state`, of sequences, ``(T, n, ...)``.
            state: before the first step; it is cleared where a step's ``age`` is 0.
            student: whose; default: the learner's.
            generator: of augmentation; default: the learner's.
        """
        config = self.config
        student, generator = student or self.student, generator or self.generator
        inputs = {name: batch[name] for name in self.inputs}
        if config.augmentation is not None:
            inputs |= augmented(config.augmentation, inputs, student, 0 if state is None else 1, generator)
        if state is None:
            output = student(inputs, student.start(len(batch[LABEL])))
        else:
            output = student.forward_sequence(inputs, state, batch["age"] == 0)
        losses = distillation_loss(
            config.loss,
            output.mean,
            output.std,
            batch[LABEL],
            batch[DEVIATION],
            config.huber_beta,
            config.temperature,
        )
        if (predictor := student.predictor) is not None and output.predicted is not None:
            losses = losses + config.prediction * predictor.losses(output.predicted, batch[predictor.view])
        return losses, output.state

    def step(self, loss: Tensor) -> Tensor:
        """Follow the gradient of a loss; return the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.descend()
        return loss.detach()

    def descend(self) -> None:
        """Take an optimiser's step along the present gradients."""
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.config.max_grad_norm)
        self.optimizer.step()

    def _generators(self, count: int) -> list[Generator]:
        """A generator for each shard, seeded anew from the learner's; that itself where there is but one."""
        if count == 1:
            return [self.generator]
        seeds = torch.randint(2**62, (count,), generator=self.generator).tolist()
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def _shard_loss(
        self, buffer: FrameBuffer, count: int, length: int, generator: Generator, student: VisionStudent
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses of newly drawn frames, or sequences of them, and how many losses it is of."""
        if self.recurrent:
            batch = buffer.sample_sequences(count, length, generator, self.stacks)
            return self._sequence_sums(batch, student, generator)
        batch = buffer.sample(count, generator, self.stacks)
        losses, _ = self.losses(batch, None, student, generator)
        return losses.sum(), losses.new_tensor(count)

    def _sequence_sums(
        self, batch: Mapping[str, Tensor], student: VisionStudent, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses that count, and how many do; see `sequence_loss`."""
        age = batch["age"]
        losses, _ = self.losses(batch, student.start(age.shape[1]), student, generator)
        seen = torch.arange(len(age), device=age.device)[:, None]
        counts = ((seen >= self.config.burn_in) | (age <= seen)).to(losses.dtype)
        return (losses * counts).sum(), counts.sum()


def augmented(
    augment: ImageAugmentation,
    inputs: Mapping[str, Tensor],
    student: VisionStudent,
    axis: int,
    generator: Generator,
) -> dict[str, Tensor]:
    """A student's pictures, augmented, every sample differently.

    The frames of a sample's stack or sequence are augmented alike: from where things are in one and in the
    next it is to tell how fast they move. So are RGB and depth of one camera, which show the same.

    Args:
        augment: how.
        inputs: the pictures by name, and perhaps more.
        student: whose they are.
        axis: of the samples.
        generator: of what is drawn.
    """
    changed: dict[str, Tensor] = {}
    begun: dict[str, Tensor] = {}
    for name in student.config.images:
        camera, pictures, shape = camera_of(name), inputs[name], student.shapes[name]
        drawing = generator
        if camera in begun:
            drawing = Generator(generator.device)
            drawing.set_state(begun[camera])
        else:
            begun[camera] = generator.get_state()
        alike = _positions(pictures.shape[: -len(shape)], axis, pictures.device)
        changed[name] = augment(pictures.reshape(-1, *shape), drawing, alike).view(pictures.shape)
    return changed


def _positions(shape: Sequence[int], axis: int, device: torch.device) -> Tensor:
    """Position along one axis of each element of an array, flattened: 0 0 1 1 for axis 0 of (2, 2)."""
    along = [-1 if i == axis else 1 for i in range(len(shape))]
    return torch.arange(shape[axis], device=device).view(along).expand(tuple(shape)).flatten()

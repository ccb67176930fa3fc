"""On-policy distillation, the rsl_rl way: learn from the student's own last steps, then forget them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch

from tutelage.students.distillation.machinery.card import MethodCard
from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.method import DistillationMethod, MethodConfig
from tutelage.students.distillation.machinery.progress import Budget, DistillationResult, OnProgress
from tutelage.students.torch_tools.threads import torch_threads

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.vision.student_state import StudentState
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Expert


@dataclass(frozen=True)
class OnPolicyConfig:
    """Settings of on-policy distillation.

    Attributes:
        budget: how long.
        learning: the student's gradient steps; its `batch_size`, `sequence_length` and `burn_in` are not
            used: a gradient step is of `gradient_length` steps of all environments, in order, and the memory
            is the one that the student really had.
        rollout_steps: steps of all environments between updates.
        gradient_length: steps that one gradient step is of, and that gradients go back through.
        epochs: passes over the roll-out.
        stochastic: students with a Gaussian head act by drawing from it, as in rsl_rl.

    Raises:
        ValueError: for a number out of range.
    """

    budget: Budget = field(default_factory=lambda: Budget(frames=200_000))
    learning: LearningConfig = field(default_factory=LearningConfig)
    rollout_steps: int = 24
    gradient_length: int = 3
    epochs: int = 2
    stochastic: bool = True

    def __post_init__(self) -> None:
        for name in ("rollout_steps", "gradient_length", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


class OnPolicy(DistillationMethod):
    """Trains a student on its own last roll-out, labelled by the expert, and nothing older.

    rsl_rl's ``Distillation`` (Schwarke et al. 2025, "RSL-RL: A Learning Library for Robotics Research"):
    on-policy distillation (Czarnecki et al. 2019, "Distilling Policy Distillation": along the student's own
    trajectories) by gradients through time. With ``loss="kl"`` and a Gaussian head it follows the expert's
    distribution. Otherwise as `DistillationMethod`.

    Logged metrics: those of `DistillationMethod`, ``distillation/loss`` to ``cost/seconds``; no diagnostics.
    """

    card: ClassVar[MethodCard] = MethodCard("on-policy distillation", predicts=True, sharded=False)
    config_class: ClassVar[type[MethodConfig]] = OnPolicyConfig

    def __init__(
        self, task: VecTask, expert: Expert, student: VisionStudent, config: OnPolicyConfig, seed: int
    ) -> None:
        super().__init__(task, expert, student, config, seed)
        self.config = config
        # The frames of stacks that reach back before the roll-out are kept too.
        frames = task.num_envs * (config.rollout_steps + student.config.frames - 1)
        self.buffer = FrameBuffer(frames, task.num_envs, self.frame_fields(), task.device)
        self.stochastic = config.stochastic and student.config.head == "gaussian"

    def round(self) -> float:
        """Let the student act, then learn the actions that the expert would have taken."""
        config, counts = self.config, self.counts
        memory = self.rolling.state
        with counts.clock("rollout"), torch_threads(1):
            self.rolling.fill(
                self.buffer,
                config.rollout_steps,
                lambda student_action, expert_action: student_action,
                self.learner,
                counts,
                deterministic=not self.stochastic,
                generator=self.generator,
            )
        with counts.clock("learning"), torch_threads(1):
            self.learner.decay(counts.spent)
            for _ in range(config.epochs):
                self._epoch(memory)
        return 0.0

    def _epoch(self, memory: StudentState) -> None:
        """Go once through the last roll-out, a gradient step after every `gradient_length` of its steps.

        ``theta <- theta - lr grad mean_{t in part} loss(pi_theta(s_t, h_t), pi*(s_t))``; gradients do not
        pass from one part to the one before, only the memory's values do.
        """
        config, learner, buffer = self.config, self.learner, self.buffer
        first = buffer.size - config.rollout_steps
        envs = torch.arange(buffer.num_envs, device=buffer.device)
        for start in range(first, buffer.size, config.gradient_length):
            end = min(start + config.gradient_length, buffer.size)
            steps = torch.arange(start, end, device=buffer.device)
            part = buffer.gather(
                steps[:, None].expand(-1, len(envs)), envs.expand(len(steps), -1), learner.stacks, age=True
            )
            if learner.recurrent:
                losses, state = learner.losses(part, memory)
                memory = state.detach()
            else:
                losses, _ = learner.losses({name: part[name].flatten(0, 1) for name in part}, None)
            self.counts.add_update(learner.step(losses.mean()), part["age"].numel())


def distil(
    task: VecTask,
    expert: Expert,
    student: VisionStudent,
    config: OnPolicyConfig,
    seed: int,
    on_progress: OnProgress | None = None,
) -> DistillationResult:
    """Train a student by `OnPolicy`, from the first round to the last."""
    return OnPolicy(task, expert, student, config, seed).run(on_progress)

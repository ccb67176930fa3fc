"""On-policy distillation, the rsl_rl way: learn from the student's own last steps, then forget them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from tutelage.students.distillation.frames import FrameBuffer
from tutelage.students.distillation.learner import Learner, LearningConfig
from tutelage.students.distillation.progress import Budget, DistillationResult, Ledger, OnProgress
from tutelage.students.distillation.roll_out import RollOut
from tutelage.students.threads import torch_threads

if TYPE_CHECKING:
    from tutelage.envs.batched.vec_task import VecTask
    from tutelage.students.vision_student import StudentState, VisionStudent
    from tutelage.teachers.experts import Expert


@dataclass(frozen=True)
class OnPolicyConfig:
    """On-policy distillation's settings.

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


def distil(
    task: VecTask,
    expert: Expert,
    student: VisionStudent,
    config: OnPolicyConfig,
    seed: int,
    on_progress: OnProgress | None = None,
) -> DistillationResult:
    """Train a student on its own roll-outs, labelled by the expert, and nothing older.

    rsl_rl's ``Distillation`` (Schwarke et al. 2025, "RSL-RL: A Learning Library for Robotics Research"):
    on-policy distillation (Czarnecki et al. 2019, "Distilling Policy Distillation": along the student's own
    trajectories) by gradients through time. With ``loss="kl"`` and a Gaussian head it follows the expert's
    distribution.

    Args:
        task: environments of the training looks, with the cameras that the student sees; reset here.
        expert: labels what the student meets.
        student: trained in place.
        config: settings.
        seed: of augmentation and the student's draws. The same task (freshly made), student, seed and budget
            of frames give the same student on a CPU.
        on_progress: called after every update; where it returns False, the distillation ends.

    Returns:
        What it cost.

    Raises:
        ValueError: when expert or student do not fit the task.
        RuntimeError: when the loss is no longer finite.
    """
    generator = torch.Generator(task.device).manual_seed(seed)
    learner = Learner(student, config.learning, generator)
    ledger = Ledger(config.budget, task.num_actions, task.device)
    rolling = RollOut(task, expert, student)
    fields = learner.fields(rolling.obs_dict, task.actions, task.actions)
    # The frames of stacks that reach back before the roll-out are kept too.
    past = student.config.frames - 1
    buffer = FrameBuffer(task.num_envs * (config.rollout_steps + past), task.num_envs, fields, task.device)
    stochastic = config.stochastic and student.config.head == "gaussian"
    going = True
    while going:
        memory = rolling.state
        with ledger.clock("rollout"), torch_threads(1):
            rolling.fill(
                buffer,
                config.rollout_steps,
                lambda student_action, expert_action: student_action,
                learner,
                ledger,
                deterministic=not stochastic,
                generator=generator,
            )
        with ledger.clock("learning"), torch_threads(config.learning.threads):
            learner.decay(ledger.spent)
            for _ in range(config.epochs):
                _epoch(buffer, memory, config, learner, ledger)
        going = ledger.report(on_progress, 0.0, learner.learning_rate)
    return ledger.result()


def _epoch(
    buffer: FrameBuffer, memory: StudentState, config: OnPolicyConfig, learner: Learner, ledger: Ledger
) -> None:
    """Go once through the last roll-out, a gradient step after every `gradient_length` of its steps.

    ``theta <- theta - lr grad mean_{t in part} loss(pi_theta(s_t, h_t), pi*(s_t))``; gradients do not pass
    from one part to the one before, only the memory's values do.
    """
    first = buffer.size - config.rollout_steps
    envs = torch.arange(buffer.num_envs, device=buffer.device)
    for start in range(first, buffer.size, config.gradient_length):
        steps = torch.arange(start, min(start + config.gradient_length, buffer.size), device=buffer.device)
        part = buffer.gather(
            steps[:, None].expand(-1, len(envs)), envs.expand(len(steps), -1), learner.stacks, age=True
        )
        if learner.recurrent:
            losses, state = learner.losses(part, memory)
            memory = state.detach()
        else:
            losses, _ = learner.losses({name: values.flatten(0, 1) for name, values in part.items()}, None)
        ledger.add_update(learner.step(losses.mean()), part["age"].numel())

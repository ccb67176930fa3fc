"""DAgger: the student acts, the expert labels every state that it meets, and it learns from all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Generator, Tensor

from tutelage.envs.contract.state import StateDict
from tutelage.students.distillation.machinery.card import MethodCard
from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.method import DistillationMethod, MethodConfig
from tutelage.students.distillation.machinery.progress import Budget, DistillationResult, OnProgress
from tutelage.students.distillation.machinery.roll_out import Drive
from tutelage.students.torch_tools.threads import torch_threads

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Expert


@dataclass(frozen=True)
class DaggerConfig:
    """Settings of DAgger.

    Attributes:
        budget: how long.
        learning: the student's gradient steps.
        rollout_steps: steps of all environments in a round.
        updates: gradient steps after each round.
        buffer_frames: frames of the ring; when it is full, the oldest go (the paper keeps all). 60,000 RGB
            pictures of 64 x 64 take 0.74 GB.
        beta: how the probability that the expert acts falls from round to round: ``indicator``: 1 in the
            first `beta_rounds`, then `beta_end` (with 1 round and 0 the paper's parameter-free choice);
            ``linear``: from 1 to `beta_end` over `beta_rounds`; ``exponential``: ``p^i`` with p such that it
            has fallen to 1 % after `beta_rounds`, but not below `beta_end`.
        beta_rounds: see `beta`.
        beta_end: least probability that the expert acts.
        noise: standard deviation of Gaussian noise on the expert's actions, never on its labels, so that its
            rounds show more than its own path.

    Raises:
        ValueError: for an unknown schedule, or a number out of range.
    """

    budget: Budget = field(default_factory=lambda: Budget(frames=200_000))
    learning: LearningConfig = field(default_factory=LearningConfig)
    rollout_steps: int = 25
    updates: int = 110
    buffer_frames: int = 60_000
    beta: Literal["indicator", "linear", "exponential"] = "indicator"
    beta_rounds: int = 2
    beta_end: float = 0.1
    noise: float = 0.1

    def __post_init__(self) -> None:
        if self.beta not in ("indicator", "linear", "exponential"):
            raise ValueError(f"unknown beta schedule {self.beta!r} (known: indicator, linear, exponential)")
        for name in ("rollout_steps", "updates", "buffer_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.beta_rounds < 0 or self.noise < 0 or not 0 <= self.beta_end <= 1:
            raise ValueError(
                f"need beta_rounds >= 0, noise >= 0 and beta_end in [0, 1], not {self.beta_rounds}, "
                f"{self.noise}, {self.beta_end}"
            )

    def expert_share(self, round_: int) -> float:
        """beta_i: the probability that the expert acts, in round i = 0, 1, ..."""
        if self.beta == "indicator":
            share = float(round_ < self.beta_rounds)
        elif self.beta == "linear":
            share = 1 - (1 - self.beta_end) * min(1.0, round_ / max(1, self.beta_rounds))
        else:
            share = 0.01 ** (round_ / max(1, self.beta_rounds))
        return max(self.beta_end, share)


class Dagger(DistillationMethod):
    """Trains a student by dataset aggregation.

    Ross, Gordon and Bagnell 2011, "A Reduction of Imitation Learning and Structured Prediction to No-Regret
    Online Learning" (AISTATS), algorithm 3.1, with a ring for the data set and a few gradient steps on it
    after each short round, instead of training anew; the student is the last policy, not the best.

    The expert's labels are the means of what it advises. Otherwise as `DistillationMethod`.

    Logged metrics: those of `DistillationMethod`, ``distillation/loss`` to ``cost/seconds``; no diagnostics.
    """

    card: ClassVar[MethodCard] = MethodCard("DAgger", predicts=True)
    config_class: ClassVar[type[MethodConfig]] = DaggerConfig

    def __init__(
        self, task: VecTask, expert: Expert, student: VisionStudent, config: DaggerConfig, seed: int
    ) -> None:
        super().__init__(task, expert, student, config, seed)
        self.config, self.rounds = config, 0
        self.buffer = FrameBuffer(config.buffer_frames, task.num_envs, self.frame_fields(), task.device)

    def round(self) -> float:
        """Visit states with the mixture of expert and student, then learn from all states visited so far."""
        config, counts, learner = self.config, self.counts, self.learner
        # "Sample T-step trajectories using pi_i = beta_i pi* + (1 - beta_i) pi^_i;
        #  D <- D u {(s, pi*(s))}": each environment draws at each step who acts; all states are labelled.
        share = config.expert_share(self.rounds)
        with counts.clock("rollout"), torch_threads(1):
            drive = mixture(share, config.noise, self.generator)
            self.rolling.fill(self.buffer, config.rollout_steps, drive, learner, counts)
        # "Train classifier pi^_{i+1} on D": min over theta of E_{s ~ D} loss(pi_theta(s), pi*(s))
        with counts.clock("learning"), torch_threads(1):
            learner.decay(counts.spent)
            for _ in range(config.updates):
                counts.add_update(*learner.update(self.buffer))
        self.rounds += 1
        return share

    def own_state(self) -> StateDict:
        """Return the number of rounds: beta depends on it."""
        return {"rounds": self.rounds}

    def load_own_state(self, state: StateDict) -> None:
        """Continue with the round after the saved ones."""
        self.rounds = int(state["rounds"])


def distil(
    task: VecTask,
    expert: Expert,
    student: VisionStudent,
    config: DaggerConfig,
    seed: int,
    on_progress: OnProgress | None = None,
) -> DistillationResult:
    """Train a student by `Dagger`, from the first round to the last; see there, and `Dagger.run`."""
    return Dagger(task, expert, student, config, seed).run(on_progress)


def mixture(share: float, noise: float, generator: Generator) -> Drive:
    """Let the expert act, with noise, with probability `share`, and the student otherwise."""

    def drive(student: Tensor, expert: Tensor) -> Tensor:
        chosen = torch.rand(len(student), 1, generator=generator, device=student.device) < share
        jitter = torch.randn(expert.shape, generator=generator, device=expert.device)
        return torch.where(chosen, expert + noise * jitter, student)

    return drive

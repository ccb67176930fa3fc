"""Behaviour cloning: the expert acts, the student learns what it did, and never sees its own mistakes."""

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
from tutelage.students.torch_tools.threads import torch_threads

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Expert


@dataclass(frozen=True)
class BehaviourCloningConfig:
    """Settings of behaviour cloning.

    Attributes:
        budget: how long.
        learning: the student's gradient steps.
        rollout_steps: steps of all environments in a round.
        updates: gradient steps after each round.
        buffer_frames: frames of the ring; when it is full, the oldest go. 60,000 RGB pictures of 64 x 64 take
            0.74 GB.
        disturb: what is added to the expert's actions, never to its labels, to show how it recovers:
            ``none``; ``fixed``, independent Gaussian noise; ``dart``, Gaussian noise of the shape of the
            student's own errors.
        noise: standard deviation of that noise, root mean square over actions.

    Raises:
        ValueError: for an unknown disturbance, or a number out of range.
    """

    budget: Budget = field(default_factory=lambda: Budget(frames=200_000))
    learning: LearningConfig = field(default_factory=LearningConfig)
    rollout_steps: int = 25
    updates: int = 110
    buffer_frames: int = 60_000
    disturb: Literal["none", "fixed", "dart"] = "none"
    noise: float = 0.3

    def __post_init__(self) -> None:
        if self.disturb not in ("none", "fixed", "dart"):
            raise ValueError(f"unknown disturbance {self.disturb!r} (known: none, fixed, dart)")
        for name in ("rollout_steps", "updates", "buffer_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.noise < 0:
            raise ValueError(f"noise must not be negative, but is {self.noise}")


class BehaviourCloning(DistillationMethod):
    """Trains a student on the expert's own episodes.

    The supervised approach whose error can grow with the square of the episode's length (Ross and Bagnell
    2010, "Efficient Reductions for Imitation Learning", theorem 2.1), as a baseline; with ``disturb="dart"``
    the noise of Laskey et al. 2017, "DART: Noise Injection for Robust Imitation Learning". Episodes are
    rolled out and learnt from in turn, so that curves compare with those of the other methods.

    The expert acts by the means of what it advises. The student computes its actions in every state, for the
    reported errors and for DART, though they are not taken. Otherwise as `DistillationMethod`.

    Logged metrics: those of `DistillationMethod`, ``distillation/loss`` to ``cost/seconds``; no diagnostics.
    """

    card: ClassVar[MethodCard] = MethodCard("behaviour cloning", predicts=True)
    config_class: ClassVar[type[MethodConfig]] = BehaviourCloningConfig

    def __init__(
        self, task: VecTask, expert: Expert, student: VisionStudent, config: BehaviourCloningConfig, seed: int
    ) -> None:
        super().__init__(task, expert, student, config, seed)
        self.config = config
        self.buffer = FrameBuffer(config.buffer_frames, task.num_envs, self.frame_fields(), task.device)
        self.disturbance = Disturbance(config, task.actions, self.generator)

    def round(self) -> float:
        """Let the expert act, then learn from all its frames so far."""
        config, counts, learner = self.config, self.counts, self.learner
        # D <- D u {(s, pi*(s))}, s visited by pi*, or by pi* + psi
        with counts.clock("rollout"), torch_threads(1):
            self.rolling.fill(self.buffer, config.rollout_steps, self.disturbance, learner, counts)
            self.disturbance.adapt()
        # min over theta of E_{s ~ D} loss(pi_theta(s), pi*(s))
        with counts.clock("learning"), torch_threads(1):
            learner.decay(counts.spent)
            for _ in range(config.updates):
                counts.add_update(*learner.update(self.buffer))
        return 1.0

    def own_state(self) -> StateDict:
        """Return the shape of the noise, which DART has learnt."""
        return {"root": self.disturbance.root.clone()}

    def load_own_state(self, state: StateDict) -> None:
        """Continue with the saved shape of the noise."""
        self.disturbance.root = state["root"].to(self.task.device)


def distil(
    task: VecTask,
    expert: Expert,
    student: VisionStudent,
    config: BehaviourCloningConfig,
    seed: int,
    on_progress: OnProgress | None = None,
) -> DistillationResult:
    """Train a student by `BehaviourCloning`, from the first round to the last."""
    return BehaviourCloning(task, expert, student, config, seed).run(on_progress)


class Disturbance:
    """Adds noise to the expert's actions.

    Args:
        config: which.
        like: a tensor of the shape of the actions, on their device.
        generator: of the noise.

    Attributes:
        root: a square root of the noise's covariance, ``(a, a)``.
    """

    def __init__(self, config: BehaviourCloningConfig, like: Tensor, generator: Generator) -> None:
        self.config, self.generator = config, generator
        size = like.shape[1]
        deviation = 0.0 if config.disturb == "none" else config.noise
        self.root = deviation * torch.eye(size, device=like.device)
        self._products = torch.zeros(size, size, device=like.device)

    def __call__(self, student: Tensor, expert: Tensor) -> Tensor:
        """Return the expert's actions with noise; add the student's errors to the sums."""
        error = student - expert
        self._products += error.T @ error
        noise = torch.randn(expert.shape, generator=self.generator, device=expert.device)
        return expert + noise @ self.root.T

    def adapt(self) -> None:
        """Give DART's noise the shape of the errors since the last call.

        Laskey et al. 2017, algorithm 1 and section 4.3: ``Sigma = E[(pi^(s) - pi*(s)) (pi^(s) - pi*(s))^T]``,
        rescaled to ``Sigma alpha / tr(Sigma)``, alpha the squared error expected of the final student: here
        ``a noise^2`` for a actions.
        """
        if self.config.disturb == "dart":
            size = len(self._products)
            floor = 1e-6 * torch.eye(size, device=self._products.device)  # errors may lie in a subspace
            covariance = self._products + floor * (1 + self._products.trace())
            alpha = size * self.config.noise**2
            self.root = torch.linalg.cholesky(covariance * (alpha / covariance.trace()))
        self._products.zero_()

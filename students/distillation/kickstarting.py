"""Kickstarting: reinforcement learning of a student that an expert pulls towards itself, less and less."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from tutelage.envs.contract.state import StateDict
from tutelage.students.distillation.machinery.actor_critic import ActorCritic, Trajectories
from tutelage.students.distillation.machinery.card import MethodCard
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.progress import Budget, DistillationResult, OnProgress
from tutelage.students.ppo.formulas import PPOConfig, gaussian_kl
from tutelage.teachers.experts.expert_router import ExpertRouter

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import Observations, VecTask
    from tutelage.students.distillation.machinery.method import MethodConfig
    from tutelage.students.vision.student_state import StudentOutput
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Advice, Expert

WEIGHTS = (1e-3, 1e3)  # between which the adaptive weight stays
NO_VALUES = (
    "gate compares the expert's values with the student's, and this expert has no critic: set gate=False, or "
    "take an expert that has one"
)


@dataclass(frozen=True)
class KickstartingConfig:
    """Settings of kickstarting.

    Attributes:
        budget: how long.
        learning: the student's gradient steps; of its settings of labels, `clip_labels` is used.
        ppo: roll-outs, advantages and the loss.
        weight: lambda, of the divergence from the expert, at first.
        anneal: share of the budget over which lambda falls, linearly, to `final_weight` of its first value;
            0: it does not fall. Once it is 0, which it then stays, the expert is not asked any more.
        final_weight: see `anneal`; a share of `weight`.
        target_kl: where set, lambda is adaptive too: doubled after a round whose mean divergence was above
            1.5 times this, halved after one below this / 1.5.
        direction: ``expert``: KL(expert || student), whose gradient is that of the paper's cross-entropy;
            ``student``: KL(student || expert), which lets the student keep to a part of what the expert does.
        gate: pull only where the expert's value is above the student's.

    Raises:
        ValueError: for an unknown direction, or a number out of range.
    """

    budget: Budget = field(default_factory=lambda: Budget(frames=200_000))
    learning: LearningConfig = field(
        default_factory=lambda: LearningConfig(learning_rate=1e-3, batch_size=256, max_grad_norm=1.0)
    )
    ppo: PPOConfig = field(default_factory=lambda: PPOConfig(epochs=4, ratio_limit=3.0))
    weight: float = 1.0
    anneal: float = 1.0
    final_weight: float = 0.0
    target_kl: float | None = None
    direction: Literal["expert", "student"] = "expert"
    gate: bool = False

    def __post_init__(self) -> None:
        if self.direction not in ("expert", "student"):
            raise ValueError(f"direction must be 'expert' or 'student', not {self.direction!r}")
        for name in ("weight", "target_kl"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        for name in ("anneal", "final_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, not {getattr(self, name)}")

    def annealed(self, spent: float) -> float:
        """The share of lambda that is left when the share `spent` of the budget is used up."""
        if self.anneal == 0:
            return 1.0
        return 1 - (1 - self.final_weight) * min(1.0, spent / self.anneal)


class Kickstarting(ActorCritic):
    """PPO with a pull towards an expert.

    Schmitt et al. 2018, "Kickstarting Deep Reinforcement Learning", equation 2: in round k, on the student's
    own trajectories, ::

        L = L_PPO + lambda_k mean KL(expert || student)

    lambda_k is annealed by hand, where the paper also has it evolve in a population; here it can follow a
    target (`adapt`), by the rule for the penalty of PPO (Schulman et al. 2017, section 4). With a `gate`, as
    in the regularisation of Haarnoja et al. 2024, "Learning agile soccer skills for a bipedal robot with deep
    reinforcement learning", the student is left alone where it is better than the expert.

    Attributes:
        weight: lambda before annealing.
        asks: whether the expert is asked in this round.
        diagnostics: of the last round.

    Logged metrics: those of `ActorCritic`, and

    - ``diagnostics/expert_kl``, the mean divergence on the states of the round before learning from them;
      left out where the expert was not asked;
    - ``diagnostics/weight``, lambda_k.

    Raises:
        ValueError: for a gate of an expert that has no critic: at once where the expert tells, or else when
            it is asked.
    """

    card: ClassVar[MethodCard] = MethodCard(
        "kickstarting", gaussian=True, critic="privileged", augments=False
    )
    config_class: ClassVar[type[MethodConfig]] = KickstartingConfig

    def __init__(
        self, task: VecTask, expert: Expert, student: VisionStudent, config: KickstartingConfig, seed: int
    ) -> None:
        if config.gate and lacks_critic(expert):
            raise ValueError(NO_VALUES)
        super().__init__(task, expert, student, config, seed)
        self.config, self.advisor, self.asks = config, expert, True
        self.weight = self.round_weight = config.weight

    def roll_out(self) -> Trajectories:
        """Roll out as `ActorCritic` does, without asking for labels that count no more."""
        # By whole rounds: learning takes the expert's answers for all steps, or for none.
        self.asks = self.config.annealed(self.counts.spent) > 0
        return super().roll_out()

    def advise(self, obs_dict: Observations) -> Advice | None:
        """Ask the expert about every state, as long as its answers count."""
        if not self.asks:
            return None
        advice = self.advisor.advise(obs_dict)
        if self.config.gate and advice.value is None:
            raise ValueError(NO_VALUES)
        return advice

    def learn(self, trajectories: Trajectories, memory: Tensor) -> None:
        """Set lambda_k, then take PPO's gradient steps."""
        divergence = math.nan
        if self.asks:
            means, stds = trajectories["means"], trajectories["stds"]
            divergence = float(self.divergence(means, stds, trajectories).mean())
            self.adapt(divergence)
        self.round_weight = self.weight * self.config.annealed(self.counts.spent)
        super().learn(trajectories, memory)
        self.diagnostics |= {"expert_kl": divergence, "weight": self.round_weight}

    def adapt(self, divergence: float) -> None:
        """Let lambda follow the target, where there is one.

        ``lambda <- 2 lambda if KL > 1.5 target, lambda / 2 if KL < target / 1.5``, from 0.001 to 1000
        """
        target = self.config.target_kl
        if target is not None and divergence > 1.5 * target:
            self.weight = min(WEIGHTS[1], 2 * self.weight)
        elif target is not None and divergence < target / 1.5:
            self.weight = max(WEIGHTS[0], self.weight / 2)

    def added_losses(self, output: StudentOutput, batch: Mapping[str, Tensor]) -> Tensor | None:
        """``lambda_k KL``, and 0 where a gate is shut."""
        if self.round_weight == 0:
            return None
        assert output.std is not None
        losses = self.round_weight * self.divergence(output.mean, output.std, batch)
        return losses * (batch["expert/value"] > batch["values"]) if self.config.gate else losses

    def divergence(self, mean: Tensor, std: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Divergence of a student's distributions, ``(..., a)``, from the expert's, ``(...)``."""
        label, deviation = batch["expert/mean"], batch["expert/std"]
        if self.config.learning.clip_labels:
            label = label.clamp(-1, 1)
        if self.config.direction == "expert":
            return gaussian_kl(mean, std, label, deviation)
        return gaussian_kl(label, deviation, mean, std)

    def own_state(self) -> StateDict:
        """Return the adaptive weight."""
        return {"weight": self.weight}

    def load_own_state(self, state: StateDict) -> None:
        """Continue with the saved weight."""
        self.weight = float(state["weight"])


def lacks_critic(expert: Expert) -> bool:
    """Whether an expert tells that it has no critic; others, who do not tell, may yet give no values."""
    if isinstance(expert, ExpertRouter):
        return any(map(lacks_critic, expert.experts))
    return getattr(expert, "critic", expert) is None


def distil(
    task: VecTask,
    expert: Expert,
    student: VisionStudent,
    config: KickstartingConfig,
    seed: int,
    on_progress: OnProgress | None = None,
) -> DistillationResult:
    """Train a student by `Kickstarting`, from the first round to the last."""
    return Kickstarting(task, expert, student, config, seed).run(on_progress)

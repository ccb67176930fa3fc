"""Distil, then go on by reinforcement learning, with the critic that distillation has trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Generator, Tensor

from tutelage.envs.contract.state import StateDict
from tutelage.students.distillation.asymmetric_ppo import AsymmetricPPOConfig
from tutelage.students.distillation.dagger_value import DaggerValue, DaggerValueConfig
from tutelage.students.distillation.machinery.actor_critic import (
    ActorCritic,
    Trajectories,
    check_actor_critic,
)
from tutelage.students.distillation.machinery.card import MethodCard
from tutelage.students.distillation.machinery.learner import Learner, LearningConfig
from tutelage.students.distillation.machinery.progress import Budget, DistillationResult, OnProgress
from tutelage.students.ppo.formulas import PPOConfig, Terms, gaussian_kl

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import Observations, VecTask
    from tutelage.students.distillation.machinery.method import MethodConfig
    from tutelage.students.vision.student_state import StudentOutput
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Advice, Expert


@dataclass(frozen=True)
class DistilThenRLConfig:
    """Settings of distillation, and of the reinforcement learning that follows.

    Attributes:
        budget: how long, both together.
        learning: gradient steps of distillation; shards and threads are those of both. Its augmentation is
            of distillation alone: in reinforcement learning the student would act on augmented pictures.
        distil_share: of the budget, after which reinforcement learning begins.
        rollout_steps, updates, buffer_frames, beta_rounds, noise, value_epochs: of distillation, as in
            `DaggerValueConfig`.
        ppo: roll-outs, advantages and the loss of reinforcement learning; `gamma` and `lam` of both.
        rl_learning_rate, rl_batch_size, rl_max_grad_norm: of reinforcement learning, in place of those of
            `learning`; the rate falls anew, over the rest of the budget.
        warmup_rounds: of reinforcement learning at first, in which only the critic learns.
        anchor: whom a divergence keeps the student near to: ``expert``, who is asked on; ``student``, what
            distillation made of it, which costs no queries; ``none``.
        anchor_weight: of KL(anchor || student), at first.
        anchor_end: share of the rest of the budget after which the weight has fallen to 0, linearly; from
            then on nobody is asked.

    Raises:
        ValueError: for an unknown anchor, or a number out of range.
    """

    budget: Budget = field(default_factory=lambda: Budget(frames=400_000))
    learning: LearningConfig = field(default_factory=lambda: LearningConfig(loss="kl"))
    distil_share: float = 0.5
    rollout_steps: int = 25
    updates: int = 110
    buffer_frames: int = 60_000
    beta_rounds: int = 2
    noise: float = 0.1
    value_epochs: int = 4
    ppo: PPOConfig = field(default_factory=PPOConfig)
    rl_learning_rate: float = 3e-4
    rl_batch_size: int = 640
    rl_max_grad_norm: float = 1.0
    warmup_rounds: int = 4
    anchor: Literal["expert", "student", "none"] = "expert"
    anchor_weight: float = 0.3
    anchor_end: float = 1.0

    def __post_init__(self) -> None:
        if self.anchor not in ("expert", "student", "none"):
            raise ValueError(f"unknown anchor {self.anchor!r} (known: expert, student, none)")
        if not 0 < self.distil_share < 1:
            raise ValueError(f"distil_share must be between 0 and 1, not {self.distil_share}")
        if self.warmup_rounds < 0 or self.anchor_weight < 0 or not 0 < self.anchor_end <= 1:
            raise ValueError(
                "need warmup_rounds >= 0, anchor_weight >= 0 and anchor_end in (0, 1], not "
                f"{self.warmup_rounds}, {self.anchor_weight}, {self.anchor_end}"
            )
        _ = self.distillation, self.reinforcement  # which check their numbers

    @property
    def distillation(self) -> DaggerValueConfig:
        """Settings of the first part, distillation."""
        return DaggerValueConfig(
            budget=self.budget,
            learning=self.learning,
            rollout_steps=self.rollout_steps,
            updates=self.updates,
            buffer_frames=self.buffer_frames,
            beta_rounds=self.beta_rounds,
            noise=self.noise,
            gamma=self.ppo.gamma,
            lam=self.ppo.lam,
            value_epochs=self.value_epochs,
        )

    @property
    def reinforcement(self) -> AsymmetricPPOConfig:
        """Settings of the second part, reinforcement learning."""
        learning = replace(
            self.learning,
            augmentation=None,
            learning_rate=self.rl_learning_rate,
            batch_size=self.rl_batch_size,
            max_grad_norm=self.rl_max_grad_norm,
        )
        return AsymmetricPPOConfig(self.budget, learning, self.ppo)

    def weight(self, spent: float) -> float:
        """Weight of the divergence from the anchor, when the share `spent` of the budget is used up."""
        part = (spent - self.distil_share) / (1 - self.distil_share)
        return self.anchor_weight * (1 - min(1.0, max(0.0, part) / self.anchor_end))


class DistilThenRL(DaggerValue):
    """`DaggerValue` for a part of the budget, then PPO on the same student and critic.

    As Wan et al. 2023, "UniDexGrasp++", fine-tune distilled students, and as others do after imitation: an
    expert that sees more than the student cannot show what the student should do where it does not see
    enough; rewards can. A new critic would judge at random at first, and PPO would follow it away from what
    was distilled: so the critic is kept, and learns alone for `warmup_rounds` of the new roll-outs. Without a
    term that keeps it near, PPO may forget: the divergence from `anchor` falls to 0 over the rest of the
    budget, so that in the end the rewards alone decide.

    With a Gaussian head, ``learning.loss="kl"`` has the student learn the expert's deviations too, with which
    exploration then begins; other losses leave ``VisionConfig.init_std``.

    Args:
        task, expert, seed: as in `DistillationMethod`.
        student: with a Gaussian head, and a critic that sees a vector, mostly ``privileged``.
        config: settings.

    Attributes:
        tuning: the second part; None before it has begun.

    Logged metrics: in the first part those of `DaggerValue`, in the second those of `ActorCritic`.

    Raises:
        ValueError: when the student has no critic, or no distribution of actions to draw from.
    """

    card: ClassVar[MethodCard] = MethodCard(
        "distillation, then PPO", gaussian=True, critic="privileged", predicts=True
    )
    config_class: ClassVar[type[MethodConfig]] = DistilThenRLConfig

    def __init__(
        self, task: VecTask, expert: Expert, student: VisionStudent, config: DistilThenRLConfig, seed: int
    ) -> None:
        check_actor_critic(student)
        super().__init__(task, expert, student, config.distillation, seed)
        self.parts = config
        self.learner = PartLearner(student, config.learning, self.generator, 0.0, config.distil_share)
        self.tuning: FineTuning | None = None

    def round(self) -> float:
        """Distil in the first part, learn from rewards in the second."""
        if self.tuning is None and self.counts.spent < self.parts.distil_share:
            return super().round()
        if self.tuning is None:
            self.begin_tuning()
        assert self.tuning is not None
        share = self.tuning.round()
        self.diagnostics = self.tuning.diagnostics
        return share

    def begin_tuning(self) -> None:
        """Begin reinforcement learning, with new episodes."""
        seed = int(torch.randint(2**62, (), generator=self.generator, device=self.task.device))
        self.tuning = tuning = FineTuning(self.task, self.expert, self.student, self.parts, seed)
        tuning.counts = self.counts
        # What is saved, and told of, is from now on the second part's.
        self.learner, self.rolling = tuning.learner, tuning.rolling
        self.generator, self.buffer = tuning.generator, tuning.buffer

    def own_state(self) -> StateDict:
        """Return the rounds of both parts, and the anchor."""
        return {**super().own_state(), "tuning": None if self.tuning is None else self.tuning.own_state()}

    def load_own_state(self, state: StateDict) -> None:
        """Go on with the next round."""
        super().load_own_state(state)
        if self.tuning is not None:
            self.tuning.load_own_state(state["tuning"])

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`; see `DistillationMethod`."""
        if self.tuning is None and (state.get("own") or {}).get("tuning") is not None:
            self.begin_tuning()
        super().load_state_dict(state)


class FineTuning(ActorCritic):
    """The second part of `DistilThenRL`: PPO of the distilled student and critic, with an anchor.

    Attributes:
        rounds: so far.
        anchored: whether the anchor is asked in this round.
    """

    def __init__(
        self, task: VecTask, expert: Expert, student: VisionStudent, config: DistilThenRLConfig, seed: int
    ) -> None:
        settings = config.reinforcement
        super().__init__(task, expert, student, settings, seed)
        self.parts, self.advisor, self.rounds, self.anchored = config, expert, 0, True
        self.learner = PartLearner(student, settings.learning, self.generator, config.distil_share, 1.0)
        self.anchor: VisionStudent | None = None
        if config.anchor == "student":
            self.anchor = copy.deepcopy(student).requires_grad_(False).eval()
            self.anchor_state = self.anchor.start(task.num_envs)

    def advise(self, obs_dict: Observations) -> Advice | None:
        """Ask the expert for its actions, where it is the anchor and they count."""
        return self.advisor.advise(obs_dict) if self.parts.anchor == "expert" and self.anchored else None

    @torch.no_grad()
    def roll_out(self) -> Trajectories:
        """Roll out as `ActorCritic` does; add the anchor's actions, where the anchor is a student."""
        # By whole rounds: learning takes the anchor's answers for all steps, or for none.
        self.anchored = self.parts.weight(self.counts.spent) > 0
        trajectories = super().roll_out()
        if self.anchor is None or not self.anchored:
            return trajectories
        buffer, length = self.buffer, self.ppo.rollout_steps
        envs = torch.arange(buffer.num_envs, device=buffer.device)
        means, stds = [], []
        for step in range(buffer.size - length, buffer.size):
            seen = buffer.gather(torch.full_like(envs, step), envs, self.learner.stacks, age=True)
            output = self.anchor(seen, self.anchor_state.reset(seen["age"] == 0))
            self.anchor_state = output.state
            means.append(output.mean)
            stds.append(output.std)
        return {**trajectories, "expert/mean": torch.stack(means), "expert/std": torch.stack(stds)}

    def round(self) -> float:
        """Act, then learn from it."""
        share = super().round()
        self.rounds += 1
        return share

    def losses(self, output: StudentOutput, batch: Mapping[str, Tensor]) -> tuple[Tensor, Terms]:
        """Return PPO's losses and the anchor's; in the first rounds those of values alone."""
        losses, terms = super().losses(output, batch)
        if not self.warming_up:
            return losses, terms
        # The policy stays: a divergence is rounding, which `desired_kl` would raise the rate for.
        return self.ppo.value_loss * terms.value, terms._replace(kl=torch.zeros_like(terms.kl))

    def added_losses(self, output: StudentOutput, batch: Mapping[str, Tensor]) -> Tensor | None:
        """``weight KL(anchor || student)``"""
        weight = self.parts.weight(self.counts.spent)
        if self.parts.anchor == "none" or weight == 0:
            return None
        mean = batch["expert/mean"]
        if self.parts.learning.clip_labels:
            mean = mean.clamp(-1, 1)
        assert output.std is not None
        return weight * gaussian_kl(output.mean, output.std, mean, batch["expert/std"])

    @property
    def warming_up(self) -> bool:
        """Whether the critic alone learns in this round."""
        return self.rounds < self.parts.warmup_rounds

    def own_state(self) -> StateDict:
        """Return the rounds, and the anchor with its memory."""
        state: StateDict = {"rounds": self.rounds}
        if self.anchor is not None:
            state["anchor"] = {name: tensor.clone() for name, tensor in self.anchor.state_dict().items()}
            state["memory"] = self.anchor_state.memory.clone()
        return state

    def load_own_state(self, state: StateDict) -> None:
        """Go on with the next round."""
        self.rounds = int(state["rounds"])
        if self.anchor is not None:
            self.anchor.load_state_dict(state["anchor"])
            memory = state["memory"].to(self.task.device)
            self.anchor_state = replace(self.anchor_state, memory=memory)


class PartLearner(Learner):
    """A `Learner` whose learning rate falls over a part of the budget.

    Args:
        student, config, generator: as in `Learner`.
        begin, end: the part, as shares of the budget.
    """

    def __init__(
        self, student: VisionStudent, config: LearningConfig, generator: Generator, begin: float, end: float
    ) -> None:
        super().__init__(student, config, generator)
        self.begin, self.end = begin, end

    def decay(self, spent: float) -> None:
        """Set the learning rate for the share of the budget that is spent."""
        super().decay(max(0.0, spent - self.begin) / (self.end - self.begin))


def distil(
    task: VecTask,
    expert: Expert,
    student: VisionStudent,
    config: DistilThenRLConfig,
    seed: int,
    on_progress: OnProgress | None = None,
) -> DistillationResult:
    """Train a student by `DistilThenRL`, from the first round to the last."""
    return DistilThenRL(task, expert, student, config, seed).run(on_progress)

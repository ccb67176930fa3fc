"""Asymmetric PPO: reinforcement learning from pixels, with a critic that may see what the student cannot.

No expert has a part in it: it is the baseline of distillation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tutelage.students.distillation.machinery.actor_critic import ActorCritic
from tutelage.students.distillation.machinery.card import MethodCard
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.progress import Budget, DistillationResult, OnProgress
from tutelage.students.ppo.formulas import PPOConfig

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.distillation.machinery.method import MethodConfig
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Expert


@dataclass(frozen=True)
class AsymmetricPPOConfig:
    """Settings of asymmetric PPO.

    Attributes:
        budget: how long.
        learning: the student's gradient steps; its losses of labels are not used.
        ppo: roll-outs, advantages and the loss.
    """

    budget: Budget = field(default_factory=lambda: Budget(frames=1_000_000))
    learning: LearningConfig = field(
        default_factory=lambda: LearningConfig(learning_rate=2e-3, batch_size=800, max_grad_norm=0.5)
    )
    ppo: PPOConfig = field(default_factory=PPOConfig)


class AsymmetricPPO(ActorCritic):
    """PPO from scratch, with a critic that may see the state.

    Pinto et al. 2018, "Asymmetric Actor Critic for Image-Based Robot Learning": the critic, which is needed
    in simulation alone, sees the state, and the actor pictures. What the critic sees is decided by the
    student's ``critic_view``: a vector such as ``privileged`` for that; ``student`` for the usual PPO from
    pixels, whose critic and actor share an encoder.

    An expert may be given and is not asked; if the settings have no discount, it is that of the expert.

    Logged metrics: those of `ActorCritic`.
    """

    card: ClassVar[MethodCard] = MethodCard(
        "asymmetric PPO", expert="nothing", gaussian=True, critic="privileged", augments=False
    )
    config_class: ClassVar[type[MethodConfig]] = AsymmetricPPOConfig


def distil(
    task: VecTask,
    expert: Expert | None,
    student: VisionStudent,
    config: AsymmetricPPOConfig,
    seed: int,
    on_progress: OnProgress | None = None,
) -> DistillationResult:
    """Train a student by `AsymmetricPPO`, from the first round to the last."""
    return AsymmetricPPO(task, expert, student, config, seed).run(on_progress)

"""AACD, asymmetric actor-critic distillation: an expert's critic judges a student that imitates nobody."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from tutelage.students.distillation.machinery.actor_critic import ActorCritic, check_head
from tutelage.students.distillation.machinery.card import MethodCard
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.progress import Budget, DistillationResult, OnProgress
from tutelage.students.ppo.formulas import PPOConfig
from tutelage.students.vision.critics import Critic
from tutelage.teachers.experts.mlp_expert import MLPExpert, check_expert

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.distillation.machinery.method import MethodConfig
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Expert


@dataclass(frozen=True)
class AACDConfig:
    """Settings of AACD.

    Attributes:
        budget: how long.
        learning: the student's gradient steps; its losses of labels are not used.
        ppo: roll-outs, advantages and the loss. Its `gamma` is best left None: the expert's values are
            returns with the expert's discount.
        freeze_critic: leave the critic as it is.
    """

    budget: Budget = field(default_factory=lambda: Budget(frames=1_000_000))
    learning: LearningConfig = field(
        default_factory=lambda: LearningConfig(learning_rate=2e-3, batch_size=800, max_grad_norm=0.5)
    )
    ppo: PPOConfig = field(default_factory=PPOConfig)
    freeze_critic: bool = False


class AACD(ActorCritic):
    """PPO of a new actor under the critic of a privileged expert.

    Akinola et al. 2024, "TacSL: A Library for Visuotactile Sensor Simulation and Learning" (AACD): first an
    expert is trained on the privileged state, actor and critic; then a new actor, which sees pictures, by the
    usual PPO, with the critic of the first stage, fine-tuned or frozen. There is no term of imitation: what
    the expert knows comes through the advantages alone.

    The critic keeps the expert's normaliser of observations and its scale of rewards, neither of which
    follows what the student meets. Frozen, it tells the values of the expert's policy, not of the student's:
    with ``lam`` below 1 the advantages are biased towards what the expert would make of a state. The
    student's own critic, if any, is replaced (`VisionStudent.take_critic`), and so is what its config says of
    it. The expert itself stays as it is, and is asked nothing.

    Logged metrics: those of `ActorCritic`.

    Raises:
        ValueError: when the expert has no critic, is several experts, or its discount is not known.
    """

    card: ClassVar[MethodCard] = MethodCard(
        "AACD",
        expert="critic",
        gaussian=True,
        critic="expert",
        augments=False,
        settings={"freeze_critic": False},
    )
    config_class: ClassVar[type[MethodConfig]] = AACDConfig

    def __init__(
        self, task: VecTask, expert: Expert, student: VisionStudent, config: AACDConfig, seed: int
    ) -> None:
        if not isinstance(expert, MLPExpert):
            raise ValueError(
                f"AACD goes on with the critic of one expert, and {type(expert).__name__} is none that it "
                "can take over: give an MLPExpert, as train_expert and load_expert make them"
            )
        check_expert(expert, task)
        check_head(student)
        critic, view = Critic.of_expert(expert), expert.config.critic_view
        if config.ppo.gamma is None and expert.gamma is None:
            raise ValueError(
                "the expert does not tell the discount of its values: train it anew, or set gamma of "
                "PPOConfig to what it was trained with"
            )
        assert view is not None
        student.take_critic(critic.requires_grad_(not config.freeze_critic), view)
        super().__init__(task, expert, student, config, seed)

    def update_normalizers(self, judged: Tensor | None, returns: Tensor) -> None:
        """Keep the expert's normalisers as they are."""


def distil(
    task: VecTask,
    expert: Expert,
    student: VisionStudent,
    config: AACDConfig,
    seed: int,
    on_progress: OnProgress | None = None,
) -> DistillationResult:
    """Train a student by `AACD`, from the first round to the last."""
    return AACD(task, expert, student, config, seed).run(on_progress)

"""Feature alignment: the student acts through the expert's frozen network, corrected by adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Generator, Tensor

from tutelage.students.distillation.dagger import Dagger, DaggerConfig
from tutelage.students.distillation.machinery.card import MethodCard
from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.learner import Learner
from tutelage.students.distillation.machinery.losses import huber
from tutelage.students.distillation.machinery.progress import DistillationResult, OnProgress
from tutelage.students.vision.aligned_student import AdaptedHead, AlignedStudent, Thought

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.distillation.machinery.method import MethodConfig
    from tutelage.students.vision.student_state import StudentState
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Expert

VIEW, TRUST = "head/view", "head/trust"
"""Fields of the ring that hold what the head's expert saw, and how far its features are to be followed."""

Trust = Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor]
"""``(obs_dict, head's actions (n, a), labels (n, a))`` to weights of the feature loss, from 0 to 1, ``(n,)``:
0 where the head's expert is wrong. Actions are clipped to [-1, 1]."""


@dataclass(frozen=True)
class FeatureAlignmentConfig(DaggerConfig):
    """Settings of feature alignment: those of `DaggerConfig`, and more.

    Attributes:
        learning: `clip_labels` must be on, as the student's means are clipped.
        view_weight: of the loss of the predicted view. It counts everywhere: what there is to be seen does
            not depend on whether the expert is right.
        feature_weights: of the loss of each hidden layer's features, from the first; the last one is that of
            all further layers. DriveAdapter's fall by half from layer to layer.
        tolerance: the head's expert is taken to be right where none of its actions differs by more than this
            from the label.

    Raises:
        ValueError: for an unknown schedule, or a number out of range.
    """

    view_weight: float = 1.0
    feature_weights: tuple[float, ...] = (1.0,)
    tolerance: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.learning.clip_labels:
            raise ValueError("feature alignment needs clip_labels=True: the student's actions are clipped")
        if not self.feature_weights or min(self.view_weight, self.tolerance, *self.feature_weights) < 0:
            raise ValueError(
                "need view_weight, tolerance and at least one of feature_weights, all >= 0, not "
                f"{self.view_weight}, {self.tolerance}, {self.feature_weights}"
            )


class FeatureAlignment(Dagger):
    """Trains an `AlignedStudent` towards the expert's view, features and actions.

    The kernel of Jia et al. 2023, "DriveAdapter: Breaking the Coupling Barrier of Perception and Planning in
    End-to-End Autonomous Driving" (ICCV): what the student sees becomes what the expert would see, goes
    through the expert's frozen layers, and is corrected by adapters behind each hidden one. There, the expert
    sees a map from above through convolutions, actions have Beta distributions, and their layers have
    adapters too; here it is an MLP of a vector, with normal distributions, and frames are visited as DAgger
    does (the paper records them).

    ``loss = L(action, label) + w_v H(view, view*) + m sum_l w_l H(feature_l, feature*_l)``, where ``view*``
    and ``feature*`` are what the head's expert sees and computes, H is the Huber loss, averaged over
    elements, and L the one of `learning`.

    The *expert* gives the labels, as everywhere. The *head's* expert is the one that the student was made
    with, mostly the same. Where it is another one, and is wrong, its features are no targets: m is 0, and
    there only the action loss trains the adapters, the paper's action-guided feature learning. The paper
    masks frames where only its second driver, a program that also gives the labels, brakes. So does the
    default here: m is 1 where the head's expert would do what the label says, within `tolerance`, and 0
    elsewhere. It is all 1 where expert and head are the same: who has nobody else to ask cannot tell where
    the expert is wrong.

    Args:
        task, seed: as in `DistillationMethod`.
        expert: gives labels; an `ExpertRouter`, say, one of whose experts is the head's.
        student: an `AlignedStudent`.
        config: settings.
        trust: m, in place of the default.

    Logged metrics: those of `DistillationMethod`; ``distillation/loss`` is the whole loss above.

    Raises:
        ValueError: when the student is of another kind, or its head reads what the task does not show.
    """

    card: ClassVar[MethodCard] = MethodCard("feature alignment", aligned=True)
    config_class: ClassVar[type[MethodConfig]] = FeatureAlignmentConfig

    def __init__(
        self,
        task: VecTask,
        expert: Expert,
        student: VisionStudent,
        config: FeatureAlignmentConfig,
        seed: int,
        trust: Trust | None = None,
    ) -> None:
        if not isinstance(student, AlignedStudent):
            raise ValueError(
                f"feature alignment trains an AlignedStudent, not a {type(student).__name__}; make one by "
                "AlignedStudent.of_expert(config, task, expert)"
            )
        student.check_head(task)
        super().__init__(task, expert, student, config, seed)
        self.learner = AlignmentLearner(student, config, self.generator, trust)
        self.buffer = FrameBuffer(config.buffer_frames, task.num_envs, self.frame_fields(), task.device)


def distil(
    task: VecTask,
    expert: Expert,
    student: VisionStudent,
    config: FeatureAlignmentConfig,
    seed: int,
    on_progress: OnProgress | None = None,
) -> DistillationResult:
    """Train a student by `FeatureAlignment`, from the first round to the last."""
    return FeatureAlignment(task, expert, student, config, seed).run(on_progress)


class AlignmentLearner(Learner):
    """Takes the gradient steps of an `AlignedStudent`: see `FeatureAlignment` for the loss."""

    def __init__(
        self,
        student: AlignedStudent,
        config: FeatureAlignmentConfig,
        generator: Generator,
        trust: Trust | None = None,
    ) -> None:
        super().__init__(student, config.learning, generator)
        self.alignment = config
        self.head, self.head_view = student.actor, student.expert_config.view
        self.trust = trust or self.agrees

    def agrees(self, obs_dict: Mapping[str, Tensor], actions: Tensor, labels: Tensor) -> Tensor:
        """The default `Trust`: the head's expert does what the label says."""
        return ((actions - labels).abs() <= self.alignment.tolerance).all(1)

    def fields(self, obs_dict: Mapping[str, Tensor], mean: Tensor, std: Tensor) -> dict[str, Tensor]:
        """What the ring keeps of a step: views, not features, which frozen layers compute again for less than
        they take up.
        """
        view = obs_dict[self.head_view]
        _, actions = self.head.think(view)
        trust = self.trust(obs_dict, actions.clamp(-1, 1), mean.clamp(-1, 1)).float()
        return {**super().fields(obs_dict, mean, std), VIEW: view, TRUST: trust}

    def losses(
        self,
        batch: Mapping[str, Tensor],
        state: StudentState | None,
        student: VisionStudent | None = None,
        generator: Generator | None = None,
    ) -> tuple[Tensor, StudentState]:
        """Loss of each sample, and the memory after the last; as in `Learner`."""
        student = student or self.student
        assert isinstance(student, AlignedStudent)
        with student.actor.watching() as thoughts:
            # L(action, label)
            losses, state = super().losses(batch, state, student, generator)
        view, trust = batch[VIEW].flatten(0, -2), batch[TRUST].flatten()
        aligned = self.alignment_losses(student.actor, thoughts[0], view, trust)
        return losses + aligned.view(losses.shape), state

    def alignment_losses(self, head: AdaptedHead, thought: Thought, view: Tensor, trust: Tensor) -> Tensor:
        """The other terms of the loss, of each sample, ``(n,)``.

        Args:
            head: the student's.
            thought: what it made of its observations.
            view: what the head's expert saw, ``(n, num_obs)``.
            trust: m, ``(n,)``.
        """
        config, beta = self.alignment, self.config.huber_beta
        target, _ = head.think(view)
        # w_v H(view, view*)
        losses = config.view_weight * huber(thought.view, target.view, beta)
        # m sum_l w_l H(feature_l, feature*_l)
        for layer, (feature, wanted) in enumerate(zip(thought.features, target.features, strict=True)):
            weight = config.feature_weights[min(layer, len(config.feature_weights) - 1)]
            losses = losses + trust * weight * huber(feature, wanted, beta)
        return losses

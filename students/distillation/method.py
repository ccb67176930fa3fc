"""What all distillation methods share: the parts of a run, and its loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

import torch

from tutelage.students.distillation.learner import Learner, LearningConfig
from tutelage.students.distillation.progress import Budget, DistillationResult, Ledger, OnProgress
from tutelage.students.distillation.roll_out import RollOut

if TYPE_CHECKING:
    from tutelage.envs.batched.vec_task import VecTask
    from tutelage.students.vision_student import VisionStudent
    from tutelage.teachers.experts import Expert


class MethodConfig(Protocol):
    """What the settings of every method have."""

    @property
    def budget(self) -> Budget:
        """How long."""
        ...

    @property
    def learning(self) -> LearningConfig:
        """The student's gradient steps."""
        ...


class DistillationMethod(ABC):
    """A student's training, round by round: the base of all methods.

    A method is a class with `round`, which rolls out and learns. ::

        method = Dagger(task, expert, student, config, seed=0)
        result = method.run(on_progress)

    Args:
        task: environments of the training looks, with the cameras that the student sees; reset here.
        expert: what the student learns from; None in methods that ask no expert.
        student: trained in place.
        config: settings.
        seed: of minibatches, augmentation and whatever else is drawn. The same task (freshly made), student,
            seed and budget of frames give the same student on a CPU.

    Attributes:
        generator: the source of all that is drawn, on the task's device.
        learner: the student's optimiser.
        ledger: counts and clocks.
        rolling: the episodes that are under way.

    Raises:
        ValueError: when expert or student do not fit the task.
    """

    def __init__(
        self,
        task: VecTask,
        expert: Expert | None,
        student: VisionStudent,
        config: MethodConfig,
        seed: int,
    ) -> None:
        self.task, self.student = task, student
        self.generator = torch.Generator(task.device).manual_seed(seed)
        self.learner = Learner(student, config.learning, self.generator)
        self.ledger = Ledger(config.budget, task.num_actions, task.device)
        self.rolling = RollOut(task, expert, student)

    @abstractmethod
    def round(self) -> float:
        """Roll out, then learn; return the probability with which the expert acted."""

    def run(self, on_progress: OnProgress | None = None) -> DistillationResult:
        """Go on until the budget is spent.

        Args:
            on_progress: called after every round; where it returns False, the distillation ends.

        Returns:
            What it cost.

        Raises:
            RuntimeError: when the loss is no longer finite.
        """
        going = self.ledger.spent < 1
        while going:
            expert_share = self.round()
            going = self.ledger.report(on_progress, expert_share, self.learner.learning_rate)
        return self.ledger.result()

    def frame_fields(self) -> dict[str, Any]:
        """Examples of what a ring of frames keeps of a step, for its shapes and types."""
        task = self.task
        return self.learner.fields(self.rolling.obs_dict, task.actions, task.actions)

"""The base of all distillation methods: the parts of a run, its loop, and its state by value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from tutelage.envs.contract.names import unknown_name
from tutelage.envs.contract.state import StateDict, StateError
from tutelage.students.distillation.machinery.card import MethodCard
from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.learner import Learner, LearningConfig
from tutelage.students.distillation.machinery.progress import (
    Budget,
    DistillationResult,
    OnProgress,
    RunCounts,
)
from tutelage.students.distillation.machinery.roll_out import RollOut

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Expert


class MethodConfig(Protocol):
    """What the settings of every method have; a frozen dataclass of these fields, and more."""

    @property
    def budget(self) -> Budget:
        """Frames or seconds of the training."""
        ...

    @property
    def learning(self) -> LearningConfig:
        """Settings of the student's gradient steps."""
        ...


class DistillationMethod(ABC):
    """Trains a student round by round: the base of all methods.

    A method is a class with `round`, which rolls out and learns. ::

        method = Dagger(task, expert, student, config, seed=0)
        load_checkpoint(folder, method)  # if there is one
        result = method.run(on_progress)

    A run that was killed goes on from its last checkpoint as if nothing had happened: on a CPU, with a budget
    of frames, to the same numbers. Saved, between rounds, are the student's weights, `learner.optimizer`,
    `generator`, `counts`, `rolling`, and the `FrameBuffer` that a method has as its attribute ``buffer``. A
    method adds what else its next round depends on by `own_state` and `load_own_state`: how many rounds there
    were, the state of further optimisers (`optimizer_state`, `load_optimizer`), running statistics, weights
    that are not the student's. What each round makes anew, such as the roll-out that PPO learns from, needs
    no saving; modules of the student must be there from the start.

    Args:
        task: environments of the training looks, with the cameras that the student sees; reset here.
        expert: what the student learns from; None in methods that ask no expert.
        student: trained in place.
        config: settings.
        seed: of minibatches, augmentation and all else that is drawn. The same task (freshly made), student,
            seed and budget of frames give the same student on a CPU.

    Attributes:
        card: what commands need to know of the method; a class attribute.
        config_class: the class of its settings, a frozen dataclass; a class attribute.
        generator: the source of all that is drawn, on the task's device.
        learner: the student's optimiser.
        counts: counts and clocks.
        rolling: the episodes that are under way.

    Logged metrics, of every method after every round:

    - ``distillation/loss``, mean over the round's gradient steps; ``distillation/learning_rate``;
    - ``distillation/expert_share``, the probability with which the expert acted;
    - ``success/roll_out``, share of the round's episodes that succeeded, by expert or student;
    - ``action_error/<action>``, mean absolute difference of the student's and the expert's clipped actions
      before learning from them, where the expert was asked;
    - ``rates/rolled_frames_per_second`` and ``rates/trained_frames_per_second``, in the round;
    - ``cost/expert_queries``, ``cost/gradient_steps``, ``cost/environment_steps``, ``cost/seconds``, so far;
      the last two include the expert's training;
    - ``diagnostics/<name>``, of methods that have an attribute ``diagnostics``: see their pages.

    Raises:
        ValueError: when expert or student, what it predicts or its critic do not fit the task.
    """

    card: ClassVar[MethodCard]
    config_class: ClassVar[type[MethodConfig]]

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
        self.counts = RunCounts(config.budget, task.num_actions, task.device)
        self.rolling = RollOut(task, expert, student)
        for view in student.config.vectors:
            if view not in task.obs_dict:
                raise ValueError(
                    "the student predicts, or its critic sees, a view that "
                    f"{type(task).__name__} does not show: {unknown_name('view', view, list(task.obs_dict))}"
                )

    @abstractmethod
    def round(self) -> float:
        """Roll out, then learn; return the probability with which the expert acted."""

    def run(self, on_progress: OnProgress | None = None) -> DistillationResult:
        """Train until the budget is spent.

        Args:
            on_progress: called after every round; where it returns False, the distillation ends.

        Returns:
            What it cost.

        Raises:
            RuntimeError: when the loss is no longer finite.
        """
        going = self.counts.spent < 1
        while going:
            expert_share = self.round()
            going = self.counts.report(on_progress, expert_share, self.learner.learning_rate)
        return self.counts.result()

    # --- saving ----------------------------------------------------------------------------------------

    @property
    def ring(self) -> FrameBuffer | None:
        """The ring of frames of methods that have one, their attribute ``buffer``."""
        buffer = getattr(self, "buffer", None)
        return buffer if isinstance(buffer, FrameBuffer) else None

    def state_dict(self, frames: bool = True) -> StateDict:
        """All that the following rounds depend on, by value: nested dicts of tensors, arrays, JSON values.

        To be called between rounds: in `on_progress`, or when `run` has ended.

        Args:
            frames: include those of the ring, which can be gigabytes.

        Raises:
            RuntimeError: within a round.
        """
        return {
            "method": type(self).__name__,
            "student": {name: tensor.detach().clone() for name, tensor in self.student.state_dict().items()},
            "optimizer": optimizer_state(self.learner.optimizer),
            "generator": self.generator.get_state(),
            "ledger": self.counts.state_dict(),
            "rolling": self.rolling.state_dict(),
            "ring": None if self.ring is None else self.ring.state_dict(frames),
            "own": self.own_state(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict` of the same method, made with the same task, student and config.

        Raises:
            StateError: when the state is of another method, student, task or ring: nothing has been changed
                then; or when it is damaged.
        """
        try:
            self._check(state)
            self.rolling.load_state_dict(state["rolling"])
            self.load_own_state(state["own"])  # first of what is left: it may make parts of a later phase
            self.student.load_state_dict(state["student"])
            load_optimizer(self.learner.optimizer, state["optimizer"])
            self.generator.set_state(state["generator"].cpu())
            self.counts.load_state_dict(state["ledger"])
            if self.ring is not None:
                self.ring.load_state_dict(state["ring"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if isinstance(error, StateError):
                raise
            raise StateError(f"the state does not fit this {type(self).__name__}: {error!r}") from None

    def own_state(self) -> StateDict:
        """Return a method's part of `state_dict`: tensors, arrays, JSON values, in nested dicts and lists."""
        return {}

    def load_own_state(self, state: StateDict) -> None:
        """Restore an `own_state`, with tensors on the CPU, before weights and ring are restored."""

    # --- inner works -----------------------------------------------------------------------------------

    def frame_fields(self) -> dict[str, Any]:
        """Return example fields of a step, from which a ring of frames takes shapes and types."""
        task = self.task
        return self.learner.fields(self.rolling.obs_dict, task.actions, task.actions)

    def _check(self, state: StateDict) -> None:
        """Compare a state with what this method has, before anything is changed."""
        if state["method"] != type(self).__name__:
            raise StateError(f"the state is of {state['method']}; this is {type(self).__name__}")
        own = {name: tuple(tensor.shape) for name, tensor in self.student.state_dict().items()}
        saved = {name: tuple(tensor.shape) for name, tensor in state["student"].items()}
        for name in sorted(own.keys() | saved.keys()):
            if own.get(name) != saved.get(name):
                raise StateError(
                    f"the state is of another student: {name!r} has shape {saved.get(name)} there, and "
                    f"{own.get(name)} here; make the student with the same VisionConfig and views"
                )
        if self.ring is not None and state["ring"] is not None:
            self.ring.check_state(state["ring"])


def optimizer_state(optimizer: Optimizer) -> StateDict:
    """An optimiser's state by value."""
    state = optimizer.state_dict()
    return {
        "state": {
            number: {name: _copy(value) for name, value in entries.items()}
            for number, entries in state["state"].items()
        },
        "param_groups": [
            {name: _copy(value) for name, value in group.items()} for group in state["param_groups"]
        ],
    }


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Put an optimiser of the same parameters back into an `optimizer_state`.

    Moments get the memory layout of their parameters (torch's fused Adam goes through both by address, so
    that moments of channels-last weights, read from a file in rows, would meet the wrong weights).

    Raises:
        ValueError: when it is of other parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if max(state["state"], default=-1) >= len(parameters):
        raise ValueError(f"the optimiser's state is of more parameters than its {len(parameters)}")
    entries: dict[int, dict[str, Any]] = {}
    for number, saved in state["state"].items():
        parameter = parameters[number]
        entries[number] = {
            name: torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim
            else _copy(value)
            for name, value in saved.items()
        }
    optimizer.load_state_dict({"state": entries, "param_groups": state["param_groups"]})


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value

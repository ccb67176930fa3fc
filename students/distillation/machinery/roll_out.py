"""Roll-outs in which an expert labels the states of a student, which all distillation methods share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from tutelage.envs.contract.names import unknown_name
from tutelage.envs.contract.state import StateDict
from tutelage.students.vision.student_state import StudentState
from tutelage.teachers.experts.mlp_expert import check_expert

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.distillation.machinery.frames import FrameBuffer
    from tutelage.students.distillation.machinery.learner import Learner
    from tutelage.students.distillation.machinery.progress import RunCounts
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Expert

Drive = Callable[[Tensor, Tensor], Tensor]
"""The student's and the expert's actions, ``(n, a)`` each, in [-1, 1], to the actions that are taken."""


class RollOut:
    """Runs the episodes of a task, which begin anew when this is made.

    Args:
        task: its automatic reset must be on.
        expert: labels every state; must fit the task. None where nothing is labelled.
        student: acts in every state too, so that its frame stacks and memory are its own.

    Raises:
        ValueError: when expert or student do not fit the task.
    """

    def __init__(self, task: VecTask, expert: Expert | None, student: VisionStudent) -> None:
        self.task, self.expert, self.student = task, expert, student
        task.auto_reset = True
        self.obs_dict = task.reset()
        check_fit(task, expert, student)
        self.state = student.start(task.num_envs)
        self.started = torch.ones(task.num_envs, dtype=torch.bool, device=task.device)

    def fill(
        self,
        buffer: FrameBuffer,
        steps: int,
        drive: Drive,
        learner: Learner,
        counts: RunCounts,
        deterministic: bool = True,
        generator: Generator | None = None,
    ) -> None:
        """Take steps of all environments, each added to `buffer` with its labels.

        Args:
            buffer: where frames go.
            steps: how many.
            drive: who acts.
            learner: knows which fields of a step are kept.
            counts: counts frames, queries, errors, ended episodes.
            deterministic: whether the student's action is its mean.
            generator: of the student's actions where not.
        """
        assert self.expert is not None
        for _ in range(steps):
            self.refresh(learner)
            advice = self.expert.advise(self.obs_dict)
            buffer.add(learner.fields(self.obs_dict, advice.mean, advice.std), self.started)
            self.student.observe(self.obs_dict)
            actions, self.state = self.student.act(self.obs_dict, self.state, deterministic, generator)
            right = advice.mean.clamp(-1, 1)
            self.obs_dict, _, dones, extras = self.task.step(drive(actions, right))
            self.started = dones.bool()
            self.state = self.state.reset(self.started)
            counts.add_step(self.started, extras["success"], (actions - right).abs())

    def refresh(self, learner: Learner) -> None:
        """Before a step: draw looks anew, where that is wanted and the student cannot notice.

        An episode in one look shows as many looks as there are episodes; this shows as many as frames. A
        student that compares frames would see the camera jump, and keeps its episode's look.
        """
        config = self.student.config
        if learner.config.fresh_looks and config.frames == 1 and not config.memory:
            self.task.redraw_looks()

    def state_dict(self) -> StateDict:
        """The running episodes, by value: the task's state, what it shows now, and the student's memory."""
        state = self.state
        return {
            "task": self.task.state_dict(),
            # Pictures follow from the task's state, but a GPU may take them anew with another last bit.
            "obs_dict": {name: view.clone() for name, view in self.obs_dict.items()},
            "frames": {name: stack.clone() for name, stack in state.frames.items()},
            "memory": state.memory.detach().clone(),
            "student_started": state.started.clone(),
            "started": self.started.clone(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue the episodes of a `state_dict`.

        Raises:
            StateError: when they are of another task, or not of as many environments; nothing has been
                changed then.
        """
        self.task.load_state_dict(state["task"])
        device = self.task.device
        self.obs_dict = {name: view.to(device) for name, view in state["obs_dict"].items()}
        frames = {name: stack.to(device) for name, stack in state["frames"].items()}
        self.state = StudentState(frames, state["memory"].to(device), state["student_started"].to(device))
        self.started = state["started"].to(device)


def check_fit(task: VecTask, expert: Expert | None, student: VisionStudent) -> None:
    """Check that an expert, if any, and a student can act in a task.

    Raises:
        ValueError: when a view is not there, or the number of actions or the size of a view differs.
    """
    if expert is not None:
        check_expert(expert, task)
    name = type(task).__name__
    for view in (*student.config.images, student.config.vector):
        if view is not None and view not in task.obs_dict:
            raise ValueError(
                f"the student sees a view that {name} does not show: "
                f"{unknown_name('view', view, list(task.obs_dict))}"
            )
    if student.num_actions != task.num_actions:
        raise ValueError(
            f"the student's actions have {student.num_actions} numbers, those of {name} "
            f"{task.num_actions}; it was made for another task"
        )

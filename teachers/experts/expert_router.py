"""A router of queries to several experts, each for its part of the task space."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tutelage.envs.contract.names import unknown_name
from tutelage.teachers.experts.mlp_expert import Advice, Expert

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.envs.contract.tasks import BoxSpace


class ExpertRouter:
    """Several experts as one: each environment is answered by the expert for its task.

    Experts answer in batches, each for all of its environments at once. A task that no expert covers is an
    error (UniDexGrasp's public code hands such tasks to the first expert).

    ::

        regions = [{"radius": (0.25, 0.4)}, {"radius": (0.4, 0.55)}]
        router = ExpertRouter([near, far], box_rule(task.task_space, regions), lambda: task.tasks)

    Args:
        experts: all with actions of one size.
        rule: tasks ``(n, d)`` -> index of the expert, int64 ``(n,)``, -1 where none covers the task; see
            `box_rule`.
        running: the tasks that observations belong to, ``(n, d)``; asked for at every query.

    Attributes:
        queries_by_expert: observations that each was asked about.

    Raises:
        ValueError: when there is no expert, or they differ in their actions or in the size of a view.
    """

    def __init__(
        self,
        experts: Sequence[Expert],
        rule: Callable[[Tensor], Tensor],
        running: Callable[[], Tensor],
    ) -> None:
        if not experts:
            raise ValueError("a router needs at least one expert")
        self.experts = list(experts)
        self.rule, self.running = rule, running
        self.queries_by_expert = [0] * len(self.experts)
        self.view = self.experts[0].view
        self.num_actions = self.experts[0].num_actions
        self.view_sizes: dict[str, int | None] = {}
        for index, expert in enumerate(self.experts):
            if expert.num_actions != self.num_actions:
                raise ValueError(
                    f"expert {index} has actions of {expert.num_actions} numbers, expert 0 of "
                    f"{self.num_actions}; experts of one router must act alike"
                )
            sizes: Mapping[str, int | None] = getattr(expert, "view_sizes", {expert.view: None})
            for view, size in sizes.items():
                known = self.view_sizes.get(view)
                if None not in (known, size) and known != size:
                    raise ValueError(
                        f"expert {index} reads {size} numbers in the view {view!r}, another one {known}"
                    )
                self.view_sizes[view] = known if size is None else size

    @property
    def queries(self) -> int:
        """Observations answered so far."""
        return sum(self.queries_by_expert)

    def on(self, task: VecTask) -> ExpertRouter:
        """The same experts by the same rule for another batch of environments, e.g. those of an evaluation.

        `running` tells of one batch: a router that answers for another would ask the wrong experts.
        """
        return ExpertRouter(self.experts, self.rule, lambda: task.tasks)

    def route(self, tasks: Tensor) -> Tensor:
        """Index of the expert for each task.

        Args:
            tasks: shape ``(n, d)``.

        Returns:
            int64, shape ``(n,)``. On a GPU this waits for it, as errors must not come late.

        Raises:
            ValueError: when no expert covers a task, or the rule names one that does not exist.
        """
        index = self.rule(tasks)
        lost = (index < 0) | (index >= len(self.experts))
        if bool(lost.any()):
            row = int(lost.nonzero()[0])
            raise ValueError(
                f"no expert covers task {tasks[row].tolist()} (environment {row}, {int(lost.sum())} of "
                f"{len(tasks)} in all; the rule gave {int(index[row])}, experts are 0 to "
                f"{len(self.experts) - 1}); add an expert, or keep to tasks that are covered"
            )
        return index

    @torch.no_grad()
    def advise(self, obs_dict: Mapping[str, Tensor], tasks: Tensor | None = None) -> Advice:
        """Answer for every row, each by the expert for its task.

        Args:
            obs_dict: the observations.
            tasks: theirs; default: the running ones. Give ``extras["ended_tasks"]`` with terminal
                observations.

        Raises:
            ValueError: when no expert covers a task.
        """
        index = self.route(self.running() if tasks is None else tasks)
        answers: list[tuple[Tensor, Advice]] = []
        for number, expert in enumerate(self.experts):
            rows = (index == number).nonzero().flatten()
            if len(rows):
                answers.append((rows, expert.advise(_Picked(obs_dict, rows))))
                self.queries_by_expert[number] += len(rows)
        order = torch.cat([rows for rows, _ in answers]).argsort()
        values = [advice.value for _, advice in answers if advice.value is not None]
        return Advice(
            torch.cat([advice.mean for _, advice in answers])[order],
            torch.cat([advice.std for _, advice in answers])[order],
            torch.cat(values)[order] if len(values) == len(answers) else None,
        )


class _Picked(Mapping[str, Tensor]):
    """Some rows of an ``obs_dict``; only what is read is copied, so images cost nothing."""

    def __init__(self, obs_dict: Mapping[str, Tensor], rows: Tensor) -> None:
        self._obs_dict, self._rows = obs_dict, rows

    def __getitem__(self, name: str) -> Tensor:
        return self._obs_dict[name][self._rows]

    def __contains__(self, name: object) -> bool:
        return name in self._obs_dict

    def __iter__(self) -> Iterator[str]:
        return iter(self._obs_dict)

    def __len__(self) -> int:
        return len(self._obs_dict)


def box_rule(
    space: BoxSpace, regions: Sequence[Mapping[str, tuple[float, float]]]
) -> Callable[[Tensor], Tensor]:
    """A rule for an `ExpertRouter`: expert *i* covers a box of tasks, borders included.

    Args:
        space: the task space.
        regions: for each expert, parameter -> (low, high); parameters that are left out may be anything.
            Where boxes overlap, the first covers.

    Raises:
        ValueError: when there is no such parameter, or low is above high.

    Example:
        >>> from tutelage.envs.contract.tasks import BoxTasks
        >>> space = BoxTasks({"height": (0, 3), "spacing": (0, 6)})
        >>> rule = box_rule(space, [{"height": (0, 1)}, {"height": (1, 2)}])
        >>> rule(torch.tensor([[0.5, 4.0], [1.0, 4.0], [1.5, 0.0], [2.5, 1.0]]))
        tensor([ 0,  0,  1, -1])
    """
    bounds = torch.empty(2, len(regions), space.dim, dtype=torch.float64)
    bounds[0], bounds[1] = -torch.inf, torch.inf
    for number, region in enumerate(regions):
        for name, (low, high) in region.items():
            if name not in space.names:
                raise ValueError(unknown_name("task parameter", name, space.names))
            if low > high:
                raise ValueError(f"region {number}: {name} from {low} to {high} is empty; swap the bounds")
            bounds[:, number, space.names.index(name)] = torch.tensor([low, high], dtype=torch.float64)

    def rule(tasks: Tensor) -> Tensor:
        low, high = bounds.to(tasks.device)
        inside = ((tasks[:, None] >= low) & (tasks[:, None] <= high)).all(2)
        return torch.where(inside.any(1), inside.to(torch.int8).argmax(1), -1)

    return rule

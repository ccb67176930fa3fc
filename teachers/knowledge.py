"""What an expert can tell of a task space, for the task teachers that need to be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskKnowledge:
    """Expert knowledge of an environment's tasks, in task units; None where there is none.

    Attributes:
        easy_task: a task that an untrained student can learn at once, shape ``(d,)``.
        easy_std: spread of the easy tasks around it.
        target_mean: centre of the tasks that matter in the end.
        target_std: their spread.
        mastered_return: the return above which a task counts as mastered.
        return_range: least and greatest return that occur.
    """

    easy_task: tuple[float, ...] | None = None
    easy_std: tuple[float, ...] | None = None
    target_mean: tuple[float, ...] | None = None
    target_std: tuple[float, ...] | None = None
    mastered_return: float | None = None
    return_range: tuple[float, float] | None = None

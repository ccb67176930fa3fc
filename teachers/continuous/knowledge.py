"""What an environment's author may know about its tasks, for the task teachers that need to be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskKnowledge:
    """Expert knowledge about the tasks of one environment, in the task box's own units.

    Which task teacher uses what: ADR `easy_task`, `mastered_return`, `return_range`; Oracle `easy_task`,
    `target_mean` (for the direction between them) and `mastered_return`; TargetOnly `target_mean` and
    `target_std`. The others need none of it.

    Attributes:
        easy_task: a task that an untrained student can begin to learn on, d values.
        easy_std: spread of the easy tasks around it, d values.
        target_mean: centre of the tasks that matter in the end, d values.
        target_std: spread of them, d values.
        mastered_return: return from which a task counts as mastered.
        return_range: lowest and highest return to be expected.
    """

    easy_task: tuple[float, ...]
    easy_std: tuple[float, ...]
    target_mean: tuple[float, ...]
    target_std: tuple[float, ...]
    mastered_return: float
    return_range: tuple[float, float]

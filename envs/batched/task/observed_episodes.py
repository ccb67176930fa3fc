"""What a batch of environments knows of running episodes that a task teacher will observe."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.contract.episodes import Episodes

if TYPE_CHECKING:
    from tutelage.envs.batched.task.task_definition import TaskDefinition

UNOBSERVED = -(2**62)
"""Stands for the steps of an episode that was not observed from its start: no count reaches 0 from here."""


class ObservedEpisodes:
    """Returns, lengths and origins of running episodes, kept only while somebody observes.

    An episode counts as observed when its rewards were added up in each of its steps. One that began before
    that, or whose ``progress_buf`` was changed (rsl_rl does so to spread the first ends), is not reported:
    its return would be that of a part.

    Args:
        new_buffer: makes ``(num_envs,)`` buffers that are part of the saved state.

    Attributes:
        returns: undiscounted sums of rewards so far, float64.
        steps: numbers of rewards in them, int64; far below 0 where the episode is not observed.
        ids: running numbers of the proposals, int64, -1 where the task was not proposed.
        started: environment steps of all environments together before the episode began, int64.
    """

    def __init__(self, new_buffer: Callable[..., Tensor]) -> None:
        self.returns = new_buffer("observed_return", dtype=torch.float64)
        self.steps = new_buffer("observed_steps", dtype=torch.int64)
        self.ids = new_buffer("proposal_id", dtype=torch.int64)
        self.started = new_buffer("episode_started", dtype=torch.int64)
        self._interrupted = True

    def interrupt(self) -> None:
        """A step or a start is made unobserved; costs nothing, `settle` draws the consequences."""
        self._interrupted = True

    def settle(self) -> None:
        """Let no running episode count as observed if there was an interruption since this was called."""
        if self._interrupted:
            self.steps.fill_(UNOBSERVED)
            self._interrupted = False

    def begin(self, rows: Rows, ids: Tensor | int, started: int) -> None:
        """Episodes of these proposals begin in `rows`."""
        self.settle()
        rows.put(self.returns, 0.0)
        rows.put(self.steps, 0)
        rows.put(self.ids, ids)
        rows.put(self.started, started)

    def add(self, rewards: Tensor) -> None:
        """Add a step's rewards, ``(num_envs,)``."""
        self.settle()
        self.returns += rewards
        self.steps += 1

    def take_finished(self, task: TaskDefinition, done: Tensor) -> Episodes | None:
        """The observed episodes among those that ended, in ascending order of environments; each once.

        Waits for a GPU.

        Raises:
            ValueError: when a return is not finite.
        """
        indices = (done & (self.steps == task.progress_buf)).nonzero().flatten()
        if not len(indices):
            return None
        tasks, returns, lengths, successes, ids, started = (
            values[indices].cpu().numpy()
            for values in (
                task.tasks,
                self.returns,
                self.steps,
                task.success.double(),
                self.ids,
                self.started,
            )
        )
        self.steps.index_fill_(0, indices, UNOBSERVED)
        return Episodes(
            tasks,
            returns,
            lengths,
            successes,
            ids=ids,
            environments=indices.cpu().numpy(),
            started=started,
        )

"""Progress of a distillation: its budget, the report after every round, its result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from tutelage.envs.contract.state import StateDict


@dataclass(frozen=True)
class Budget:
    """Limit of a distillation in frames, seconds or both: the first to be reached ends it.

    Attributes:
        frames: environment steps of all environments together. Runs are then repeatable.
        seconds: of rolling out and learning; time spent in callbacks is not counted. How far a run gets then
            depends on the machine.

    Raises:
        ValueError: without any limit, or for one that is not positive.
    """

    frames: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.frames, self.seconds) if limit is not None]
        if not limits or min(limits) <= 0:
            raise ValueError(
                f"a budget needs frames or seconds above 0, not frames={self.frames}, seconds={self.seconds}"
            )

    def spent(self, frames: int, seconds: float) -> float:
        """Share of the budget that is used up, from 0; 1 and more is all of it."""
        shares = [0.0]
        if self.frames is not None:
            shares.append(frames / self.frames)
        if self.seconds is not None:
            shares.append(seconds / self.seconds)
        return max(shares)


@dataclass(frozen=True)
class DistillationProgress:
    """The state of a distillation after a round.

    Attributes:
        frames: environment steps so far, of all environments together.
        queries: labels asked of the expert so far, one for each environment and step.
        updates: gradient steps so far.
        seconds: of rolling out and learning so far.
        loss: mean over the round's updates.
        episodes: how many ended in this round.
        success: share of those that succeeded, by expert or student; NaN where none ended.
        expert_share: probability with which the expert acted.
        learning_rate: now.
        rolled_per_second, trained_per_second: frames rolled out and frames learnt from, in this round.
        action_error: mean absolute difference of the student's and the expert's clipped actions on the
            states of this round, before learning from them, ``(a,)``, on the CPU; NaN where it was not asked.
    """

    frames: int
    queries: int
    updates: int
    seconds: float
    loss: float
    episodes: int
    success: float
    expert_share: float
    learning_rate: float
    rolled_per_second: float
    trained_per_second: float
    action_error: Tensor


OnProgress = Callable[[DistillationProgress], bool | None]
"""Called after every round; a distillation ends where it returns False."""


@dataclass(frozen=True)
class DistillationResult:
    """Costs of a distillation; its student has been trained in place.

    Attributes:
        frames, queries, updates: as in `DistillationProgress`.
        rollout_seconds, learning_seconds: what the time went to.
        history: every round.
    """

    frames: int
    queries: int
    updates: int
    rollout_seconds: float
    learning_seconds: float
    history: tuple[DistillationProgress, ...] = field(repr=False)


class RunCounts:
    """Counts the frames, queries, gradient steps and seconds of one distillation.

    Args:
        budget: how long it may go on.
        num_actions: actions of an environment.
        device: where counts live until they are reported, so that nothing waits for a GPU.
    """

    def __init__(self, budget: Budget, num_actions: int, device: torch.device) -> None:
        self.budget = budget
        self.frames = self.queries = self.updates = 0
        self.seconds = {"rollout": 0.0, "learning": 0.0}
        self.history: list[DistillationProgress] = []
        self._zero = torch.zeros(2 + num_actions, device=device)
        self._losses: list[Tensor] = []
        self._begin_round()

    @property
    def spent(self) -> float:
        """Share of the budget that is used up; 1 and more is all of it."""
        return self.budget.spent(self.frames, sum(self.seconds.values()))

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Count the seconds inside as ``rollout`` or ``learning``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def add_step(self, dones: Tensor, successes: Tensor, errors: Tensor | None) -> None:
        """Count a step of all environments.

        Args:
            dones, successes: bool ``(n,)``.
            errors: absolute differences of the student's actions and the expert's, ``(n, a)``; None where
                the expert was not asked.
        """
        self.frames += len(dones)
        self._sums[0] += dones.sum()
        self._sums[1] += (successes & dones).sum()
        if errors is not None:
            self.queries += len(dones)
            self._sums[2:] += errors.sum(0)

    def add_update(self, loss: Tensor, frames: int) -> None:
        """Count a gradient step on so many frames."""
        self.updates += 1
        self._trained += frames
        self._losses.append(loss.detach())

    def report(self, on_progress: OnProgress | None, expert_share: float, learning_rate: float) -> bool:
        """Close the round; return whether to go on."""
        episodes, successes, *errors = self._sums.tolist()
        frames, queries = self.frames - self._before[0], self.queries - self._before[1]
        rollout, learning = (
            self.seconds[name] - before
            for name, before in zip(("rollout", "learning"), self._before[2:], strict=True)
        )
        progress = DistillationProgress(
            frames=self.frames,
            queries=self.queries,
            updates=self.updates,
            seconds=sum(self.seconds.values()),
            loss=float(torch.stack(self._losses).mean()) if self._losses else math.nan,
            episodes=int(episodes),
            success=successes / episodes if episodes else math.nan,
            expert_share=expert_share,
            learning_rate=learning_rate,
            rolled_per_second=frames / max(rollout, 1e-9),
            trained_per_second=self._trained / max(learning, 1e-9),
            action_error=torch.tensor(errors) / (queries or math.nan),
        )
        if not math.isfinite(progress.loss) and self._losses:
            raise RuntimeError(
                f"the distillation loss became {progress.loss} after {self.updates} updates; lower the "
                "learning rate"
            )
        self.history.append(progress)
        self._begin_round()
        wanted = on_progress is None or on_progress(progress) is not False
        return wanted and self.spent < 1

    def result(self) -> DistillationResult:
        """Return the costs so far."""
        return DistillationResult(
            self.frames,
            self.queries,
            self.updates,
            self.seconds["rollout"],
            self.seconds["learning"],
            tuple(self.history),
        )

    def state_dict(self) -> StateDict:
        """All counts, seconds and reports, by value.

        Raises:
            RuntimeError: within a round, as its sums are not saved.
        """
        counted = (self.frames, self.queries, *self.seconds.values())
        if self._losses or counted != self._before:
            raise RuntimeError("a distillation can be saved between rounds alone, e.g. in on_progress")
        names = [report.name for report in fields(DistillationProgress)]
        return {
            "counts": [self.frames, self.queries, self.updates],
            "seconds": dict(self.seconds),
            "history": {name: _column([getattr(report, name) for report in self.history]) for name in names},
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Go on counting from a `state_dict`: seconds of a budget go on too."""
        self.frames, self.queries, self.updates = state["counts"]
        self.seconds = {name: float(state["seconds"][name]) for name in self.seconds}
        names, columns = state["history"].keys(), state["history"].values()
        rows = zip(*columns, strict=True)
        self.history = [DistillationProgress(**dict(zip(names, row, strict=True))) for row in rows]
        self._begin_round()

    def _begin_round(self) -> None:
        self._sums = self._zero.clone()
        self._losses.clear()
        self._trained = 0
        self._before = (self.frames, self.queries, self.seconds["rollout"], self.seconds["learning"])


def _column(values: list[Any]) -> Any:
    """The same number of every report, as a list; tensors as one."""
    return torch.stack(values) if values and isinstance(values[0], Tensor) else values

"""Finished episodes, as the struct of arrays in which they travel from environments to task teachers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


def episode_success(info: Mapping[str, Any]) -> float:
    """Success in the info of an episode's last step: 1 or 0, NaN where the environment defines none.

    Read from ``success``, or from ``is_success`` as Stable-Baselines3 calls it.
    """
    success = info.get("success", info.get("is_success"))
    return math.nan if success is None else float(bool(success))


def check_successes(successes: NDArray[np.float64]) -> None:
    """Refuse success that some episodes define and others do not.

    Raises:
        ValueError: in that case; missing successes would silently count as something.
    """
    if 0 < np.count_nonzero(np.isnan(successes)) < len(successes):
        raise ValueError(
            'info["success"] is there at the end of some episodes and missing at others; '
            'put info["success"] = bool(...) into every last step'
        )


_UNKNOWN: NDArray[np.int64] = np.empty(0, np.int64)  # stands for -1 in every episode
_COUNTED = ("ids", "environments", "started")


@dataclass(frozen=True)
class Episodes:
    """A batch of `n` finished episodes, in the order in which they ended.

    Attributes:
        tasks: the tasks attempted, shape ``(n, *task_space.shape)``.
        returns: undiscounted sums of rewards, shape ``(n,)``, finite float64.
        lengths: numbers of steps, shape ``(n,)``, int64.
        successes: 1.0 or 0.0 where the environment defines success, NaN where not, shape ``(n,)``.
        scores: further named values of each episode (regret estimates, other students' returns),
            each of shape ``(n,)``.
        ids: the running numbers of the proposals that the episodes came of, int64 ``(n,)``; -1 where the
            environments do not count them.
        environments: index of the environment that played each, int64 ``(n,)``; -1 where unknown.
        started: environment steps, of all environments together, taken before each began, int64 ``(n,)``;
            -1 where unknown.

    Raises:
        ValueError: when the first axes differ, or a return is not finite.

    Example:
        >>> batch = Episodes.of(tasks=np.array([[0.5], [1.0]]), returns=[3.0, 4.0])
        >>> len(batch), batch.returns.mean()
        (2, np.float64(3.5))
        >>> batch[1:].tasks
        array([[1.]])
    """

    tasks: NDArray[Any]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    successes: NDArray[np.float64]
    scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    ids: NDArray[np.int64] = field(default_factory=lambda: _UNKNOWN)
    environments: NDArray[np.int64] = field(default_factory=lambda: _UNKNOWN)
    started: NDArray[np.int64] = field(default_factory=lambda: _UNKNOWN)

    def __post_init__(self) -> None:
        shape = (len(self.tasks),)
        for name in _COUNTED:
            if getattr(self, name) is _UNKNOWN:
                object.__setattr__(self, name, np.full(shape, -1, np.int64))
        parts = tuple((n, getattr(self, n)) for n in ("returns", "lengths", "successes", *_COUNTED))
        for name, values in (*parts, *self.scores.items()):
            if values.shape != shape:
                raise ValueError(f"episodes: {name} has shape {values.shape}, expected {shape} as for tasks")
        if np.count_nonzero(np.isfinite(self.returns)) < shape[0]:
            row = int(np.argmin(np.isfinite(self.returns)))
            raise ValueError(
                f"episodes: return {self.returns[row]} of task {self.tasks[row]} is not finite; "
                "the environment gave a NaN or infinite reward"
            )

    @staticmethod
    def of(
        tasks: NDArray[Any],
        returns: NDArray[np.float64] | Sequence[float],
        lengths: NDArray[np.int64] | Sequence[int] | None = None,
        successes: NDArray[np.float64] | Sequence[float] | None = None,
        **scores: NDArray[np.float64] | Sequence[float],
    ) -> Episodes:
        """Build a batch from anything array-like; lengths default to 1, successes to NaN."""
        n = len(tasks)
        return Episodes(
            np.asarray(tasks),
            np.asarray(returns, dtype=np.float64),
            np.ones(n, np.int64) if lengths is None else np.asarray(lengths, dtype=np.int64),
            np.full(n, np.nan) if successes is None else np.asarray(successes, dtype=np.float64),
            {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()},
        )

    @staticmethod
    def joined(parts: Sequence[Episodes]) -> Episodes:
        """Several batches, at least one, as one; of their scores those that all have."""

        def join(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        shared = [name for name in parts[0].scores if all(name in part.scores for part in parts)]
        scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in shared}
        results = (join("returns"), join("lengths"), join("successes"))
        return Episodes(join("tasks"), *results, scores, join("ids"), join("environments"), join("started"))

    @property
    def success(self) -> float:
        """Share of successes among the episodes that define success; NaN where none does."""
        defined = self.successes[~np.isnan(self.successes)]
        return float(defined.mean()) if len(defined) else math.nan

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Episodes:
        return Episodes(
            self.tasks[rows],
            self.returns[rows],
            self.lengths[rows],
            self.successes[rows],
            {name: values[rows] for name, values in self.scores.items()},
            *(getattr(self, name)[rows] for name in _COUNTED),
        )

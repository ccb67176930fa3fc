"""What a task teacher proposes: a plain batch of tasks, or tasks with a time limit, a use and a kind each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.tasks import Tasks, TaskSpace

KINDS = ("new", "replay", "edited", "snapshot")
"""What a proposal can be, for logs: drawn anew, met before, edited, a state of an earlier episode."""


@dataclass(frozen=True)
class Proposals:
    """A batch of `n` proposals, one for each episode that is about to begin.

    Attributes:
        tasks: shape ``(n, *task_space.shape)``.
        horizon: steps after which each episode is cut off, as by a time limit; int64 ``(n,)``, at least 1.
            None: the environment's own time limit alone.
        trains: whether the student may learn from each episode, bool ``(n,)``. None: from all.
        kind: what each proposal is, one of `KINDS`, ``(n,)``. None: ``new``.

    Raises:
        ValueError: when a part has another length than `tasks`, a horizon is below 1, or a kind unknown.

    Example:
        >>> proposals = Proposals(np.array([[0.5], [1.0]]), horizon=np.array([100, 20]))
        >>> len(proposals), proposals.horizon.tolist(), proposals.trains
        (2, [100, 20], None)
    """

    tasks: Tasks
    horizon: NDArray[np.int64] | None = None
    trains: NDArray[np.bool_] | None = None
    kind: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        for name in ("horizon", "trains", "kind"):
            part = getattr(self, name)
            if part is not None and np.shape(part) != (len(self.tasks),):
                raise ValueError(
                    f"proposals: {name} has shape {np.shape(part)}, not ({len(self.tasks)},) as for tasks"
                )
        if self.horizon is not None and len(self.horizon) and np.min(self.horizon) < 1:
            raise ValueError(f"proposals: a horizon is {np.min(self.horizon)}; it must be at least 1 step")
        if self.kind is not None and (unknown := set(map(str, self.kind)) - set(KINDS)):
            raise ValueError(f"proposals: unknown kind {min(unknown)!r}; known: {', '.join(KINDS)}")

    def __len__(self) -> int:
        return len(self.tasks)


def tasks_of(proposed: Proposals | Tasks) -> Tasks:
    """The tasks alone, ``(n, *task_space.shape)``, of either form."""
    return proposed.tasks if isinstance(proposed, Proposals) else proposed


def check_proposals(proposed: Proposals | Tasks, space: TaskSpace, n: int, source: str) -> Proposals:
    """Make what a task teacher returned into `Proposals` of its own arrays.

    Args:
        proposed: a plain batch of tasks, or `Proposals`.
        space: the task space.
        n: how many were asked for.
        source: who proposed, for messages.

    Raises:
        TaskError: when a task is NaN, out of the space, or of the wrong shape.
        ValueError: when there are not `n`, or a part is wrong.
    """
    parts: dict[str, Any] = {}
    if isinstance(proposed, Proposals):
        dtypes = {"horizon": np.int64, "trains": np.bool_, "kind": np.str_}
        parts = {
            name: None if (part := getattr(proposed, name)) is None else np.array(part, dtype)
            for name, dtype in dtypes.items()
        }
    checked = space.check(tasks_of(proposed), source=f"tasks proposed by {source}")
    if len(checked) != n:
        raise ValueError(f"{source}.propose({n}) returned {len(checked)} tasks")
    return Proposals(checked.copy(), **parts)  # environments may keep and change what they are given

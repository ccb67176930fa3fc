"""The task-teacher interface: whatever proposes tasks and learns from finished episodes."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from tutelage.envs.episodes import Episodes
from tutelage.envs.state import StateDict
from tutelage.envs.tasks import Tasks


@runtime_checkable
class TaskTeacher(Protocol):
    """Proposes tasks in batches, and observes the episodes that came of them.

    Task teachers are built from a task space, a `numpy.random.Generator` and a frozen config:
    ``ALPGMM(space, rng, ALPGMMConfig(fit_rate=150))``. They know nothing of students or environments.
    """

    def propose(self, n: int) -> Tasks:
        """Return `n` tasks, shape ``(n, *space.shape)``, all inside the task space."""
        ...

    def observe(self, episodes: Episodes) -> None:
        """Take in finished episodes, in the order in which they ended."""
        ...

    def metrics(self) -> dict[str, float]:
        """Numbers to log; cheap, and without side effects."""
        ...

    def state_dict(self) -> StateDict:
        """Everything that decides later proposals, generator included, by value."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict` of a task teacher of the same space and config.

        Raises:
            StateError: when the state does not fit.
        """
        ...

    def picture(self) -> dict[str, Any]:
        """What to draw over the task space, in task units; ``{}`` when there is nothing.

        Known keys: ``"gaussians"`` (``means`` (k, d), ``covariances`` (k, d, d), ``weights`` (k,)) and
        ``"boxes"`` (``low`` (k, d), ``high`` (k, d), ``weights`` (k,)).
        """
        ...

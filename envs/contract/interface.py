"""The task-teacher interface: whatever proposes tasks and learns from finished episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.proposals import Proposals
from tutelage.envs.contract.state import StateDict
from tutelage.envs.contract.tasks import Tasks


@runtime_checkable
class TaskTeacher(Protocol):
    """Proposes tasks in batches, and observes the episodes that came of them.

    Task teachers are built from a task space, a `numpy.random.Generator` and a frozen config:
    ``ALPGMM(space, rng, ALPGMMConfig(fit_rate=150))``. They know nothing of students or environments.
    """

    def propose(self, n: int) -> Tasks | Proposals:
        """Return `n` tasks, shape ``(n, *space.shape)``, all inside the task space; or `Proposals`."""
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


@runtime_checkable
class Scores(Protocol):
    """A task teacher that also wants what the student's critic says of each episode; beside `TaskTeacher`."""

    def score(self, ids: NDArray[np.int64], scores: Mapping[str, NDArray[np.float64]]) -> None:
        """Take in scores of episodes, or of the pieces of them in one roll-out, by the proposals' ids.

        Args:
            ids: of the proposals, ``(n,)``.
            scores: name -> ``(n,)``, in units of return: ``pvl`` (positive value loss), ``gae_l1`` (mean
                absolute advantage), ``max_mc``, ``mna``, ``td`` (mean absolute one-step error), and what
                they are made of; see `tutelage.teachers.replay.episode_scores.EpisodeScores`.
        """
        ...

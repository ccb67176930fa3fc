"""Random: uniform tasks, the baseline that every curriculum must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateDict, rng_state, set_rng_state
from tutelage.envs.contract.tasks import Tasks, TaskSpace
from tutelage.teachers.continuous.primitives import check_header, state_header


@dataclass(frozen=True)
class RandomConfig:
    """Random has no settings."""


class Random:
    """Proposes tasks uniformly, independent of the student (domain randomisation).

    Expert knowledge: none. Works on every task space.

    Args:
        space: any task space.
        rng: decides everything random.
        config: nothing to set.

    Logged metrics: none.

    Example:
        >>> from tutelage.envs.contract.tasks import DiscreteTasks
        >>> Random(DiscreteTasks(3), np.random.default_rng(0)).propose(4)
        array([1, 0, 0, 0])
    """

    def __init__(
        self, space: TaskSpace, rng: np.random.Generator, config: RandomConfig = RandomConfig()
    ) -> None:
        self.space = space
        self.config = config
        self.rng = rng

    def propose(self, n: int) -> Tasks:
        """Return `n` uniform tasks, shape ``(n, *space.shape)``."""
        return self.space.sample(self.rng, n)

    def observe(self, episodes: Episodes) -> None:
        """Learn nothing."""

    def metrics(self) -> dict[str, float]:
        """Nothing to log."""
        return {}

    def picture(self) -> dict[str, Any]:
        """Nothing to draw."""
        return {}

    def state_dict(self) -> StateDict:
        """The generator's state."""
        return {**state_header("random", self.space, self.config), "rng": rng_state(self.rng)}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`.

        Raises:
            StateError: when it is of another method or task space.
        """
        check_header(state, "random", self.space, self.config)
        set_rng_state(self.rng, state["rng"])

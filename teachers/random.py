"""Random: uniform tasks, the baseline of every curriculum (domain randomisation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.envs.episodes import Episodes
from tutelage.envs.state import StateDict, rng_state, set_rng_state
from tutelage.envs.tasks import Tasks, TaskSpace
from tutelage.teachers.primitives import check_header, state_header


@dataclass(frozen=True)
class RandomConfig:
    """Random has no settings."""


class Random:
    """Uniform tasks from any task space; learns nothing from episodes.

    Uses no expert knowledge. Logged metrics: none.
    """

    def __init__(self, space: TaskSpace, rng: np.random.Generator, config: RandomConfig = RandomConfig()) -> None:  # noqa: B008
        self.space, self.rng, self.config = space, rng, config

    def propose(self, n: int) -> Tasks:
        """Draw `n` tasks uniformly."""
        return self.space.sample(self.rng, n)

    def observe(self, episodes: Episodes) -> None:
        """Ignore the episodes."""

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
        """Continue from a `state_dict`."""
        check_header(state, "random", self.space, self.config)
        set_rng_state(self.rng, state["rng"])

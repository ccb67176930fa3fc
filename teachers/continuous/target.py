"""TargetOnly: tasks of the target distribution alone, the baseline without a curriculum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.recipe import TaskKnowledge
from tutelage.envs.contract.state import StateDict, rng_state, set_rng_state
from tutelage.envs.contract.tasks import BoxSpace, TaskSpace
from tutelage.teachers.continuous.primitives import (
    check_header,
    check_task_vector,
    normal_quantiles,
    require_box,
    state_header,
)


@dataclass(frozen=True)
class TargetOnlyConfig:
    """The target distribution, in task units.

    Attributes:
        mean: centre, one value for each task parameter, inside the box.
        std: standard deviation of each parameter, at least 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def for_environment(cls, knowledge: TaskKnowledge) -> TargetOnlyConfig:
        """The environment's own target."""
        return cls(mean=knowledge.target_mean, std=knowledge.target_std)


class TargetOnly:
    """Proposes tasks from the target distribution alone, independent of the student.

    A normal distribution, clipped to the task box. What a curriculum is worth shows in the comparison with
    training on the target from the first episode.

    Expert knowledge: the target distribution.

    Args:
        space: the box of task parameters.
        rng: decides everything random.
        config: the target; no default.

    Logged metrics: none.
    """

    task_spaces: ClassVar[type] = BoxSpace

    def __init__(self, space: TaskSpace, rng: np.random.Generator, config: TargetOnlyConfig) -> None:
        self.space = require_box(space, "TargetOnly")
        self._mean = check_task_vector(self.space, config.mean, "TargetOnlyConfig.mean")
        self._std = np.asarray(config.std, dtype=np.float64)
        if self._std.shape != self.space.shape or not (self._std >= 0).all():
            raise ValueError(
                f"TargetOnlyConfig.std is {config.std}; give {self.space.dim} values, each at least 0"
            )
        self.config = config
        self.rng = rng

    def propose(self, n: int) -> NDArray[np.float64]:
        """Return `n` tasks of the target distribution, shape ``(n, d)``."""
        tasks = self._mean + self._std * normal_quantiles(self.rng.random((n, self.space.dim)))
        return np.clip(tasks, self.space.low, self.space.high)

    def observe(self, episodes: Episodes) -> None:
        """Learn nothing."""

    def metrics(self) -> dict[str, float]:
        """Nothing to log."""
        return {}

    def picture(self) -> dict[str, Any]:
        """The target as one Gaussian."""
        covariance = np.diag(self._std**2)[None]
        return {"gaussians": {"means": self._mean[None], "covariances": covariance, "weights": np.ones(1)}}

    def state_dict(self) -> StateDict:
        """The generator's state."""
        return {**state_header("target", self.space, self.config), "rng": rng_state(self.rng)}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`.

        Raises:
            StateError: when it is of another method, task space or config.
        """
        check_header(state, "target", self.space, self.config)
        set_rng_state(self.rng, state["rng"])

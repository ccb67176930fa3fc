"""Oracle: a window that slides from easy to hard, made by hand (Portelas et al. 2019)."""

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
    EpisodeWindow,
    check_header,
    require_box,
    state_header,
    unit_tasks,
)


@dataclass(frozen=True)
class OracleConfig:
    """Settings of the Oracle; defaults for all but the knowledge are the paper's.

    Attributes:
        direction: one sign for each task parameter: 1 if greater is harder, -1 if smaller is harder, 0 if it
            does not matter (the window then spans the whole range).
        mastered_return: mean return of the window above which it moves on.
        window: extent of the window, as a fraction of each range, in (0, 1].
        step: how far it moves, as a fraction of each range; the paper's steps are 1/30.
        episodes: how many are averaged before it may move.
    """

    direction: tuple[float, ...]
    mastered_return: float
    window: float = 1 / 6
    step: float = 1 / 30
    episodes: int = 50

    @classmethod
    def for_environment(cls, knowledge: TaskKnowledge) -> OracleConfig:
        """From the environment's easy task towards its target, moving on at mastery."""
        steps = zip(knowledge.easy_task, knowledge.target_mean, strict=True)
        direction = tuple(float(np.sign(target - easy)) for easy, target in steps)
        return cls(direction=direction, mastered_return=knowledge.mastered_return)


class Oracle:
    """Proposes tasks uniformly from a window that slides from the easiest to the hardest corner.

    The hand-made curriculum of Portelas et al. 2019 (arXiv:1910.07224): the window begins at the easy end of
    every parameter; after every `episodes` episodes, if their mean return is above `mastered_return`, it
    moves one step; at the hard end it stays.

    Expert knowledge: which way each parameter gets harder, and the return that counts as mastered.

    Args:
        space: the box of task parameters.
        rng: decides everything random.
        config: settings; `direction` and `mastered_return` have no default.

    Logged metrics:
        - ``position``: 0 with the window at the easy end, 1 at the hard end.
        - ``mean_return``: of the last full `episodes` episodes; 0 before.
    """

    task_spaces: ClassVar[type] = BoxSpace

    def __init__(self, space: TaskSpace, rng: np.random.Generator, config: OracleConfig) -> None:
        self.space = require_box(space, "Oracle")
        self._signs = np.sign(np.asarray(config.direction, dtype=np.float64))
        if self._signs.shape != self.space.shape or not np.abs(self._signs).any():
            raise ValueError(
                f"OracleConfig.direction is {config.direction}; give one of 1, -1, 0 for each of "
                f"{', '.join(self.space.names)}, not all 0"
            )
        if not 0 < config.window <= 1 or config.step <= 0:
            raise ValueError("OracleConfig.window is a fraction in (0, 1], and step is greater than 0")
        self.config = config
        self.rng = rng
        self._seen = EpisodeWindow(config.episodes, self.space.dim)
        self._travelled = 0.0
        self._mean_return = 0.0
        self._window = self._bounds()

    def _bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Low and high corner of the window in the unit cube."""
        near, far = self._travelled, self._travelled + self.config.window
        low = np.select([self._signs > 0, self._signs < 0], [near, 1.0 - far], 0.0)
        high = np.select([self._signs > 0, self._signs < 0], [far, 1.0 - near], 1.0)
        return low, high

    def propose(self, n: int) -> NDArray[np.float64]:
        """Return `n` tasks of the window, shape ``(n, d)``."""
        low, high = self._window
        return self.space.from_unit(low + self.rng.random((n, self.space.dim)) * (high - low))

    def observe(self, episodes: Episodes) -> None:
        """Take in finished episodes; after every `episodes` of them the window may move."""
        for _, returns in self._seen.add(unit_tasks(self.space, episodes), episodes.returns):
            self._mean_return = float(returns.mean())
            if self._mean_return > self.config.mastered_return:
                self._travelled = min(self._travelled + self.config.step, 1.0 - self.config.window)
                self._window = self._bounds()

    def metrics(self) -> dict[str, float]:
        """``position`` and ``mean_return``, explained in the class docstring."""
        way = 1.0 - self.config.window
        return {"position": self._travelled / way if way > 0 else 1.0, "mean_return": self._mean_return}

    def picture(self) -> dict[str, Any]:
        """The window as one box in task units."""
        low, high = (self.space.from_unit(corner[None]) for corner in self._window)
        return {"boxes": {"low": low, "high": high, "weights": np.ones(1)}}

    def state_dict(self) -> StateDict:
        """Window, episodes since the last decision, and generator, by value."""
        return {
            **state_header("oracle", self.space, self.config),
            "rng": rng_state(self.rng),
            "seen": self._seen.state_dict(),
            "travelled": self._travelled,
            "mean_return": self._mean_return,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`.

        Raises:
            StateError: when it is of another method, task space or config.
        """
        check_header(state, "oracle", self.space, self.config)
        set_rng_state(self.rng, state["rng"])
        self._seen.load_state_dict(state["seen"])
        self._travelled = state["travelled"]
        self._window = self._bounds()
        self._mean_return = state["mean_return"]

"""Levels: tasks that are structures (mazes, tracks), and what their space offers beyond any task space's."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.tasks import Tasks, TaskSpace


@runtime_checkable
class DrawsTasks(Protocol):
    """A task space that draws its tasks for people; beside `TaskSpace`."""

    def gallery(self, tasks: Tasks) -> NDArray[np.uint8]:
        """One small picture of each task, all of one size, shape ``(n, height, width, 3)``."""
        ...


@runtime_checkable
class LevelSpace(TaskSpace, DrawsTasks, Protocol):
    """A task space whose tasks are structured levels, which can be edited, encoded and drawn.

    Levels are recorded by id: each is kept once, and its number stands for it in the columns of a run. A
    space that offers only some of these methods inherits from `TaskSpace` instead: what needs an edit asks
    for `mutate`, what draws for people asks for `gallery`.
    """

    kind: str = "level"

    def mutate(self, rng: np.random.Generator, tasks: Tasks) -> Tasks:
        """Apply one random edit to each level (ACCEL)."""
        ...

    def encode(self, tasks: Tasks) -> NDArray[np.int64]:
        """Token sequences of the levels, shape ``(n, length)``."""
        ...

    def decode(self, tokens: NDArray[np.int64]) -> Tasks:
        """Levels of the token sequences; the inverse of `encode`."""
        ...

    def features(self, tasks: Tasks) -> NDArray[np.float64]:
        """Numeric descriptors of the levels, shape ``(n, k)``, for distances and plots."""
        ...

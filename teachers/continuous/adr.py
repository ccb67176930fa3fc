"""ADR: a box of tasks that grows from one easy task as the student masters its faces (OpenAI 2019)."""

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
    require_box,
    state_header,
    unit_tasks,
)

ON_FACE = 1e-9
"""Distance in the unit cube up to which a task counts as lying on a face of the box."""


@dataclass(frozen=True)
class ADRConfig:
    """Settings of ADR; `start` and the two thresholds are knowledge and have no default.

    Attributes:
        start: the easy task from which the box grows, in task units.
        grow_return: mean return on a face at or above which the face moves outwards.
        shrink_return: mean return on a face at or below which the face moves inwards; below `grow_return`.
        step: how far a face moves, as a fraction of each parameter's range.
        boundary_ratio: fraction of proposals that lie on a face.
        queue: returns collected on a face before it may move.
    """

    start: tuple[float, ...]
    grow_return: float
    shrink_return: float
    step: float = 0.1
    boundary_ratio: float = 0.5
    queue: int = 10

    @classmethod
    def for_environment(cls, knowledge: TaskKnowledge) -> ADRConfig:
        """Start at the environment's easy task, grow at mastery, shrink half-way down to the lowest return.

        For StumpTracks (mastered at 230, returns from -150) it gives 230 and 40, near TeachMyAgent's values.
        """
        shrink_return = (knowledge.mastered_return + knowledge.return_range[0]) / 2
        return cls(knowledge.easy_task, knowledge.mastered_return, shrink_return)


class ADR:
    """Proposes tasks from a box that grows where the student does well (automatic domain randomisation).

    Akkaya et al. (OpenAI) 2019, Solving Rubik's cube with a robot hand, section 5 (arXiv:1910.07113). The box
    begins as a single task. A fraction of the proposals has one random parameter put on the lower or upper
    face of the box, the others are uniform inside. Each face collects the returns of tasks on it; when
    `queue` are in, the face moves outwards if their mean is high enough, inwards if it is too low, and
    begins to collect anew.

    Expert knowledge: an easy task, and two absolute thresholds of return.

    Args:
        space: the box of task parameters.
        rng: decides everything random.
        config: settings; the knowledge in it has no default.

    Logged metrics:
        - ``log_volume``: mean over the parameters of the log of the box's extent, as a fraction of the range;
          at least -20.
        - ``extent``: mean over the parameters of that extent.

    Notes:
        Faces are recognised by position, so an episode that began before its face moved no longer counts. As
        long as a parameter's extent is 0, its lower and upper face coincide and both collect. Beyond the
        public code: steps are fractions of each range; a face at the end of its range, which cannot move
        out, gives its share of proposals to the opposite one; and no draw is repeated after a move.
    """

    task_spaces: ClassVar[type] = BoxSpace

    def __init__(self, space: TaskSpace, rng: np.random.Generator, config: ADRConfig) -> None:
        self.space = require_box(space, "ADR")
        start = self.space.to_unit(check_task_vector(self.space, config.start, "ADRConfig.start"))
        if not config.shrink_return < config.grow_return:
            raise ValueError(
                f"ADRConfig.shrink_return is {config.shrink_return}; "
                f"it must be below grow_return, which is {config.grow_return}"
            )
        if config.step <= 0 or config.queue < 1 or not 0 <= config.boundary_ratio <= 1:
            raise ValueError("ADRConfig needs step > 0, queue >= 1 and boundary_ratio in [0, 1]")
        self.config = config
        self.rng = rng
        # Row 0: lower faces, row 1: upper faces, in the unit cube.
        self._faces = np.stack([start, start])
        self._queues: list[list[list[float]]] = [[[] for _ in range(self.space.dim)] for _ in range(2)]

    def propose(self, n: int) -> NDArray[np.float64]:
        """Return `n` tasks, shape ``(n, d)``: inside the box, or on one of its faces."""
        # Columns: on a face or not, which parameter, which side, coordinates.
        uniforms = self.rng.random((n, self.space.dim + 3))
        low, high = self._faces
        points = low + uniforms[:, 3:] * (high - low)
        parameter = (uniforms[:, 1] * self.space.dim).astype(np.int64)
        can_fall, can_rise = (low > 0.0)[parameter], (high < 1.0)[parameter]
        upper = np.where(can_fall & can_rise, uniforms[:, 2] >= 0.5, can_rise)
        rows = np.flatnonzero((uniforms[:, 0] < self.config.boundary_ratio) & (can_fall | can_rise))
        points[rows, parameter[rows]] = self._faces[upper[rows].astype(np.int64), parameter[rows]]
        return self.space.from_unit(points)

    def observe(self, episodes: Episodes) -> None:
        """Take in finished episodes one after another; a face with a full queue may move."""
        tasks = unit_tasks(self.space, episodes)
        for task, value in zip(tasks, episodes.returns.tolist(), strict=True):
            touched = np.abs(task - self._faces) <= ON_FACE
            for side, parameter in zip(*(index.tolist() for index in touched.nonzero()), strict=True):
                queue = self._queues[side][parameter]
                queue.append(value)
                if len(queue) == self.config.queue:
                    self._move(side, parameter, sum(queue) / len(queue))
                    queue.clear()

    def _move(self, side: int, parameter: int, mean_return: float) -> None:
        low, high = self._faces[:, parameter]
        outwards = -self.config.step if side == 0 else self.config.step
        # mean >= t_high: phi <- phi + outwards
        # mean <= t_low:  phi <- phi - outwards, not past the other face
        if mean_return >= self.config.grow_return:
            face = float(np.clip(self._faces[side, parameter] + outwards, 0.0, 1.0))
        elif mean_return <= self.config.shrink_return:
            inner = (0.0, high) if side == 0 else (low, 1.0)
            face = float(np.clip(self._faces[side, parameter] - outwards, *inner))
        else:
            return
        # Sums of steps miss the ends of the range by rounding; a face that close is there.
        self._faces[side, parameter] = round(face) if abs(face - round(face)) < ON_FACE else face

    def metrics(self) -> dict[str, float]:
        """``log_volume`` and ``extent``, explained in the class docstring."""
        extent = self._faces[1] - self._faces[0]
        log_extent = np.log(np.maximum(extent, np.exp(-20.0)))
        return {"log_volume": float(log_extent.mean()), "extent": float(extent.mean())}

    def picture(self) -> dict[str, Any]:
        """The box in task units."""
        low, high = (self.space.from_unit(corner[None]) for corner in self._faces)
        return {"boxes": {"low": low, "high": high, "weights": np.ones(1)}}

    def state_dict(self) -> StateDict:
        """Faces, queues and generator, by value."""
        return {
            **state_header("adr", self.space, self.config),
            "rng": rng_state(self.rng),
            "faces": self._faces.copy(),
            "queues": [[list(queue) for queue in side] for side in self._queues],
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`.

        Raises:
            StateError: when it is of another method, task space or config.
        """
        check_header(state, "adr", self.space, self.config)
        set_rng_state(self.rng, state["rng"])
        self._faces = state["faces"].copy()
        self._queues = [[list(queue) for queue in side] for side in state["queues"]]

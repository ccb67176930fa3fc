"""Primitives of task teachers: checks, proportional choice, windows of episodes, saved-state headers.

Whole methods are in the files named after them; this module knows no method.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateDict, StateError
from tutelage.envs.contract.tasks import BoxSpace, TaskSpace, missing_members

Floats = NDArray[np.float64]


def require_box(space: TaskSpace, method: str) -> BoxSpace:
    """Return `space` if it is a box of parameters, of whichever class.

    Raises:
        TypeError: when it is not; `method` is named, and what the space lacks.
    """
    if not isinstance(space, BoxSpace):
        raise TypeError(
            f"{method} proposes from a box of named parameters (BoxTasks), but was given {space!r}, which "
            f"lacks {', '.join(missing_members(space, BoxSpace))}; for other task spaces use the task "
            "teacher 'random'"
        )
    return space


def unit_tasks(space: BoxSpace, episodes: Episodes) -> Floats:
    """Tasks of the episodes in the unit cube, shape ``(n, d)``.

    Raises:
        TaskError: when a task does not belong to the space.
    """
    return space.to_unit(space.check(episodes.tasks, "observed tasks"))


def normal_quantiles(uniforms: Floats) -> Floats:
    """Standard normal numbers by the inverse distribution function: one uniform each, always finite.

    Rejection methods use up a varying number of uniforms, and then the tasks proposed would depend on how a
    sequence of proposals is cut into batches.
    """
    from scipy.special import ndtri

    # 2^-55 moves 0 off minus infinity and leaves every larger multiple of 2^-53 below 1.
    quantiles: Floats = ndtri(uniforms + 2.0**-55)
    return quantiles


def cumulative_choice(interest: Floats) -> Floats:
    """Cumulative probabilities proportional to `interest` (all >= 0); uniform when all are 0."""
    cumulative = interest.cumsum()
    if cumulative[-1] <= 0:
        cumulative = np.arange(1.0, len(interest) + 1.0)
    cumulative /= cumulative[-1]
    return cumulative


def entropy(cumulative: Floats) -> float:
    """Entropy, in nats, of a choice with the given cumulative probabilities."""
    chances = np.diff(cumulative, prepend=0.0)
    chances = chances[chances > 0]
    return abs(float(chances @ np.log(chances)))


def robust_scale(values: Floats) -> float:
    """Spread of `values` that outliers hardly move: their 5 % to 95 % range, else their whole range, else 1.

    Scales with a in ``a * values + b``, so dividing by it makes what follows free of the unit of returns.
    """
    low, high = np.quantile(values, [0.05, 0.95])
    if high > low:
        return float(high - low)
    spread = float(values.max() - values.min())
    return spread if spread > 0 else 1.0


class EpisodeWindow:
    """Collects episodes and gives them out in windows of fixed length, however they come in batches.

    Args:
        length: episodes in a window.
        dim: parameters of a task.

    Attributes:
        filled: episodes collected since the last full window.
    """

    def __init__(self, length: int, dim: int) -> None:
        if length < 2:
            raise ValueError(f"a window of episodes needs a length of at least 2, got {length}")
        self.tasks = np.zeros((length, dim))
        self.returns = np.zeros(length)
        self.filled = 0

    def add(self, tasks: Floats, returns: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Add episodes; yield ``(tasks, returns)``, views, each time that the window is full."""
        start, length = 0, len(self.returns)
        while start < len(returns):
            stop = min(len(returns), start + length - self.filled)
            end = self.filled + stop - start
            self.tasks[self.filled : end] = tasks[start:stop]
            self.returns[self.filled : end] = returns[start:stop]
            start, self.filled = stop, end % length
            if end == length:
                yield self.tasks, self.returns

    def state_dict(self) -> StateDict:
        """The episodes collected since the last full window."""
        return {"tasks": self.tasks[: self.filled].copy(), "returns": self.returns[: self.filled].copy()}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`."""
        self.filled = len(state["returns"])
        self.tasks[: self.filled] = state["tasks"]
        self.returns[: self.filled] = state["returns"]


def state_header(method: str, space: TaskSpace, config: Any) -> StateDict:
    """Header of a saved task teacher, by which a foreign state is recognised."""
    return {"task_teacher": method, "space": space.to_json(), "config": asdict(config)}


def check_header(state: StateDict, method: str, space: TaskSpace, config: Any) -> None:
    """Compare a saved header with a task teacher's own.

    Raises:
        StateError: names the first of method, task space and config that differs.
    """
    for key, own in state_header(method, space, config).items():
        saved = state.get(key)
        if _canonical(saved) != _canonical(own):
            raise StateError(
                f"the saved task teacher has {key} {saved!r}, this one {own!r}; "
                "build it with the same method, task space and config, or start anew"
            )


def _canonical(value: Any) -> str:
    """JSON text; tuples and lists are the same, as after a round trip through a file."""
    return json.dumps(value, sort_keys=True, default=str)


def check_task_vector(space: BoxSpace, task: Sequence[float], name: str) -> Floats:
    """Return a single task of a config as an array, shape ``(d,)``.

    Raises:
        TaskError: when it has the wrong number of values or lies outside the box; `name` is named.
    """
    return space.check([task], name)[0]

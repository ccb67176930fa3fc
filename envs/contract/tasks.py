"""Task spaces: the sets that task teachers propose from and task environments accept.

A *task* is the parameter vector of one episode. Everything here is batched: a batch of tasks is one
array whose first axis counts tasks. Boxes of named parameters are the common case; finite sets serve
discrete curricula; for levels (mazes, tracks) see `tutelage.envs.contract.levels`. A space says of itself how
its tasks are recorded and drawn, so that nothing needs to know which class it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import get_annotations
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Tasks = NDArray[Any]
"""A batch of tasks, shape ``(n, *space.shape)``."""


class TaskError(ValueError):
    """A task that its task space does not contain: wrong shape, NaN, or out of range."""


@dataclass(frozen=True)
class Axis:
    """One named axis that tasks can be drawn on.

    Attributes:
        name: what lies along it.
        low, high: where it begins and ends.
        whole: whether only whole numbers lie on it.

    Raises:
        ValueError: when a bound is not finite, or ``low >= high``.
    """

    name: str
    low: float
    high: float
    whole: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ValueError(
                f"task parameter {self.name!r} has bounds ({self.low}, {self.high}); need finite low < high"
            )

    def edges(self, bins: int, most: int = 1000) -> NDArray[np.float64]:
        """Edges of bins of equal width; one bin for each whole number if there are no more than `most`."""
        if self.whole and self.high - self.low <= most:
            return self.low + np.arange(round(self.high - self.low) + 1.0)
        return np.linspace(self.low, self.high, bins + 1)


@runtime_checkable
class TaskSpace(Protocol):
    """What every task space offers. A class that inherits from this one is recorded by id and not drawn.

    Attributes:
        kind: what its tasks are: ``box``, ``discrete``, ``level``, ``snapshot``, or a word of your own.
        shape: shape of one task, e.g. ``(2,)`` for a box of two parameters, ``()`` for a discrete set.
        dtype: numpy dtype of a batch.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that its tasks lie on, in the order of the numbers of a task; none for levels."""
        return ()

    def describe(self, tasks: Tasks) -> dict[str, NDArray[Any]]:
        """Name the numbers that make up the tasks, each ``(n,)``: the columns that records hold.

        None where a task is a structure: it is then kept once, and recorded by its id.
        """
        return {}

    def sample(self, rng: np.random.Generator, n: int) -> Tasks:
        """Draw `n` tasks uniformly; task *i* does not depend on how a sequence is cut into batches."""
        ...

    def contains(self, tasks: ArrayLike) -> NDArray[np.bool_]:
        """Tell for each task of the batch whether it lies in the space; shape ``(n,)``."""
        ...

    def check(self, tasks: ArrayLike, source: str = "tasks") -> Tasks:
        """Return the batch as an array of this space's dtype, or raise `TaskError` naming the fault."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Describe the space by JSON values, its ``kind`` among them."""
        ...


@runtime_checkable
class BoxSpace(TaskSpace, Protocol):
    """A task space that is a box of named parameters, ours or a user's: most task teachers need one.

    Attributes:
        names: the parameters' names, in order.
        low, high: bounds, shape ``(d,)``, float64.
    """

    names: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def dim(self) -> int:
        """Number of parameters."""
        ...

    def to_unit(self, tasks: ArrayLike) -> NDArray[np.float64]:
        """Map tasks to the unit cube, shape ``(n, d)``."""
        ...

    def from_unit(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map points of the unit cube to tasks; rounding never leaves the box."""
        ...


def missing_members(space: object, protocol: type) -> list[str]:
    """Names of the members of a protocol that an object lacks, in alphabetical order.

    Example:
        >>> missing_members(DiscreteTasks(2), BoxSpace)
        ['dim', 'from_unit', 'high', 'low', 'to_unit']
    """
    members = {name for cls in protocol.__mro__ for name in (*vars(cls), *get_annotations(cls))}
    return sorted(name for name in members if not name.startswith("_") and not hasattr(space, name))


def unit_grid(per_dimension: int | Sequence[int], dim: int) -> NDArray[np.float64]:
    """Cell centres of a regular grid in the unit cube, the last dimension varying fastest, ``(cells, d)``."""
    sides = np.broadcast_to(np.asarray(per_dimension), (dim,))
    axes = [(np.arange(side) + 0.5) / side for side in sides]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim)


def _batch(tasks: ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any], source: str) -> Tasks:
    try:
        batch = np.asarray(tasks, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise TaskError(f"{source} cannot be read as an array of {dtype}: {error}") from None
    if batch.ndim != len(shape) + 1 or batch.shape[1:] != shape:
        wanted = "(n" + "".join(f", {size}" for size in shape) + ("," if not shape else "") + ")"
        raise TaskError(f"{source} have shape {batch.shape}, expected {wanted}: one row for each task")
    return batch


class BoxTasks:
    """A box of named, bounded, real parameters.

    Args:
        bounds: maps each parameter's name to its ``(low, high)``, in the order of the task vector.

    Attributes:
        names: the parameters' names, in order.
        low, high: bounds, shape ``(d,)``, float64.

    Raises:
        ValueError: when there is no parameter, or a bound is not finite, or ``low >= high``.

    Example:
        >>> space = BoxTasks({"stump_height": (0, 3), "obstacle_spacing": (0, 6)})
        >>> space.names
        ('stump_height', 'obstacle_spacing')
        >>> space.from_unit([[0.5, 0.5]])
        array([[1.5, 3. ]])
        >>> space.contains([[1.0, 2.0], [1.0, 7.0]])
        array([ True, False])
    """

    kind = "box"
    dtype = np.dtype(np.float64)

    def __init__(self, bounds: Mapping[str, tuple[float, float]]) -> None:
        if not bounds:
            raise ValueError("a task box needs at least one named parameter, e.g. {'height': (0, 3)}")
        self.axes = tuple(Axis(name, float(low), float(high)) for name, (low, high) in bounds.items())
        self.names = tuple(bounds)
        self.low = np.array([axis.low for axis in self.axes], dtype=np.float64)
        self.high = np.array([axis.high for axis in self.axes], dtype=np.float64)
        self.shape: tuple[int, ...] = (len(self.names),)

    @property
    def dim(self) -> int:
        """Number of parameters."""
        return len(self.names)

    def describe(self, tasks: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Each parameter's values, shape ``(n,)``."""
        return dict(zip(self.names, np.asarray(tasks, dtype=np.float64).T, strict=True))

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """Draw `n` tasks uniformly, shape ``(n, d)``."""
        return self.from_unit(rng.random((n, self.dim)))

    def contains(self, tasks: ArrayLike) -> NDArray[np.bool_]:
        """Tell for each task whether it is finite and within the bounds (borders included)."""
        batch = _batch(tasks, self.shape, self.dtype, "tasks")
        return np.all((batch >= self.low) & (batch <= self.high), axis=1)

    def check(self, tasks: ArrayLike, source: str = "tasks") -> NDArray[np.float64]:
        """Return the batch as float64, or raise `TaskError` that names the first fault."""
        batch = _batch(tasks, self.shape, self.dtype, source)
        inside = (batch >= self.low) & (batch <= self.high)
        if np.count_nonzero(inside) < inside.size:  # on the hot path; NaN compares false
            row, column = np.argwhere(~inside)[0]
            raise TaskError(
                f"{source}: {self.names[column]} = {batch[row, column]} in task {row} is outside "
                f"[{self.low[column]}, {self.high[column]}]; clip it to the task space"
            )
        return batch

    def to_unit(self, tasks: ArrayLike) -> NDArray[np.float64]:
        """Map tasks to the unit cube, shape ``(n, d)``."""
        return (np.asarray(tasks, dtype=np.float64) - self.low) / (self.high - self.low)

    def from_unit(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map points of the unit cube to tasks; rounding never leaves the box."""
        tasks = self.low + np.asarray(points, dtype=np.float64) * (self.high - self.low)
        np.maximum(tasks, self.low, out=tasks)  # np.clip takes three times as long on few tasks
        return np.minimum(tasks, self.high, out=tasks)

    def grid(self, per_dimension: int | Sequence[int]) -> NDArray[np.float64]:
        """Cell centres of a regular grid, the last parameter varying fastest, shape ``(cells, d)``."""
        return self.from_unit(unit_grid(per_dimension, self.dim))

    def to_json(self) -> dict[str, Any]:
        """Describe the space by JSON values."""
        bounds = {k: [lo, hi] for k, lo, hi in zip(self.names, self.low, self.high, strict=True)}
        return {"kind": "box", "bounds": bounds}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoxTasks) or self.names != other.names:  # the order of parameters counts
            return False
        return np.array_equal(self.low, other.low) and np.array_equal(self.high, other.high)

    def __hash__(self) -> int:
        return hash((self.names, self.low.tobytes(), self.high.tobytes()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{k!r}: ({v[0]:g}, {v[1]:g})" for k, v in self.to_json()["bounds"].items())
        return f"BoxTasks({{{inner}}})"


class DiscreteTasks:
    """A finite set of tasks, each an integer index with a name.

    Args:
        names: the tasks' names, or how many there are.

    Example:
        >>> space = DiscreteTasks(["reach", "push", "lift"])
        >>> space.sample(np.random.default_rng(0), 4)
        array([1, 0, 0, 0])
        >>> space.contains([0, 3])
        array([ True, False])
    """

    kind = "discrete"
    dtype = np.dtype(np.int64)
    shape: tuple[int, ...] = ()

    def __init__(self, names: Sequence[str] | int) -> None:
        self.names = tuple(str(i) for i in range(names)) if isinstance(names, int) else tuple(names)
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError("a discrete task space needs at least one task, and different names")
        self.axes = (Axis("task", -0.5, self.n - 0.5, whole=True),)

    @property
    def n(self) -> int:
        """Number of tasks."""
        return len(self.names)

    def describe(self, tasks: ArrayLike) -> dict[str, NDArray[np.int64]]:
        """The tasks' indices, shape ``(n,)``."""
        return {"index": np.asarray(tasks, dtype=np.int64)}

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """Draw `n` task indices uniformly, shape ``(n,)``."""
        return np.minimum((rng.random(n) * self.n).astype(np.int64), self.n - 1)

    def contains(self, tasks: ArrayLike) -> NDArray[np.bool_]:
        """Tell for each index whether it names a task; fractions do not."""
        batch = _batch(tasks, self.shape, np.dtype(np.float64), "tasks")
        inside: NDArray[np.bool_] = (batch >= 0) & (batch < self.n) & (batch == np.floor(batch))
        return inside

    def check(self, tasks: ArrayLike, source: str = "tasks") -> NDArray[np.int64]:
        """Return the batch as int64, or raise `TaskError` that names the first fault."""
        inside = self.contains(tasks)
        if not inside.all():
            first = int(np.argmin(inside))
            value = np.asarray(tasks, dtype=np.float64)[first]
            raise TaskError(f"{source}: task {first} is {value}, expected an integer from 0 to {self.n - 1}")
        return np.asarray(tasks).astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        """Describe the space by JSON values."""
        return {"kind": "discrete", "names": list(self.names)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DiscreteTasks) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"DiscreteTasks({list(self.names)!r})"

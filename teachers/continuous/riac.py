"""RIAC: a growing tree of boxes, each with its own learning progress (Baranes and Oudeyer 2009)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateDict, rng_state, set_rng_state
from tutelage.envs.contract.tasks import BoxSpace, TaskSpace
from tutelage.teachers.continuous.primitives import (
    check_header,
    cumulative_choice,
    entropy,
    normal_quantiles,
    require_box,
    state_header,
    unit_tasks,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RIACConfig:
    """Settings of RIAC; the defaults are those of Portelas et al. 2019, `leaves_only` excepted.

    Attributes:
        max_region_size: episodes that a leaf may hold; one more, and it is split. At least 4.
        split_attempts: random splits tried, of which the best is kept.
        min_extent: least extent of a box in each dimension, as a fraction of the parameter's range.
        min_population: least share of `max_region_size` that each half of a split must hold.
        discard_ratio: share of `max_region_size`, the oldest, that a leaf forgets when no split is possible.
        region_ratio: fraction of tasks drawn uniformly from a box chosen in proportion to its progress.
        random_ratio: fraction of tasks drawn uniformly from the whole task space; what is left of 1 goes to
            mutations of a box's least rewarded task.
        mutation_std: standard deviation of such a mutation, as a fraction of each parameter's range.
        leaves_only: False also proposes from inner boxes of the tree, which overlap their leaves and remember
            as many episodes, as the public code does; True is quicker and stronger on the cube toy.
        max_regions: boxes, inner ones included, after which no leaf is split any more; bounds the memory.
    """

    max_region_size: int = 200
    split_attempts: int = 50
    min_extent: float = 1 / 6
    min_population: float = 1 / 20
    discard_ratio: float = 1 / 4
    region_ratio: float = 0.7
    random_ratio: float = 0.2
    mutation_std: float = 0.1
    leaves_only: bool = True
    max_regions: int = 1_001

    @staticmethod
    def teachmyagent() -> RIACConfig:
        """The values that TeachMyAgent's benchmark chose (Romac et al. 2021)."""
        return RIACConfig(max_region_size=150, split_attempts=75, min_extent=0.1, leaves_only=False)


class Region:
    """A box of the task space, with the last episodes in it.

    Attributes:
        low, high: bounds in the unit cube, shape ``(d,)``.
        tasks, returns: of the episodes in it, oldest first.
        totals: running sums of the returns; ``totals[j] - totals[i]`` is the sum of ``returns[i:j]``.
        children: indices of the lower and upper half, or None for a leaf.
        axis, threshold: where it is split; the lower half holds tasks with ``task[axis] <= threshold``.
    """

    def __init__(self, low: Floats, high: Floats) -> None:
        self.low = low
        self.high = high
        self.tasks: list[list[float]] = []
        self.returns: list[float] = []
        self.totals: list[float] = [0.0]
        self.children: tuple[int, int] | None = None
        self.axis = 0
        self.threshold = 0.0

    def add(self, task: list[float], value: float, limit: int) -> None:
        """Add an episode and keep the last `limit`."""
        self.tasks.append(task)
        self.returns.append(value)
        self.totals.append(self.totals[-1] + value)
        # Drop many at once: dropping one from the front of a list moves all the others.
        if len(self.tasks) >= 2 * limit:
            self.forget(len(self.tasks) - limit)

    def forget(self, count: int) -> None:
        """Drop the `count` oldest episodes."""
        del self.tasks[:count], self.returns[:count], self.totals[:count]
        first = self.totals[0]
        self.totals = [total - first for total in self.totals]

    def progress(self, window: int) -> float:
        """ALP = |mean return of the newer half - that of the older half| of the last `window` episodes."""
        count = min(len(self.tasks), window)
        if count <= 2:
            return 0.0
        half, totals = count // 2, self.totals
        newer = (totals[-1] - totals[-1 - half]) / half
        older = (totals[-1 - half] - totals[-1 - count]) / (count - half)
        return abs(newer - older)


def split_progress(returns: Floats, members: NDArray[np.bool_]) -> Floats:
    """ALP, as of `Region.progress`, of many subsets of a region's episodes at once.

    Args:
        returns: of the region, oldest first, shape ``(m,)``.
        members: which episodes belong to each subset, shape ``(subsets, m)``.

    Returns:
        Shape ``(subsets,)``; 0 for subsets of at most two.
    """
    ranks = members.cumsum(axis=1)
    count = ranks[:, -1]
    half = count // 2
    newer = members & (ranks > (count - half)[:, None])
    older = members & ~newer
    means_newer = (newer @ returns) / np.maximum(half, 1)
    means_older = (older @ returns) / np.maximum(count - half, 1)
    return np.where(count > 2, np.abs(means_newer - means_older), 0.0)


class RIAC:
    """Proposes tasks from boxes in which the student's return changes.

    Baranes and Oudeyer 2009, R-IAC: Robust intrinsically motivated exploration and active learning, as
    adapted by Portelas et al. 2019 (arXiv:1910.07224, appendix). The task space is a tree of boxes, the
    first one all of it. A leaf that holds too many episodes is split at the place, out of `split_attempts`
    random ones, that best separates much from little absolute learning progress (ALP). Of the proposals, 70
    % come from a box chosen in proportion to its ALP, 20 % from the whole space, and 10 % are mutations of
    the least rewarded task of a box chosen by ALP.

    Expert knowledge: none.

    Args:
        space: the box of task parameters.
        rng: decides everything random; a child of it serves the splits.
        config: settings.

    Logged metrics:
        - ``regions``: number of boxes to propose from.
        - ``mean_alp``: mean of their ALP, in units of return.
        - ``entropy``: of the choice among the boxes, in nats.

    Notes:
        Beyond the public code: splits are scored with the numbers of episodes in both halves, as published
        (the public code multiplies by a constant instead), each half starts with the ALP of its own episodes,
        sampling is reproducible, and mutations are in fractions of each parameter's range.
    """

    task_spaces: ClassVar[type] = BoxSpace

    def __init__(self, space: TaskSpace, rng: np.random.Generator, config: RIACConfig = RIACConfig()) -> None:
        self.space = require_box(space, "RIAC")
        if config.max_region_size < 4:
            raise ValueError(f"max_region_size is {config.max_region_size}; halves need at least 4 episodes")
        if not 0 <= config.region_ratio <= 1 - config.random_ratio <= 1:
            raise ValueError("region_ratio and random_ratio are fractions of all tasks, together at most 1")
        self.config = config
        self.rng = rng
        self._split_rng = rng.spawn(1)[0]
        self.regions = [Region(np.zeros(self.space.dim), np.ones(self.space.dim))]
        self._alps = np.zeros(1)
        # First, least and greatest return seen: regions hold returns less the first, which keeps sums exact
        # for any offset of returns, and differences too small against the range are rounding.
        self._first = self._least = self._greatest = 0.0
        self._index()

    def _index(self) -> None:
        """Collect what proposals need of the regions that they come from."""
        everything = not self.config.leaves_only
        self._open = np.array([i for i, r in enumerate(self.regions) if everything or r.children is None])
        self._lows = np.stack([self.regions[i].low for i in self._open])
        self._spans = np.stack([self.regions[i].high for i in self._open]) - self._lows

    def propose(self, n: int) -> Floats:
        """Return `n` tasks, shape ``(n, d)``."""
        # Columns: how, which region, coordinates. Every task uses up the same number of uniforms.
        uniforms = self.rng.random((n, self.space.dim + 2))
        how, points = uniforms[:, 0], uniforms[:, 2:]
        chosen = cumulative_choice(self._alps[self._open]).searchsorted(uniforms[:, 1], side="right")
        in_region = (how < self.config.region_ratio)[:, None]
        proposed = np.where(in_region, self._lows[chosen] + points * self._spans[chosen], points)
        mutating = how >= self.config.region_ratio + self.config.random_ratio
        if mutating.any():
            for row in np.flatnonzero(mutating):
                region = self.regions[self._open[chosen[row]]]
                if region.tasks:
                    recent = region.tasks[-self.config.max_region_size - 1 :]
                    worst = np.asarray(recent[int(np.argmin(region.returns[-len(recent) :]))])
                    mutant = worst + self.config.mutation_std * normal_quantiles(points[row])
                    # Off the faces: a task on a face would belong to either neighbour, as rounding has it.
                    proposed[row] = np.clip(mutant, region.low + 1e-5, region.high - 1e-5)
        return self.space.from_unit(proposed)

    def observe(self, episodes: Episodes) -> None:
        """Take in finished episodes one after another; a leaf that becomes over-full is split."""
        limit = self.config.max_region_size
        tasks, returns = unit_tasks(self.space, episodes).tolist(), episodes.returns.tolist()
        if returns and not self.regions[0].tasks and self.regions[0].children is None:
            self._first = self._least = self._greatest = returns[0]
        for task, value in zip(tasks, returns, strict=True):
            self._least, self._greatest = min(self._least, value), max(self._greatest, value)
            value -= self._first
            index = 0
            while (children := self.regions[index].children) is not None:
                region = self.regions[index]
                if not self.config.leaves_only:
                    region.add(task, value, limit + 1)
                    self._alps[index] = self._progress(region)
                index = children[task[region.axis] > region.threshold]
            leaf = self.regions[index]
            leaf.add(task, value, limit + 1)
            if len(leaf.tasks) > limit:
                self._split(index)
            self._alps[index] = self._progress(leaf)

    def _progress(self, region: Region) -> float:
        alp = region.progress(self.config.max_region_size)
        return alp if alp > 1e-9 * (self._greatest - self._least) else 0.0

    def _split(self, index: int) -> None:
        config, region = self.config, self.regions[index]
        tasks, returns = np.asarray(region.tasks), np.asarray(region.returns)
        # Random axes and thresholds: shape (attempts,)
        uniforms = self._split_rng.random((config.split_attempts, 2))
        axes = (uniforms[:, 0] * self.space.dim).astype(np.int64)
        extents = region.high[axes] - region.low[axes]
        thresholds = region.low[axes] + uniforms[:, 1] * extents
        below = tasks.T[axes] <= thresholds[:, None]
        population = below.sum(axis=1)
        smallest = np.minimum(population, len(tasks) - population)
        narrowest = np.minimum(uniforms[:, 1], 1.0 - uniforms[:, 1]) * extents
        allowed = (smallest >= config.min_population * config.max_region_size) & (
            narrowest >= config.min_extent
        )
        if not allowed.any() or len(self.regions) + 2 > config.max_regions:
            region.forget(int(config.max_region_size * config.discard_ratio) or 1)
            return
        # score = |lower| |upper| |ALP(lower) - ALP(upper)|
        # on returns of unit range, rounded, so that their unit cannot decide between equal splits
        scaled = (returns - np.median(returns)) / (np.ptp(returns) or 1.0)
        difference = np.abs(split_progress(scaled, below) - split_progress(scaled, ~below)).round(9)
        score = np.where(allowed, population * (len(tasks) - population) * difference, -1.0)
        best = int(score.argmax())
        region.axis, region.threshold = int(axes[best]), float(thresholds[best])
        region.children = (len(self.regions), len(self.regions) + 1)
        for members in (below[best], ~below[best]):
            half = Region(region.low.copy(), region.high.copy())
            for row in np.flatnonzero(members):
                half.add(region.tasks[row], region.returns[row], config.max_region_size + 1)
            self.regions.append(half)
        self.regions[-2].high[region.axis] = self.regions[-1].low[region.axis] = region.threshold
        self._alps = np.append(self._alps, [self._progress(half) for half in self.regions[-2:]])
        if config.leaves_only:
            region.forget(len(region.tasks))
        self._index()

    def metrics(self) -> dict[str, float]:
        """``regions``, ``mean_alp`` and ``entropy``, explained in the class docstring."""
        alps = self._alps[self._open]
        return {
            "regions": float(len(alps)),
            "mean_alp": float(alps.mean()),
            "entropy": entropy(cumulative_choice(alps)),
        }

    def picture(self) -> dict[str, Any]:
        """The leaves as boxes in task units, weighted by their share of the leaves' ALP."""
        leaves = [i for i, region in enumerate(self.regions) if region.children is None]
        low = self.space.from_unit(np.stack([self.regions[i].low for i in leaves]))
        high = self.space.from_unit(np.stack([self.regions[i].high for i in leaves]))
        weights = np.diff(cumulative_choice(self._alps[leaves]), prepend=0.0)
        return {"boxes": {"low": low, "high": high, "weights": weights}}

    def state_dict(self) -> StateDict:
        """Tree with its episodes, and generators, by value."""
        d = self.space.dim
        regions = self.regions
        return {
            **state_header("riac", self.space, self.config),
            "rng": rng_state(self.rng),
            "split_rng": rng_state(self._split_rng),
            "low": np.stack([r.low for r in regions]),
            "high": np.stack([r.high for r in regions]),
            "children": np.array([r.children or (-1, -1) for r in regions], dtype=np.int64),
            "axis": np.array([r.axis for r in regions], dtype=np.int64),
            "threshold": np.array([r.threshold for r in regions]),
            "alps": self._alps.copy(),
            "sizes": np.array([len(r.tasks) for r in regions], dtype=np.int64),
            "tasks": np.concatenate([np.reshape(r.tasks, (-1, d)) for r in regions]),
            "returns": np.concatenate([r.returns for r in regions]),
            "totals": np.concatenate([r.totals for r in regions]),
            "seen": [self._first, self._least, self._greatest],
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`.

        Raises:
            StateError: when it is of another method, task space or config.
        """
        check_header(state, "riac", self.space, self.config)
        set_rng_state(self.rng, state["rng"])
        set_rng_state(self._split_rng, state["split_rng"])
        ends = np.cumsum(state["sizes"])
        tasks = np.split(state["tasks"], ends[:-1])
        returns = np.split(state["returns"], ends[:-1])
        totals = np.split(state["totals"], (ends + np.arange(1, len(ends) + 1))[:-1])
        self.regions = []
        for i, (low, high) in enumerate(zip(state["low"], state["high"], strict=True)):
            region = Region(low.copy(), high.copy())
            region.tasks, region.returns = tasks[i].tolist(), returns[i].tolist()
            region.totals = totals[i].tolist()
            lower, upper = state["children"][i].tolist()
            region.children = (lower, upper) if lower >= 0 else None
            region.axis, region.threshold = int(state["axis"][i]), float(state["threshold"][i])
            self.regions.append(region)
        self._alps = state["alps"].copy()
        self._first, self._least, self._greatest = state["seen"]
        self._index()

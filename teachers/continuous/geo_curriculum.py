"""GeoCurriculum: one task, then more and more, spread by their features (UniDexGrasp++, Wan et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateDict, rng_state, set_rng_state
from tutelage.envs.contract.tasks import BoxSpace, Tasks, TaskSpace
from tutelage.teachers.continuous.primitives import check_header, require_box, state_header

Floats = NDArray[np.float64]
LLOYD_ITERATIONS = 10


@dataclass(frozen=True)
class GeoCurriculumConfig:
    """Settings of GeoCurriculum; `tasks` and `splits` are the paper's, whose levels lasted a fixed time.

    Attributes:
        tasks: how many are drawn and clustered.
        splits: into how many each cluster is split, level by level: (300, 3) makes levels of 1, 300 and 900
            tasks, and then all of the task space.
        success_threshold: success on what is new in a level, from which the next one begins, in [0, 1].
        episodes: how many of these are averaged.
        patience: after so many such averages the next level begins in any case, so that one task that cannot
            be learnt does not hold up the rest; the only criterion where success is not known.
        mastered_return: counts as success where the environment defines none.
    """

    tasks: int = 3200
    splits: tuple[int, ...] = (300, 3)
    success_threshold: float = 0.7
    episodes: int = 100
    patience: int = 20
    mastered_return: float | None = None


class GeoCurriculum:
    """Proposes one task, then tasks spread over the space ever more densely, at last all (Wan et al. 2023).

    UniDexGrasp++: Improving Dexterous Grasping Policy Learning via Geometry-aware Curriculum and Iterative
    Generalist-Specialist Learning, ICCV 2023 (arXiv:2304.00464), section 4.4 and algorithm 2. Tasks are
    compared by features: of a task space with a method ``features(tasks) -> (n, k)`` (LiftObject: the
    object's geometry and pose), else by their parameters in the unit cube. Level 0 is the task nearest to the
    mean of all features. Each further level splits the clusters of the one before, and adds the task nearest
    to the centre of each. The last level is the whole task space, uniformly.

    Expert knowledge: none.

    Args:
        space: the box of task parameters.
        rng: decides everything random.
        config: settings.

    Logged metrics:
        - ``level``: 0 with one task; the number of `splits`, plus 1, with the whole space.
        - ``tasks``: how many are proposed from; in the last level, 0: any.
        - ``success``: the last average on the tasks that were new in its level; 0 before.

    Notes:
        Beyond the paper: a level ends when success on the tasks that are new in it passes a threshold; the
        last is the whole space, not the tasks drawn. The first task is the most typical, not the easiest:
        where nothing can be learnt in the middle of the space, it loses time. On LiftObject (400,000 steps
        of PPO, seed 0) it reached 0.55, and 0.66 with splits (30,); uniform tasks 0.75, ALP-GMM 0.80.

    Example:
        >>> from tutelage.envs.contract.tasks import BoxTasks
        >>> space = BoxTasks({"height": (0, 3)})
        >>> task_teacher = GeoCurriculum(space, np.random.default_rng(0), GeoCurriculumConfig(splits=(4,)))
        >>> task_teacher.propose(3).round(2).tolist()
        [[1.49], [1.49], [1.49]]
        >>> tasks = task_teacher.propose(100)
        >>> task_teacher.observe(Episodes.of(tasks, returns=np.ones(100), successes=np.ones(100)))
        >>> np.unique(task_teacher.propose(100)).round(1).tolist()
        [0.4, 1.2, 1.5, 1.9, 2.6]
    """

    task_spaces: ClassVar[type] = BoxSpace

    def __init__(
        self, space: TaskSpace, rng: np.random.Generator, config: GeoCurriculumConfig = GeoCurriculumConfig()
    ) -> None:
        self.space, self.config, self.rng = require_box(space, "GeoCurriculum"), config, rng
        if not 0 <= config.success_threshold <= 1:
            raise ValueError(f"success_threshold is a share from 0 to 1, not {config.success_threshold}")
        if min(config.tasks, config.episodes, config.patience, *config.splits) < 1:
            raise ValueError(f"tasks, splits, episodes and patience must be at least 1: {config}")
        drawn = self.space.sample(rng, config.tasks)
        rows, self._sizes = hierarchy(standardized(task_features(self.space, drawn)), config.splits)
        self._tasks = drawn[rows]  # level l proposes the first _sizes[l] of them
        self.last_level = len(self._sizes)  # the whole space
        self._counted, self._succeeded, self._windows, self._success = 0, 0.0, 0, 0.0
        self._enter(0)

    def propose(self, n: int) -> Floats:
        """Return `n` tasks of the level, shape ``(n, d)``."""
        draws = self.rng.random((n, 1 + self.space.dim))
        if self.level == self.last_level:
            return self.space.from_unit(draws[:, 1:])
        return self._tasks[(draws[:, 0] * self._sizes[self.level]).astype(np.int64)]

    def observe(self, episodes: Episodes) -> None:
        """Take in finished episodes; the level may rise."""
        tasks = self.space.check(episodes.tasks, "observed tasks")
        successes = self._successes(episodes)
        start = 0
        while self.level < self.last_level:
            rows = start + np.flatnonzero(self._is_new(tasks[start:]))[: self.config.episodes - self._counted]
            self._counted += len(rows)
            self._succeeded += float(successes[rows].sum())
            if self._counted < self.config.episodes:
                return
            start = int(rows[-1]) + 1
            self._end_window()

    def _end_window(self) -> None:
        self._success = self._succeeded / self._counted
        self._counted, self._succeeded, self._windows = 0, 0.0, self._windows + 1
        if self._success >= self.config.success_threshold or self._windows >= self.config.patience:
            self._enter(self.level + 1)
            self._windows = 0

    def _enter(self, level: int) -> None:
        """Prepare to recognise the new tasks of a level, sorted by their first parameter."""
        self.level = level
        begin, end = [0, *self._sizes, len(self._tasks)][level : level + 2]
        new = self._tasks[begin:end]
        self._new = new[new[:, 0].argsort()]

    def _is_new(self, tasks: Floats) -> NDArray[np.bool_]:
        """Which tasks are among those that came in with this level; equal to the last bit."""
        if not len(self._new):  # splits that add nothing: any episode counts
            return np.ones(len(tasks), dtype=bool)
        place = np.searchsorted(self._new[:, 0], tasks[:, 0]).clip(max=len(self._new) - 1)
        new: NDArray[np.bool_] = (self._new[place] == tasks).all(axis=1)
        return new

    def _successes(self, episodes: Episodes) -> Floats:
        """1 or 0 for each episode; 0 where it is not known."""
        least = np.inf if self.config.mastered_return is None else self.config.mastered_return
        return np.where(np.isnan(episodes.successes), episodes.returns >= least, episodes.successes)

    def metrics(self) -> dict[str, float]:
        """``level``, ``tasks`` and ``success``, explained in the class docstring."""
        tasks = 0 if self.level == self.last_level else self._sizes[self.level]
        return {"level": float(self.level), "tasks": float(tasks), "success": self._success}

    def picture(self) -> dict[str, Any]:
        """A spot for each task of the level; in the last one, the whole space."""
        if self.level == self.last_level:
            low, high = self.space.low[None], self.space.high[None]
            return {"boxes": {"low": low, "high": high, "weights": np.ones(1)}}
        n = self._sizes[self.level]
        spots = np.tile(np.diag((0.01 * (self.space.high - self.space.low)) ** 2), (n, 1, 1))
        means, weights = self._tasks[:n], np.full(n, 1 / n)
        return {"gaussians": {"means": means, "covariances": spots, "weights": weights}}

    def state_dict(self) -> StateDict:
        """The tasks of all levels, the present one and its window, and the generator, by value."""
        return {
            **state_header("geo-curriculum", self.space, self.config),
            "rng": rng_state(self.rng),
            "tasks": self._tasks.copy(),
            "sizes": list(self._sizes),
            "level": self.level,
            "window": [self._counted, self._succeeded, self._windows, self._success],
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`.

        Raises:
            StateError: when it is of another method, task space or config.
        """
        check_header(state, "geo-curriculum", self.space, self.config)
        set_rng_state(self.rng, state["rng"])
        self._tasks = np.array(state["tasks"])
        self._sizes = list(state["sizes"])
        self._counted, self._succeeded, self._windows, self._success = state["window"]
        self._enter(state["level"])


def task_features(space: BoxSpace, tasks: Tasks) -> Floats:
    """Features of tasks, ``(n, k)``: the task space's own, or parameters in the unit cube."""
    own = getattr(space, "features", None)
    return space.to_unit(tasks) if own is None else np.asarray(own(tasks), dtype=np.float64)


def standardized(features: Floats) -> Floats:
    """Features with mean 0 and deviation 1 in each column; columns that do not vary are 0."""
    deviation = features.std(axis=0)
    return (features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)


def hierarchy(features: Floats, splits: tuple[int, ...]) -> tuple[NDArray[np.int64], list[int]]:
    """Algorithm 2 of UniDexGrasp++: tasks in the order in which levels add them.

    Args:
        features: of the tasks, ``(n, k)``.
        splits: into how many each cluster is split, level by level.

    Returns:
        Rows of `features`, each once, and how many of them each level has.
    """
    # C_0 = {the task nearest to the mean};  C_l = C_(l-1) + {the tasks nearest to the centres of level l}
    clusters = [np.arange(len(features))]
    order = [_nearest(features, features.mean(axis=0))]
    sizes = [1]
    for pieces in splits:
        children = []
        for members in clusters:
            labels, centres = k_means(features[members], pieces)
            for label in np.unique(labels):
                child = members[labels == label]
                children.append(child)
                order.append(int(child[_nearest(features[child], centres[label])]))
        clusters = children
        order = list(dict.fromkeys(order))
        sizes.append(len(order))
    return np.array(order, dtype=np.int64), sizes


def k_means(points: Floats, k: int) -> tuple[NDArray[np.int64], Floats]:
    """Lloyd's k-means from farthest-first centres (Gonzalez 1985), which need no random numbers.

    Returns:
        Cluster of each point, ``(n,)``, and the centres, at most `k`.
    """
    from scipy.spatial.distance import cdist

    chosen = [_nearest(points, points.mean(axis=0))]
    distance = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(k, len(points)) and distance.max() > 0:
        chosen.append(int(distance.argmax()))
        np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1), out=distance)
    centres = points[chosen]
    for _ in range(LLOYD_ITERATIONS):
        labels = cdist(points, centres).argmin(axis=1)
        counts = np.bincount(labels, minlength=len(centres))
        sums = np.stack([np.bincount(labels, column, len(centres)) for column in points.T], axis=1)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return cdist(points, centres).argmin(axis=1), centres


def _nearest(points: Floats, centre: Floats) -> int:
    return int(((points - centre) ** 2).sum(axis=1).argmin())

"""Clusters of tasks by their features, and task teachers that propose of one alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.contract.tasks import BoxTasks, Tasks
from tutelage.teachers.continuous.geo_curriculum import task_features
from tutelage.teachers.continuous.uniform import Random


@dataclass(frozen=True)
class TaskClusters:
    """Clusters of tasks by their features (GeoClustering, Wan et al. 2023, algorithm 1): the nearest centre.

    Attributes:
        mean, scale: of the features, ``(k,)``; they are standardised.
        centres: of the clusters, standardised, ``(clusters, k)``.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    centres: NDArray[np.float64]

    @staticmethod
    def fit(space: BoxTasks, clusters: int, sampled: int, seed: int) -> TaskClusters:
        """Draw tasks and cluster their features by k-means."""
        from sklearn.cluster import KMeans

        features = task_features(space, space.sample(np.random.default_rng([seed, 11]), sampled))
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        scale = np.where(deviation > 0, deviation, 1.0)
        found = KMeans(clusters, n_init=4, random_state=seed).fit((features - mean) / scale)
        return TaskClusters(mean, scale, found.cluster_centers_)

    def of(self, space: BoxTasks, tasks: Tasks) -> NDArray[np.int64]:
        """The cluster of each task, ``(n,)``; of held-out tasks too, by what is nearest."""
        features = (task_features(space, tasks) - self.mean) / self.scale
        distances = ((features[:, None] - self.centres) ** 2).sum(axis=2)
        nearest: NDArray[np.int64] = distances.argmin(axis=1)
        return nearest

    def rule(self, space: BoxTasks) -> Callable[[Tensor], Tensor]:
        """The same as a rule for an `ExpertRouter`."""
        return lambda tasks: torch.from_numpy(self.of(space, tasks.cpu().numpy())).to(tasks.device)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {name: np.asarray(value).tolist() for name, value in asdict(self).items()}


class OneCluster(Random):
    """Proposes uniform tasks of one cluster; `Random`, with what belongs elsewhere left out."""

    def __init__(
        self, space: BoxTasks, rng: np.random.Generator, clusters: TaskClusters, cluster: int
    ) -> None:
        super().__init__(space, rng)
        self.box, self.clusters, self.cluster = space, clusters, cluster
        self._waiting = space.sample(rng, 0)

    def propose(self, n: int) -> Tasks:
        """Return `n` tasks of the cluster, shape ``(n, d)``."""
        while len(self._waiting) < n:
            drawn = self.box.sample(self.rng, 256 * len(self.clusters.centres))
            own = drawn[self.clusters.of(self.box, drawn) == self.cluster]
            self._waiting = np.concatenate([self._waiting, own])
        proposed, self._waiting = self._waiting[:n], self._waiting[n:]
        return proposed

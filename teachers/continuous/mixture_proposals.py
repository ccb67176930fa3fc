"""The common part of ALP-GMM and Covar-GMM: windows of episodes, tasks from a mixture of Gaussians.

What they fit (`mixtures`), and which Gaussians they prefer, is in their own files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateDict, rng_state, set_rng_state
from tutelage.envs.contract.tasks import BoxSpace
from tutelage.teachers.continuous.mixtures import Mixture, task_mixture
from tutelage.teachers.continuous.primitives import (
    EpisodeWindow,
    cumulative_choice,
    entropy,
    normal_quantiles,
    unit_tasks,
)

Floats = NDArray[np.float64]


class TaskGaussians:
    """Gaussians over the unit cube of tasks, each chosen in proportion to its interest.

    Args:
        means: shape ``(k, d)``.
        covariances: shape ``(k, d, d)``, positive definite.
        interest: shape ``(k,)``, all >= 0; if all are 0, every Gaussian is as likely as another.
    """

    def __init__(self, means: Floats, covariances: Floats, interest: Floats) -> None:
        self.means = means
        self.covariances = covariances
        self.interest = interest
        self.cumulative = cumulative_choice(interest)
        self._factors = np.linalg.cholesky(covariances)

    @property
    def probabilities(self) -> Floats:
        """Chance of each Gaussian to be chosen, shape ``(k,)``."""
        return np.diff(self.cumulative, prepend=0.0)

    @property
    def entropy(self) -> float:
        """Entropy of the choice among the Gaussians, in nats."""
        return entropy(self.cumulative)

    def draw(self, uniforms: Floats) -> Floats:
        """Turn uniforms, shape ``(n, 1 + d)``, into points ``(n, d)``, some maybe outside the cube."""
        chosen = self.cumulative.searchsorted(uniforms[:, 0], side="right")
        normals = normal_quantiles(uniforms[:, 1:])
        points: Floats = self.means[chosen] + (self._factors[chosen] @ normals[:, :, None])[:, :, 0]
        return points

    def picture(self, space: BoxSpace) -> dict[str, Floats]:
        """The Gaussians in task units, as `TaskTeacher.picture` describes them."""
        span = space.high - space.low
        return {
            "means": space.from_unit(self.means),
            "covariances": self.covariances * span[:, None] * span,
            "weights": self.probabilities,
        }

    def state_dict(self) -> StateDict:
        """Means, covariances and interest, the arguments that make the same Gaussians again."""
        return {"means": self.means, "covariances": self.covariances, "interest": self.interest}


class MixtureProposals:
    """Windows of episodes, a mixture fitted to each, and tasks drawn from the mixture's Gaussians.

    Args:
        space: the box of task parameters.
        rng: draws the tasks; a child of it serves the fits.
        fit_rate: episodes in a window; tasks are uniform until the first one is full.
        random_ratio: fraction of tasks drawn uniformly ever after.
        min_components, max_components: mixture sizes tried at every fit, both included.

    Attributes:
        gaussians: those that tasks are drawn from; None before the first fit.

    Raises:
        ValueError: names a setting that cannot work.
    """

    def __init__(
        self,
        space: BoxSpace,
        rng: np.random.Generator,
        *,
        fit_rate: int,
        random_ratio: float,
        min_components: int,
        max_components: int,
    ) -> None:
        if not 1 <= min_components <= max_components:
            raise ValueError(
                f"need 1 <= min_components <= max_components, got {min_components} and {max_components}"
            )
        least = 2 * max_components
        if fit_rate < least:
            raise ValueError(
                f"fit_rate is {fit_rate}; to fit {max_components} Gaussians take at least {least}"
            )
        if not 0 <= random_ratio <= 1:
            raise ValueError(f"random_ratio is {random_ratio}; it is a fraction from 0 to 1")
        self.space, self.rng, self.random_ratio = space, rng, random_ratio
        self.gaussians: TaskGaussians | None = None
        self._sizes = range(min_components, max_components + 1)
        self._fit_rng = rng.spawn(1)[0]
        self._window = EpisodeWindow(fit_rate, space.dim)

    def propose(self, n: int) -> Floats:
        """Return `n` tasks, shape ``(n, d)``: at first and at `random_ratio` uniform, else of a Gaussian."""
        # Columns: explore or not, which Gaussian, coordinates; so many for every task.
        uniforms = self.rng.random((n, self.space.dim + 2))
        points = uniforms[:, 2:]
        if self.gaussians is not None:
            explore = uniforms[:, :1] < self.random_ratio
            points = np.where(explore, points, self.gaussians.draw(uniforms[:, 1:]))
        return self.space.from_unit(points)

    def windows(self, episodes: Episodes) -> Iterator[tuple[Floats, Floats]]:
        """Add episodes; yield ``(unit tasks, returns)`` each time that a window is full."""
        return self._window.add(unit_tasks(self.space, episodes), episodes.returns)

    def fit(self, tasks: Floats, others: Floats) -> Mixture:
        """Fit a `task_mixture` of the configured sizes; proposals do not change until `follow`."""
        return task_mixture(tasks, others, self._sizes, self._fit_rng)

    def follow(self, mixture: Mixture, interest: Floats) -> None:
        """Draw from the task part of `mixture` from now on, each Gaussian in proportion to its interest."""
        d = self.space.dim
        self.gaussians = TaskGaussians(mixture.means[:, :d], mixture.covariances[:, :d, :d], interest)

    def metrics(self) -> dict[str, float]:
        """``gaussians``, how many (0 before the first fit), and ``entropy`` of the choice among them."""
        if self.gaussians is None:
            return {"gaussians": 0.0, "entropy": 0.0}
        return {"gaussians": float(len(self.gaussians.means)), "entropy": self.gaussians.entropy}

    def picture(self) -> dict[str, Any]:
        """The current Gaussians in task units, weighted by their chance to be chosen."""
        return {"gaussians": self.gaussians.picture(self.space)} if self.gaussians else {}

    def state_dict(self) -> StateDict:
        """Generators, window and Gaussians, by value."""
        return {
            "rng": rng_state(self.rng),
            "fit_rng": rng_state(self._fit_rng),
            "window": self._window.state_dict(),
            "gaussians": self.gaussians.state_dict() if self.gaussians else None,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`, or from one that holds more."""
        set_rng_state(self.rng, state["rng"])
        set_rng_state(self._fit_rng, state["fit_rng"])
        self._window.load_state_dict(state["window"])
        self.gaussians = TaskGaussians(**state["gaussians"]) if state["gaussians"] else None

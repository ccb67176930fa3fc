"""Covar-GMM: Gaussians over tasks where returns rise with time (Moulin-Frier et al. 2014)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateDict
from tutelage.envs.contract.tasks import BoxSpace, TaskSpace
from tutelage.teachers.continuous.mixture_proposals import MixtureProposals
from tutelage.teachers.continuous.primitives import check_header, require_box, robust_scale, state_header

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CovarGMMConfig:
    """Settings of Covar-GMM; the defaults are those of Portelas et al. 2019.

    Attributes:
        fit_rate: episodes between two fits, also the number of episodes that a fit looks at; the first
            `fit_rate` tasks are uniform. At least twice `max_components`.
        random_ratio: fraction of tasks drawn uniformly ever after; in [0, 1].
        min_components, max_components: mixture sizes tried at every fit, both included.
        absolute: True also follows falling returns (forgetting), like ALP-GMM; the original follows rising
            ones only.
    """

    fit_rate: int = 250
    random_ratio: float = 0.2
    min_components: int = 2
    max_components: int = 10
    absolute: bool = False

    @staticmethod
    def teachmyagent() -> CovarGMMConfig:
        """The values that TeachMyAgent's benchmark chose (Romac et al. 2021)."""
        return CovarGMMConfig(fit_rate=150, random_ratio=0.1, max_components=14)


class CovarGMM:
    """Proposes tasks where the student's return rises with time.

    Moulin-Frier, Nguyen and Oudeyer 2014, Self-organization of early vocal development (the algorithm is
    called IGMM there), as adapted by Portelas et al. 2019 (arXiv:1910.07224). Every `fit_rate` episodes
    Gaussian mixtures of several sizes are fitted to the last `fit_rate` points [task, time, return]; the
    one with the best Akaike criterion is kept; then tasks are drawn from its Gaussians, each chosen in
    proportion to the covariance of time and return within it, if positive.

    Expert knowledge: none.

    Args:
        space: the box of task parameters.
        rng: decides everything random; a child of it serves the fits.
        config: settings.

    Logged metrics:
        - ``mean_covariance``: mean over the Gaussians, by weight, of the covariance of time (0 to 1 within a
          window) and return (divided by the window's spread); positive when the student improves.
        - ``gaussians``: components of the current mixture; 0 during the first window.
        - ``entropy``: of the choice among them, in nats; 0 when one Gaussian gets every proposal.

    Notes:
        Beyond the public code: tasks live in the unit cube and returns are divided by their spread, so units
        do not matter. A task drawn outside the box is clipped to it. With monotone improvement (the cube
        toy) it is stronger than ALP-GMM; it does not see forgetting unless `absolute`.
    """

    task_spaces: ClassVar[type] = BoxSpace

    def __init__(
        self, space: TaskSpace, rng: np.random.Generator, config: CovarGMMConfig = CovarGMMConfig()
    ) -> None:
        self.space = require_box(space, "Covar-GMM")
        self.config = config
        self._mixture = MixtureProposals(
            self.space,
            rng,
            fit_rate=config.fit_rate,
            random_ratio=config.random_ratio,
            min_components=config.min_components,
            max_components=config.max_components,
        )
        self._mean_covariance = 0.0

    def propose(self, n: int) -> Floats:
        """Return `n` tasks, shape ``(n, d)``: at first and at `random_ratio` uniform, else of a Gaussian."""
        return self._mixture.propose(n)

    def observe(self, episodes: Episodes) -> None:
        """Take in finished episodes; fit at the end of every window of `fit_rate`."""
        for tasks, returns in self._mixture.windows(episodes):
            self._fit(tasks, returns)

    def _fit(self, tasks: Floats, returns: Floats) -> None:
        # Free of the unit of returns; the caps keep single outliers from filling the axis.
        scaled = np.clip((returns - np.median(returns)) / robust_scale(returns), -10.0, 10.0)
        time = np.arange(len(returns)) / len(returns)
        # The mixture of [task, time, return] with the lowest AIC among k = min_components .. max_components
        best = self._mixture.fit(tasks, np.column_stack([time, scaled]))
        # P(Gaussian k) ~ max(0, cov_k(time, return)), or |cov_k(time, return)|
        covariance = best.covariances[:, -2, -1]
        self._mean_covariance = float(best.weights @ covariance)
        interest = np.abs(covariance) if self.config.absolute else np.maximum(covariance, 0.0)
        self._mixture.follow(best, interest)

    def metrics(self) -> dict[str, float]:
        """``mean_covariance``, ``gaussians`` and ``entropy``, explained in the class docstring."""
        return {"mean_covariance": self._mean_covariance, **self._mixture.metrics()}

    def picture(self) -> dict[str, Any]:
        """The current Gaussians in task units, weighted by their chance to be chosen."""
        return self._mixture.picture()

    def state_dict(self) -> StateDict:
        """Window, mixture and generators, by value."""
        return {
            **state_header("covar-gmm", self.space, self.config),
            **self._mixture.state_dict(),
            "mean_covariance": self._mean_covariance,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`.

        Raises:
            StateError: when it is of another method, task space or config.
        """
        check_header(state, "covar-gmm", self.space, self.config)
        self._mixture.load_state_dict(state)
        self._mean_covariance = state["mean_covariance"]

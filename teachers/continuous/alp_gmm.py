"""ALP-GMM: Gaussians over tasks where absolute learning progress is high (Portelas et al. 2019)."""

from __future__ import annotations

from collections import OrderedDict
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
class ALPGMMConfig:
    """Settings of ALP-GMM; the defaults are the paper's.

    Attributes:
        fit_rate: episodes between two fits, also the number of episodes that a fit looks at; the first
            `fit_rate` tasks are uniform. At least twice `max_components`.
        random_ratio: fraction of tasks drawn uniformly ever after, so that new progress is found; in [0, 1].
        min_components, max_components: mixture sizes tried at every fit, both included.
        max_history: most earlier tasks among which the nearest is looked for; the oldest are forgotten. The
            paper keeps all of them, which costs more with every episode, and a reference from long ago says
            little about progress now: on the cube toy the score falls as this grows.
    """

    fit_rate: int = 250
    random_ratio: float = 0.2
    min_components: int = 2
    max_components: int = 10
    max_history: int = 1_000

    @staticmethod
    def teachmyagent() -> ALPGMMConfig:
        """The values that TeachMyAgent's benchmark chose (Romac et al. 2021)."""
        return ALPGMMConfig(fit_rate=150, random_ratio=0.05, max_components=9)


class NearestReturns:
    """Remembers the return of every task attempted, and finds that of the nearest earlier task.

    Of tasks at the same distance the newest counts. A task attempted again replaces its earlier self, which
    could never be the answer any more; so a corner of the box that is proposed a thousand times takes one
    place.

    Args:
        dim: parameters of a task.
        max_history: most tasks remembered.
    """

    def __init__(self, dim: int, max_history: int) -> None:
        self.dim = dim
        self.max_history = max_history
        self._returns: OrderedDict[bytes, float] = OrderedDict()  # oldest first

    def __len__(self) -> int:
        return len(self._returns)

    def arrays(self) -> tuple[Floats, Floats]:
        """Tasks, shape ``(n, dim)``, and returns, shape ``(n,)``, oldest first."""
        tasks = np.frombuffer(b"".join(self._returns), dtype=np.float64).reshape(-1, self.dim)
        return tasks, np.fromiter(self._returns.values(), dtype=np.float64, count=len(self))

    def remember(self, tasks: Floats, returns: Floats) -> None:
        """Add tasks, the newest last."""
        for task, value in zip(np.ascontiguousarray(tasks), returns.tolist(), strict=True):
            key = task.tobytes()
            self._returns.pop(key, None)
            self._returns[key] = value
        while len(self) > self.max_history:
            self._returns.popitem(last=False)

    def progress(self, tasks: Floats, returns: Floats) -> Floats:
        """Absolute learning progress of each task, 0 for the very first; then remember all of them.

        ALP = |return - return of the nearest earlier task|; task i of the batch is earlier than task i + 1.
        """
        # Nearest among the batch's own earlier tasks: distances with everything not earlier masked out,
        # turned round so that argmin meets the newest of equals first.
        n = len(tasks)
        squared = np.zeros((n, n))
        for parameter in tasks.T:
            squared += (parameter[:, None] - parameter) ** 2
        squared = np.where(np.tri(n, k=-1, dtype=bool), squared, np.inf)
        nearest = n - 1 - squared[:, ::-1].argmin(axis=1)
        distance = np.sqrt(squared[np.arange(n), nearest])
        reference = returns[nearest]
        if len(self):
            old_distance, old_return = self._nearest_remembered(tasks)
            older = old_distance < distance
            reference[older] = old_return[older]
        elif n:
            reference[0] = returns[0]
        self.remember(tasks, returns)
        return np.abs(returns - reference)

    def _nearest_remembered(self, tasks: Floats) -> tuple[Floats, Floats]:
        from scipy.spatial import cKDTree

        known, returns = self.arrays()
        tree = cKDTree(known, balanced_tree=False, compact_nodes=False)
        distances, rows = tree.query(tasks, k=2)
        nearest = rows[:, 0]
        # The tree answers with any one of several at the same distance: look for the newest of them.
        for i in np.flatnonzero(distances[:, 0] == distances[:, 1]):
            squared = ((known - tasks[i]) ** 2).sum(axis=1)
            nearest[i] = len(known) - 1 - int(squared[::-1].argmin())
        return distances[:, 0], returns[nearest]


class ALPGMM:
    """Proposes tasks where the student's return changes, for better or worse (Portelas et al. 2019).

    Teacher Algorithms for Curriculum Learning of Deep RL in Continuously parameterized environments, CoRL
    2019 (arXiv:1910.07224). The absolute learning progress (ALP) of an episode is the difference between
    its return and that of the nearest earlier task. Every `fit_rate` episodes Gaussian mixtures of several
    sizes are fitted to the last `fit_rate` points [task, ALP]; the one with the best Akaike criterion is
    kept; then tasks are drawn from its Gaussians, each chosen in proportion to its mean ALP.

    Expert knowledge: none.

    Args:
        space: the box of task parameters.
        rng: decides everything random; a child of it serves the fits.
        config: settings.

    Logged metrics:
        - ``mean_alp``: mean ALP of the last window, in units of return.
        - ``gaussians``: components of the current mixture; 0 during the first window.
        - ``entropy``: of the choice among them, in nats; 0 when one Gaussian gets every proposal.

    Notes:
        Beyond the public code: tasks are compared in the unit cube and ALP is divided by the spread of the
        window's returns, so neither units of tasks nor of returns matter; at equal distances the newest task
        counts; earlier tasks are limited to `max_history`. A task drawn outside the box is clipped to it.

    Example:
        >>> from tutelage.envs.contract.tasks import BoxTasks
        >>> task_teacher = ALPGMM(BoxTasks({"height": (0, 3)}), np.random.default_rng(0))
        >>> tasks = task_teacher.propose(2)
        >>> task_teacher.observe(Episodes.of(tasks, returns=[10.0, 20.0]))
        >>> tasks.shape, task_teacher.metrics()["gaussians"]
        ((2, 1), 0.0)
    """

    task_spaces: ClassVar[type] = BoxSpace

    def __init__(
        self, space: TaskSpace, rng: np.random.Generator, config: ALPGMMConfig = ALPGMMConfig()
    ) -> None:
        self.space = require_box(space, "ALP-GMM")
        self.config = config
        self._mixture = MixtureProposals(
            self.space,
            rng,
            fit_rate=config.fit_rate,
            random_ratio=config.random_ratio,
            min_components=config.min_components,
            max_components=config.max_components,
        )
        self._history = NearestReturns(self.space.dim, config.max_history)
        self._mean_alp = 0.0

    def propose(self, n: int) -> Floats:
        """Return `n` tasks, shape ``(n, d)``: at first and at `random_ratio` uniform, else of a Gaussian."""
        return self._mixture.propose(n)

    def observe(self, episodes: Episodes) -> None:
        """Take in finished episodes; fit at the end of every window of `fit_rate`."""
        for tasks, returns in self._mixture.windows(episodes):
            self._fit(tasks, returns)

    def _fit(self, tasks: Floats, returns: Floats) -> None:
        # ALP_i = |r_i - r_j|,  j the nearest earlier task
        alp = self._history.progress(tasks, returns)
        if self._mixture.gaussians is None:
            alp[:5] = 0.0  # as in the public code: among so few tasks the nearest is not near
        self._mean_alp = float(alp.mean())
        # Free of the unit of returns; the cap keeps a single outlier from filling the axis.
        scaled = np.minimum(alp / robust_scale(returns), 10.0)
        # The mixture of [task, ALP] with the lowest AIC among k = min_components .. max_components
        best = self._mixture.fit(tasks, scaled[:, None])
        # P(Gaussian k) ~ its mean on the ALP axis; the task part of it is what proposals are drawn from
        self._mixture.follow(best, interest=np.maximum(best.means[:, -1], 0.0))

    def metrics(self) -> dict[str, float]:
        """``mean_alp``, ``gaussians`` and ``entropy``, explained in the class docstring."""
        return {"mean_alp": self._mean_alp, **self._mixture.metrics()}

    def picture(self) -> dict[str, Any]:
        """The current Gaussians in task units, weighted by their chance to be chosen."""
        return self._mixture.picture()

    def state_dict(self) -> StateDict:
        """Window, history, mixture and generators, by value."""
        tasks, returns = self._history.arrays()
        return {
            **state_header("alp-gmm", self.space, self.config),
            **self._mixture.state_dict(),
            "history": {"tasks": tasks, "returns": returns},
            "mean_alp": self._mean_alp,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`.

        Raises:
            StateError: when it is of another method, task space or config.
        """
        check_header(state, "alp-gmm", self.space, self.config)
        self._mixture.load_state_dict(state)
        self._history = NearestReturns(self.space.dim, self.config.max_history)
        self._history.remember(state["history"]["tasks"], state["history"]["returns"])
        self._mean_alp = state["mean_alp"]

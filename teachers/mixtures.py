"""Gaussian mixtures for task teachers: fits of many sizes at once, and tasks drawn from the best of them.

`MixtureProposals` is what ALP-GMM and Covar-GMM share; what they fit, and which Gaussians they prefer, is in
their own files.

ALP-GMM and Covar-GMM fit mixtures with k = 2, 3, ..., 10 components to a few hundred points and keep the one
with the best Akaike criterion, every few hundred episodes, while a student waits. Fitting them one by one
costs most of a second in a hundred episodes; here the components of all sizes form one flat batch (54 of them
for k = 2..10), each step of expectation-maximisation is two matrix products for the whole batch, and the
mixtures are told apart only where densities are normalised, segment by segment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.episodes import Episodes
from tutelage.envs.state import StateDict, rng_state, set_rng_state
from tutelage.envs.tasks import BoxTasks
from tutelage.teachers.primitives import (
    EpisodeWindow,
    cumulative_choice,
    entropy,
    normal_quantiles,
    unit_tasks,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """A mixture of `k` Gaussians in `D` dimensions.

    Attributes:
        weights: shape ``(k,)``, sum 1.
        means: shape ``(k, D)``.
        covariances: shape ``(k, D, D)``.
    """

    weights: Floats
    means: Floats
    covariances: Floats


@dataclass(frozen=True)
class MixtureFits:
    """The mixtures of every size fitted to the same data.

    Attributes:
        mixtures: one for each size asked for, in that order.
        aic: Akaike criterion of each, lower is better, shape ``(sizes,)``.
        log_likelihood: mean log density of a data point under each, shape ``(sizes,)``.
        iterations: steps of expectation-maximisation that each took, shape ``(sizes,)``.
    """

    mixtures: tuple[Mixture, ...]
    aic: Floats
    log_likelihood: Floats
    iterations: NDArray[np.int64]

    @property
    def best(self) -> Mixture:
        """The mixture with the lowest Akaike criterion; the smallest one among equals."""
        return self.mixtures[int(np.argmin(self.aic))]


def aic(log_likelihood: Floats, sizes: NDArray[np.int64], n: int, dim: int) -> Floats:
    """Akaike's criterion 2 p - 2 log L of full-covariance mixtures (Akaike 1974).

    p counts the free parameters: k D means, k D (D + 1) / 2 covariances, k - 1 weights.

    Args:
        log_likelihood: mean log density of a point, shape ``(sizes,)``.
        sizes: numbers of components, shape ``(sizes,)``.
        n: number of points.
        dim: their dimension D.
    """
    parameters = sizes * dim + sizes * dim * (dim + 1) // 2 + sizes - 1
    return 2.0 * parameters - 2.0 * n * log_likelihood


def nested_seeds(data: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Choose `count` points by k-means++ (Arthur and Vassilvitskii 2007), shape ``(count, D)``.

    The first k of them are the seeds of the mixture of size k, so one pass serves all sizes.
    """
    uniforms = rng.random(count)
    chosen = np.empty((count, data.shape[1]))
    chosen[0] = data[int(uniforms[0] * len(data))]
    nearest = ((data - chosen[0]) ** 2).sum(axis=1)
    for i in range(1, count):
        # P(next seed = x) ~ squared distance to the nearest seed so far.
        cumulative = nearest.cumsum()
        row = min(int(cumulative.searchsorted(uniforms[i] * cumulative[-1], side="right")), len(data) - 1)
        chosen[i] = data[row]
        np.minimum(nearest, ((data - chosen[i]) ** 2).sum(axis=1), out=nearest)
    return chosen


class _Batch:
    """Where each size's components lie among the rows of the flat batch."""

    def __init__(self, sizes: NDArray[np.int64]) -> None:
        self.sizes = sizes
        self.starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.owner = np.repeat(np.arange(len(sizes)), sizes)


def kmeans_responsibilities(
    data: Floats, sizes: Sequence[int], rng: np.random.Generator, iterations: int = 10
) -> Floats:
    """Hard assignments of Lloyd's k-means for every size at once, shape ``(sum(sizes), n)``, entries 0 or 1.

    Seeded by `nested_seeds`; a cluster that becomes empty keeps its centre.
    """
    batch = _Batch(np.asarray(sizes))
    seeds = nested_seeds(data, int(max(sizes)), rng)
    centres = np.concatenate([seeds[:k] for k in sizes])
    features = np.column_stack([np.ones(len(data)), data])
    assigned = np.zeros((len(centres), len(data)))
    for _ in range(iterations):
        # |x - c|^2 without the |x|^2 that all centres share.
        distances = (centres**2).sum(axis=1)[:, None] - 2.0 * centres @ data.T
        nearest = np.minimum.reduceat(distances, batch.starts, axis=0)
        hits = (distances == nearest[batch.owner]).astype(np.float64)
        if np.array_equal(hits, assigned):
            break
        assigned = hits
        sums = assigned @ features
        filled = sums[:, 0] > 0
        centres[filled] = sums[filled, 1:] / sums[filled, :1]
    return assigned / np.add.reduceat(assigned, batch.starts, axis=0)[batch.owner]


def task_mixture(tasks: Floats, others: Floats, sizes: Sequence[int], rng: np.random.Generator) -> Mixture:
    """Fit mixtures to tasks joined with what was observed of them; keep the one of the best Akaike criterion.

    Choices that the papers leave open, made for use on the unit cube: the first clusters are those of the
    tasks alone, so that they are regions of the task space; no Gaussian is narrower than about 3 % of a
    parameter's range (variance 1e-3), for without this floor Gaussians collapse onto a few points, and on the
    cube toy Covar-GMM falls from 84 to 74 % mastered; and at most 12 steps of expectation-maximisation, after
    which the toy score rises no more.

    Args:
        tasks: points of the unit cube, shape ``(n, d)``.
        others: what else the mixture explains, about unit scale, shape ``(n, e)``.
        sizes: numbers of components to try.
        rng: seeds the clusters.

    Returns:
        A mixture in ``d + e`` dimensions.
    """
    initial = kmeans_responsibilities(tasks, sizes, rng, iterations=3)
    data = np.concatenate([tasks, others], axis=1)
    fits = fit_mixtures(data, sizes, initial, regularisation=1e-3, tolerance=5e-3, max_iterations=12)
    return fits.best


def fit_mixtures(
    data: Floats,
    sizes: Sequence[int],
    responsibilities: Floats,
    *,
    regularisation: float = 1e-6,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> MixtureFits:
    """Fit one full-covariance mixture of each size by expectation-maximisation, all in one batch.

    The same steps, stopping rule and regularisation as scikit-learn's ``GaussianMixture``: a size stops when
    its mean log likelihood changes by less than `tolerance`, and then leaves the batch.

    Args:
        data: points, shape ``(n, D)``; about unit scale.
        sizes: numbers of components, e.g. ``range(2, 11)``.
        responsibilities: the initial ones, shape ``(sum(sizes), n)``, of `kmeans_responsibilities`.
        regularisation: added to the diagonal of every covariance.
        tolerance: least change of the mean log likelihood that counts as progress.
        max_iterations: most steps for each size.
    """
    n, dim = data.shape
    centre = data.mean(axis=0)
    x = data - centre
    upper = np.triu_indices(dim)
    # Features 1, x_i, x_i x_j (i <= j): densities are linear in them, and so are the sufficient statistics.
    features = np.concatenate([np.ones((n, 1)), x, x[:, upper[0]] * x[:, upper[1]]], axis=1)
    transposed = np.ascontiguousarray(features.T)
    doubled = np.where(upper[0] == upper[1], -0.5, -1.0)
    diagonal = np.arange(dim)

    def maximise(resp: Floats) -> tuple[Floats, Floats, Floats]:
        # N_k = sum_n r_nk;  mu_k = sum_n r_nk x_n / N_k
        # S_k = sum_n r_nk x_n x_n^T / N_k - mu_k mu_k^T + reg I
        statistics = resp @ features
        totals = statistics[:, 0] + 10.0 * np.finfo(np.float64).eps
        moments = statistics[:, 1:] / totals[:, None]
        means = moments[:, :dim]
        covariances = np.empty((len(resp), dim, dim))
        covariances[:, upper[0], upper[1]] = covariances[:, upper[1], upper[0]] = moments[:, dim:]
        covariances -= means[:, :, None] * means[:, None, :]
        covariances[:, diagonal, diagonal] += regularisation
        return totals / n, means, covariances

    def expect(parameters: tuple[Floats, Floats, Floats], batch: _Batch) -> tuple[Floats, Floats]:
        # log w_k + log N(x_n | mu_k, S_k) = b_k + (P mu)^T x - x^T P x / 2,  P = S^-1
        weights, means, covariances = parameters
        precisions = np.linalg.inv(covariances)
        _, log_det = np.linalg.slogdet(precisions)
        linear = (precisions @ means[:, :, None])[:, :, 0]
        constant = np.log(weights) + 0.5 * (log_det - dim * np.log(2 * np.pi) - (linear * means).sum(axis=1))
        quadratic = precisions[:, upper[0], upper[1]] * doubled
        log_joint = np.concatenate([constant[:, None], linear, quadratic], axis=1) @ transposed
        # r_nk = w_k N_k(x_n) / sum_j w_j N_j(x_n), the sum over the components of the same size only
        highest = np.maximum.reduceat(log_joint, batch.starts, axis=0)
        log_joint -= highest[batch.owner]
        resp = np.exp(log_joint, out=log_joint)
        norm = np.add.reduceat(resp, batch.starts, axis=0)
        resp /= norm[batch.owner]
        return resp, (highest + np.log(norm)).mean(axis=1)

    every = _Batch(np.asarray(sizes, dtype=np.int64))
    weights, means, covariances = maximise(responsibilities)
    iterations = np.zeros(len(sizes), dtype=np.int64)
    active = np.arange(len(sizes))
    rows, batch, bound = np.arange(len(means)), every, np.full(len(sizes), -np.inf)
    current = (weights, means, covariances)
    for _ in range(max_iterations):
        resp, likelihood = expect(current, batch)
        current = maximise(resp)
        iterations[active] += 1
        going = np.abs(likelihood - bound) >= tolerance
        bound = likelihood
        if not going.all():
            weights[rows], means[rows], covariances[rows] = current
            keep = going[batch.owner]
            current = (current[0][keep], current[1][keep], current[2][keep])
            rows, active, bound = rows[keep], active[going], bound[going]
            if not len(active):
                break
            batch = _Batch(batch.sizes[going])
    if len(active):
        weights[rows], means[rows], covariances[rows] = current
    _, likelihood = expect((weights, means, covariances), every)
    ends = every.starts + every.sizes
    mixtures = tuple(
        Mixture(weights[a:b], means[a:b] + centre, covariances[a:b])
        for a, b in zip(every.starts, ends, strict=True)
    )
    return MixtureFits(mixtures, aic(likelihood, every.sizes, n, dim), likelihood, iterations)


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

    def picture(self, space: BoxTasks) -> dict[str, Floats]:
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
        space: BoxTasks,
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
        """Take in episodes; yield ``(unit tasks, returns)`` each time that a window is full."""
        return self._window.add(unit_tasks(self.space, episodes), episodes.returns)

    def fit(self, tasks: Floats, others: Floats) -> Mixture:
        """`task_mixture` of the sizes asked for; what is drawn from stays as it is until `follow`."""
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

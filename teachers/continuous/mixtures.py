"""Gaussian mixtures for task teachers: fits of many sizes at once.

ALP-GMM and Covar-GMM fit mixtures with k = 2, 3, ..., 10 components to a few hundred points and keep the one
with the best Akaike criterion, every few hundred episodes, while a student waits. Fitting them one by one
costs most of a second in a hundred episodes; here the components of all sizes form one flat batch (54 of them
for k = 2..10), each step of expectation-maximisation is two matrix products for the whole batch, and the
mixtures are told apart only where densities are normalised, segment by segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """Fit mixtures to tasks joined with observations of them; keep the one of the best Akaike criterion.

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

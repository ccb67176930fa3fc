"""Batched Gaussian mixtures: against scikit-learn, and by hand."""

import numpy as np
import pytest

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.teachers.continuous.mixture_proposals import MixtureProposals, TaskGaussians
from tutelage.teachers.continuous.mixtures import (
    aic,
    fit_mixtures,
    kmeans_responsibilities,
    nested_seeds,
    task_mixture,
)


def blobs(seed, n=250, dim=3):
    rng = np.random.default_rng(seed)
    centres = rng.random((5, dim))
    return np.clip(centres[rng.integers(5, size=n)] + 0.07 * rng.standard_normal((n, dim)), 0.0, 1.0)


@pytest.mark.parametrize(("seed", "dim"), [(0, 2), (1, 3), (2, 4)])
def test_same_fits_as_scikit_learn_from_the_same_start(seed, dim):
    from sklearn.mixture import GaussianMixture

    data, sizes = blobs(seed, dim=dim), list(range(2, 9))
    initial = kmeans_responsibilities(data, sizes, np.random.default_rng(seed))
    fits = fit_mixtures(data, sizes, initial)
    row = 0
    for i, k in enumerate(sizes):
        members = initial[row : row + k]
        row += k
        counts = members.sum(axis=1)
        means = members @ data / counts[:, None]
        covariances = np.stack(
            [
                (m[:, None] * (data - mu)).T @ (data - mu) / c + 1e-6 * np.eye(dim)
                for m, mu, c in zip(members, means, counts, strict=True)
            ]
        )
        theirs = GaussianMixture(
            k, weights_init=counts / len(data), means_init=means, precisions_init=np.linalg.inv(covariances)
        ).fit(data)
        ours = fits.mixtures[i]
        assert fits.iterations[i] == theirs.n_iter_
        np.testing.assert_allclose(ours.weights, theirs.weights_, atol=1e-7)
        np.testing.assert_allclose(ours.means, theirs.means_, atol=1e-7)
        np.testing.assert_allclose(ours.covariances, theirs.covariances_, atol=1e-7)
        assert fits.aic[i] == pytest.approx(theirs.aic(data), abs=1e-5)
    assert fits.best is fits.mixtures[int(np.argmin(fits.aic))]


def test_sizes_fitted_together_or_alone_are_the_same():
    data, sizes = blobs(3), [2, 3, 5]
    initial = kmeans_responsibilities(data, sizes, np.random.default_rng(0))
    together = fit_mixtures(data, sizes, initial)
    for i, (k, row) in enumerate(zip(sizes, (0, 2, 5), strict=True)):
        alone = fit_mixtures(data, [k], initial[row : row + k])
        np.testing.assert_allclose(alone.best.means, together.mixtures[i].means, atol=1e-9)
        assert alone.aic[0] == pytest.approx(together.aic[i])


def test_akaike_criterion_by_hand():
    # k = 2, D = 3: 2*3 means + 2*6 covariances + 1 weight = 19 parameters; 2*19 - 2*100*(-1.5) = 338
    # k = 3: 9 + 18 + 2 = 29; 58 + 200*1.4 = 338
    np.testing.assert_allclose(aic(np.array([-1.5, -1.4]), np.array([2, 3]), 100, 3), [338.0, 338.0])


def test_one_component_is_the_sample_mean_and_covariance():
    data = blobs(4)
    mixture = fit_mixtures(data, [1], np.ones((1, len(data)))).best
    np.testing.assert_allclose(mixture.weights, [1.0])
    np.testing.assert_allclose(mixture.means[0], data.mean(axis=0))
    np.testing.assert_allclose(mixture.covariances[0], np.cov(data.T, bias=True) + 1e-6 * np.eye(3))


def test_seeds_are_points_and_prefer_far_ones():
    data = np.array([[0.0, 0.0]] * 50 + [[1.0, 1.0]])
    for seed in range(5):
        seeds = nested_seeds(data, 2, np.random.default_rng(seed))
        assert sorted(seeds[:, 0].tolist()) == [0.0, 1.0]  # all squared distance lies on the other point


def test_kmeans_separates_two_clusters_in_every_size():
    data = np.array([[0.0], [0.1], [0.2], [0.8], [0.9]])
    assigned = kmeans_responsibilities(data, [1, 2], np.random.default_rng(0))
    np.testing.assert_array_equal(assigned[0], np.ones(5))
    pair = {tuple(row) for row in assigned[1:].tolist()}
    assert pair == {(1.0, 1.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0, 1.0)}


def test_identical_points_give_a_finite_mixture():
    mixture = task_mixture(np.full((40, 2), 0.3), np.zeros((40, 1)), range(2, 6), np.random.default_rng(0))
    assert np.isfinite(mixture.means).all()
    assert (np.linalg.eigvalsh(mixture.covariances) > 0).all()


def test_gaussians_are_chosen_by_interest_and_drawn_with_their_moments():
    covariance = np.array([[0.01, 0.006], [0.006, 0.02]])
    gaussians = TaskGaussians(
        np.array([[0.2, 0.2], [0.5, 0.5], [0.8, 0.8]]),
        np.tile(covariance, (3, 1, 1)),
        np.array([0.0, 3.0, 1.0]),
    )
    np.testing.assert_allclose(gaussians.probabilities, [0.0, 0.75, 0.25])
    # entropy = -(3/4 ln 3/4 + 1/4 ln 1/4)
    assert gaussians.entropy == pytest.approx(0.75 * np.log(4 / 3) + 0.25 * np.log(4))
    uniforms = np.random.default_rng(0).random((40_000, 3))
    uniforms[:, 0] *= 0.75  # the second Gaussian only
    points = gaussians.draw(uniforms)
    np.testing.assert_allclose(points.mean(axis=0), [0.5, 0.5], atol=0.003)
    np.testing.assert_allclose(np.cov(points.T), covariance, atol=5e-4)


def test_no_interest_at_all_means_an_even_choice():
    gaussians = TaskGaussians(np.zeros((4, 1)), np.ones((4, 1, 1)), np.zeros(4))
    np.testing.assert_allclose(gaussians.probabilities, 0.25)


def test_picture_in_task_units():
    gaussians = TaskGaussians(np.array([[0.5, 0.25]]), np.array([[[0.01, 0.002], [0.002, 0.04]]]), np.ones(1))
    picture = gaussians.picture(BoxTasks({"a": (0, 3), "b": (-2, 8)}))
    np.testing.assert_allclose(picture["means"], [[1.5, 0.5]])
    # variances times range squared: 0.01 * 9, 0.04 * 100; covariance 0.002 * 3 * 10
    np.testing.assert_allclose(picture["covariances"], [[[0.09, 0.06], [0.06, 4.0]]])


def proposals(**settings):
    fine = {"fit_rate": 40, "random_ratio": 0.0, "min_components": 2, "max_components": 3}
    return MixtureProposals(BoxTasks({"x": (0, 10)}), np.random.default_rng(0), **(fine | settings))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"min_components": 4}, "min_components"),
        ({"min_components": 0}, "min_components"),
        ({"fit_rate": 5}, "fit_rate is 5; to fit 3 Gaussians take at least 6"),
        ({"random_ratio": 1.2}, "random_ratio"),
    ],
)
def test_settings_that_cannot_work_are_named(settings, name):
    with pytest.raises(ValueError, match=name):
        proposals(**settings)


def test_proposals_follow_the_interesting_gaussian_of_the_window():
    mixture = proposals(max_components=2)
    assert mixture.metrics() == {"gaussians": 0.0, "entropy": 0.0}
    assert mixture.propose(200).std() > 2.5  # uniform on [0, 10]: 10 / sqrt(12) = 2.9
    tasks = np.tile([[2.0], [8.0]], (20, 1))
    assert not list(mixture.windows(Episodes.of(tasks[:30], np.zeros(30))))
    ((unit, returns),) = mixture.windows(Episodes.of(tasks[30:], np.zeros(10)))
    np.testing.assert_allclose(unit, tasks / 10)
    best = mixture.fit(unit, returns[:, None])
    assert mixture.picture() == {}  # until told what to follow
    mixture.follow(best, interest=(best.means[:, 0] > 0.5).astype(float))
    # At 8 with a standard deviation of sqrt(1e-3) * 10 = 0.32, the floor of `task_mixture`.
    drawn = mixture.propose(400)
    assert (drawn.mean(), drawn.std()) == pytest.approx((8.0, 0.32), abs=0.06)
    assert mixture.metrics() == {"gaussians": 2.0, "entropy": 0.0}

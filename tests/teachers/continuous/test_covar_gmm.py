"""Covar-GMM's interest, and where it proposes."""

import numpy as np
import pytest

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.teachers import CovarGMM, CovarGMMConfig

SPACE = BoxTasks({"x": (0.0, 1.0)})


def observe_two_regions(config, left_slope, right_slope):
    """One window in which returns rise by `left_slope` around 0.2 and by `right_slope` around 0.8."""
    task_teacher = CovarGMM(SPACE, np.random.default_rng(0), config)
    tasks = np.random.default_rng(1).choice([0.2, 0.8], 250)[:, None]
    tasks += 0.03 * np.random.default_rng(2).standard_normal((250, 1))
    time = np.arange(250) / 250
    task_teacher.observe(Episodes.of(tasks, np.where(tasks[:, 0] < 0.5, left_slope, right_slope) * time))
    return task_teacher


def test_weights_are_the_positive_covariances_of_time_and_return():
    # With one Gaussian for each half, cov(time, return) = slope * var(time) there, var(time) about 1/12; so
    # slopes 1 and 3 are chosen with about 1/4 and 3/4, exactly with the variances of the times drawn.
    config = CovarGMMConfig(min_components=2, max_components=2, random_ratio=0.0)
    picture = observe_two_regions(config, 1.0, 3.0).picture()["gaussians"]
    order = np.argsort(picture["means"][:, 0])
    np.testing.assert_allclose(picture["means"][order, 0], [0.2, 0.8], atol=0.02)
    right = np.random.default_rng(1).choice([0.2, 0.8], 250) == 0.8
    time = np.arange(250) / 250
    left_covariance, right_covariance = 1.0 * time[~right].var(), 3.0 * time[right].var()
    expected = left_covariance / (left_covariance + right_covariance)
    assert expected == pytest.approx(0.25, abs=0.05)
    np.testing.assert_allclose(picture["weights"][order], [expected, 1.0 - expected], atol=1e-3)


def test_falling_returns_count_only_if_absolute():
    config = CovarGMMConfig(min_components=2, max_components=2, random_ratio=0.0)
    left, right = (observe_two_regions(config, slope, 1.0).propose(500) for slope in (3.0, -3.0))
    assert (left < 0.5).mean() > 0.6
    assert (right < 0.5).mean() < 0.05
    absolute = CovarGMMConfig(min_components=2, max_components=2, random_ratio=0.0, absolute=True)
    assert (observe_two_regions(absolute, -3.0, 1.0).propose(500) < 0.5).mean() > 0.6


def test_mean_covariance_tells_improvement_from_decline():
    assert observe_two_regions(CovarGMMConfig(), 1.0, 1.0).metrics()["mean_covariance"] > 0.05
    assert observe_two_regions(CovarGMMConfig(), -1.0, -1.0).metrics()["mean_covariance"] < -0.05

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tutelage.experiments.runs.statistics import (
    area_under_curve,
    bootstrap,
    holm,
    iqm,
    mean,
    performance_profile,
    probability_of_improvement,
    sample_efficiency_curve,
    welch,
)

MATRICES = arrays(np.float64, (4, 3), elements=st.floats(-100, 100))


def test_aggregates_of_one_score_for_each_run():
    runs = [10.0, 0.0, 40.0, 20.0, 30.0]
    assert float(mean(runs)) == (10 + 0 + 40 + 20 + 30) / 5
    assert float(iqm(runs)) == (10 + 20 + 30) / 3  # floor(5 / 4) = 1 is cut at each end


def test_iqm_cuts_a_quarter_of_all_runs_and_tasks():
    # Sorted 1 2 3 4 5 6 7 100: two are cut at each end, (3 + 4 + 5 + 6) / 4 = 4.5 stays
    assert float(iqm([[100.0, 1.0], [3.0, 4.0], [7.0, 2.0], [6.0, 5.0]])) == 4.5
    assert float(iqm([1.0, 2.0, 6.0])) == 3  # floor(3 / 4) = 0: nothing is cut


def test_aggregates_are_batched_over_leading_axes():
    batch = np.random.default_rng(0).normal(size=(6, 4, 3))
    for statistic in (mean, iqm):
        one_by_one = [float(statistic(matrix)) for matrix in batch]
        np.testing.assert_allclose(statistic(batch), one_by_one, rtol=1e-12)


def test_probability_of_improvement_counts_pairs_and_half_of_ties():
    # Task 1: 3>1, 3>2, 2>1, 2=2 -> (1 + 1 + 1 + 0.5) / 4 = 0.875
    # Task 2: 0<1, 0<1, 1=1, 1=1 -> (0 + 0 + 0.5 + 0.5) / 4 = 0.25
    x, y = [[3.0, 0.0], [2.0, 1.0]], [[1.0, 1.0], [2.0, 1.0]]
    assert float(probability_of_improvement(x, y)) == (0.875 + 0.25) / 2
    assert float(probability_of_improvement([1.0, 1.0], [1.0, 1.0, 1.0])) == 0.5


@given(MATRICES, MATRICES)
def test_probability_of_improvement_is_antisymmetric(x, y):
    assert float(probability_of_improvement(x, y) + probability_of_improvement(y, x)) == pytest.approx(1)


@given(MATRICES)
def test_iqm_and_mean_lie_within_the_scores_and_move_with_them(x):
    for statistic in (iqm, mean):
        assert x.min() - 1e-9 <= float(statistic(x)) <= x.max() + 1e-9
        assert float(statistic(2 * x + 3)) == pytest.approx(2 * float(statistic(x)) + 3, abs=1e-9)


def test_area_under_curve():
    # Trapezoids: 10 * (0 + 1) / 2 + 30 * (1 + 3) / 2 = 5 + 60 = 65, over 40 steps
    assert float(area_under_curve([0, 10, 40], [0.0, 1.0, 3.0])) == 65 / 40
    assert float(area_under_curve([7], [0.25])) == 0.25


def test_bootstrap_draws_from_the_generator_alone():
    x = np.random.default_rng(5).normal(size=(5, 3))
    before = np.random.get_state()[1].copy()  # noqa: NPY002  # that it is not touched
    a, b = (bootstrap([x], iqm, np.random.default_rng(0)) for _ in range(2))
    c = bootstrap([x], iqm, np.random.default_rng(1))
    assert (a.low, a.high) == (b.low, b.high) != (c.low, c.high)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_bootstrap_agrees_with_all_resamples_written_out():
    # Two runs, 4 equally likely resamples of the mean: 0, 5, 5, 10. At a confidence that cuts nothing but
    # corners the interval is their range.
    e = bootstrap([[0.0, 10.0]], mean, np.random.default_rng(0), resamples=500)
    assert (float(e.value), float(e.low), float(e.high)) == (5, 0, 10)
    # Three runs: the spread over resamples is that over all 27.
    x = np.array([1.0, 2.0, 6.0])
    exact = np.std([np.mean(pick) for pick in itertools.product(x, repeat=3)])
    draws = []

    def spy(scores):
        draws.append(mean(scores))
        return draws[-1]

    bootstrap([x], spy, np.random.default_rng(0), resamples=20_000)
    assert np.std(np.concatenate([d for d in draws if d.ndim])) == pytest.approx(exact, rel=0.03)


def test_runs_are_resampled_as_a_whole():
    seen = set()

    def spy(scores):
        if scores.ndim == 3:
            seen.update(map(tuple, scores.reshape(len(scores), -1)))
        return mean(scores)

    bootstrap([[[0.0, 2.0], [1.0, 3.0]]], spy, np.random.default_rng(0), resamples=500)
    # Each row of a resample is 0 2 or 1 3: 2 * 2 outcomes.
    assert seen == {(0, 2, 0, 2), (0, 2, 1, 3), (1, 3, 0, 2), (1, 3, 1, 3)}


@pytest.mark.parametrize(("statistic", "runs", "tasks"), [(mean, 5, 1), (iqm, 10, 1), (mean, 5, 4)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(statistic, runs, tasks):
    rng, trials = np.random.default_rng(3), 400
    centre = np.arange(tasks)
    hits = 0
    for _ in range(trials):
        x = rng.normal(0, 2, (runs, tasks)) + centre
        e = bootstrap([x], statistic, rng, resamples=400)
        hits += bool(e.low <= centre.mean() <= e.high)
    # Binomial with p = 0.95: standard error 1.1 %, so 0.90 is over four of them below (the plain
    # percentile interval of a mean of 5 runs would reach 0.84).
    assert 0.90 < hits / trials <= 1


def test_tasks_of_one_student_are_no_independent_runs():
    # 6 runs, 20 tasks that share each run's luck: resampling within tasks would hold the truth in under 60 %.
    rng, trials, hits = np.random.default_rng(4), 200, 0
    for _ in range(trials):
        x = rng.normal(size=(6, 1)) + 0.2 * rng.normal(size=(6, 20))
        e = bootstrap([x], mean, rng, resamples=300)
        hits += bool(e.low <= 0 <= e.high)
    assert hits / trials > 0.88


def test_one_run_has_no_interval():
    e = bootstrap([[3.0]], iqm, np.random.default_rng(0))
    assert float(e.value) == 3
    assert np.isnan([e.low, e.high]).all()


def test_faults_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="NaN"):
        bootstrap([[1.0, np.nan]], mean, rng)
    with pytest.raises(ValueError, match=r"expected \(runs,\) or \(runs, tasks\)"):
        bootstrap([np.zeros((2, 3, 4))], mean, rng)
    with pytest.raises(ValueError, match="not empty"):
        iqm([])
    with pytest.raises(ValueError, match="same tasks"):
        probability_of_improvement(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="confidence"):
        bootstrap([[1.0, 2.0]], mean, rng, confidence=95)


def test_curve_uses_the_runs_that_have_each_evaluation():
    nan = np.nan
    scores = np.array([[0.0, 2.0, nan, nan], [2.0, 4.0, 6.0, nan], [4.0, 6.0, 8.0, nan]])
    e = sample_efficiency_curve(scores, np.random.default_rng(0), statistic=mean)
    # (0 + 2 + 4) / 3, (2 + 4 + 6) / 3, (6 + 8) / 2, none
    np.testing.assert_array_equal(e.value, [2, 4, 7, nan])
    # From so few runs the interval is the range that resampling can give.
    np.testing.assert_array_equal(e.low, [0, 2, 6, nan])
    np.testing.assert_array_equal(e.high, [4, 6, 8, nan])


def test_profile_counts_scores_above_each_threshold():
    # Above 0: 3 of 4 (0 itself is not); above 2: 2 of 4; above 5: none
    e = performance_profile([[0.0, 1.0], [3.0, 5.0]], [0, 2, 5], np.random.default_rng(0))
    np.testing.assert_array_equal(e.value, [0.75, 0.5, 0.0])
    # Whole runs: the shares above 0 are 1/2 and 1, so no resample leaves [1/2, 1]
    np.testing.assert_array_equal([e.low[0], e.high[0]], [0.5, 1.0])


def test_welch_by_hand():
    # Means 2 and 5, difference -3; variances 1 and 4, over n: 1/3 and 4/3, error sqrt(5/3) = 1.29099
    # t = -2.32379; degrees (5/3)^2 / ((1/3)^2 / 2 + (4/3)^2 / 2) = 2.9412
    d = welch([1.0, 2.0, 3.0], [3.0, 5.0, 7.0])
    assert d.value == -3
    from scipy import stats

    degrees = (5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2)
    half = stats.t.ppf(0.975, degrees) * (5 / 3) ** 0.5
    assert d.p == pytest.approx(2 * stats.t.cdf(-3 / (5 / 3) ** 0.5, degrees))
    assert (d.low, d.high) == (pytest.approx(-3 - half), pytest.approx(-3 + half))
    assert d.p == pytest.approx(stats.ttest_ind([1, 2, 3], [3, 5, 7], equal_var=False).pvalue)


def test_welch_without_variance_or_runs():
    assert welch([4.0] * 5, [4.0] * 5).p == 1
    apart = welch([9.0] * 5, [4.0] * 5)
    assert apart.p == pytest.approx(2 / 252)  # C(10, 5) = 252 ways to deal the runs
    assert apart.value == 5
    assert np.isnan([apart.low, apart.high]).all()
    assert np.isnan(welch([4.0], [1.0, 2.0]).p)


def test_holm_by_hand():
    # Sorted 0.01 0.02 0.04 0.5 times 4 3 2 1: 0.04 0.06 0.08 0.5, never falling; NaN does not count
    np.testing.assert_allclose(holm([0.5, 0.01, np.nan, 0.04, 0.02]), [0.5, 0.04, np.nan, 0.08, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.5]), [1.0, 1.0])  # 2 * 0.5 = 1; max(1, 0.6)
    assert holm([]).shape == (0,)

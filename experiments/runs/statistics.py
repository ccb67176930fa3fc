"""Statistics for comparing methods from a handful of runs: aggregates, intervals, and tests of differences.

Definitions follow Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical
precipice", unless a docstring says otherwise. Scores are arrays ``(runs,)`` or ``(runs, tasks)``, higher
is better, without NaN. Everything is vectorised numpy; whatever draws takes a generator.

What a *run* is decides what an interval means. Here one trained student is tested on many tasks, so that
its results on those tasks share its luck: whole runs are resampled. Treating such tasks as independent, as
the paper's stratified bootstrap does with games that are each trained on their own, makes intervals far too
narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Statistic = Callable[..., FloatArray]
"""Maps arrays ``(..., runs, tasks)``, one for each sample, to ``(...)`` or ``(..., k)``."""

_CHUNK = 4_000_000  # resampled numbers held at once: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval; three arrays of one shape (0-d for a single number).

    Attributes:
        value: the statistic of the scores themselves.
        low, high: ends of the interval; NaN where there are fewer than two runs.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Resampling:
    """How intervals are computed.

    Attributes:
        confidence: of all intervals and tests, in (0, 1).
        resamples: of every bootstrap.
        seed: of the resampling.
    """

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Difference:
    """Difference of two means by Welch's t-test.

    Attributes:
        value: mean of the first sample minus mean of the second.
        low, high: confidence interval of that difference; NaN with fewer than two runs on a side, or where
            no run differs from another of its sample.
        p: two-sided p-value; NaN with fewer than two runs on a side.
    """

    value: float
    low: float
    high: float
    p: float


def _runs_by_tasks(scores: ArrayLike) -> FloatArray:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"scores have shape {array.shape}; expected (runs,) or (runs, tasks), not empty")
    return array


def mean(scores: ArrayLike) -> FloatArray:
    """Mean over runs and tasks; ``(..., runs, tasks) -> (...)``."""
    return np.asarray(_runs_by_tasks(scores).mean(axis=(-2, -1)))


def iqm(scores: ArrayLike) -> FloatArray:
    """Interquartile mean: the mean without the lowest and highest quarter; ``(..., runs, tasks) -> (...)``.

    ``floor(n / 4)`` of the ``n = runs * tasks`` scores are cut at each end, as in the paper's code, so that
    5 runs lose one at each end and 3 runs none.

    Example:
        >>> float(iqm([0.0, 10.0, 20.0, 30.0, 100.0]))  # (10 + 20 + 30) / 3
        20.0
    """
    matrix = _runs_by_tasks(scores)
    flat = np.sort(matrix.reshape(*matrix.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return np.asarray(flat[..., cut : flat.shape[-1] - cut].mean(axis=-1))


def probability_of_improvement(scores: ArrayLike, baseline: ArrayLike) -> FloatArray:
    """Probability that a run of the first sample scores above a run of the second, ties counted half.

    For each task the Mann-Whitney statistic over all pairs of runs, divided by their number; then the mean
    over tasks. ``(..., n, tasks), (..., m, tasks) -> (...)``.

    Raises:
        ValueError: when the samples do not have the same tasks.

    Example:
        >>> float(probability_of_improvement([1.0, 3.0], [1.0, 2.0]))  # 1=1, 1<2, 3>1, 3>2: 2.5 of 4
        0.625
    """
    x, y = _runs_by_tasks(scores), _runs_by_tasks(baseline)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"the samples have {x.shape[-1]} and {y.shape[-1]} tasks; compare on the same tasks")
    sign = np.sign(x[..., :, None, :] - y[..., None, :, :])  # (..., n, m, tasks)
    return np.asarray((0.5 + 0.5 * sign).mean(axis=(-3, -2, -1)))


def area_under_curve(steps: ArrayLike, scores: ArrayLike) -> FloatArray:
    """Mean height of a learning curve: trapezoids over `steps`, divided by the range of steps.

    Args:
        steps: increasing steps of the evaluations, shape ``(evaluations,)``.
        scores: shape ``(..., evaluations)``.

    Returns:
        Areas in the unit of the scores, shape ``(...)``; the score itself where there is one evaluation.
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if len(x) == 1:
        return np.asarray(y[..., 0])
    return np.asarray(np.trapezoid(y, x, axis=-1) / (x[-1] - x[0]))


def expanded_tail(confidence: float, runs: int) -> float:
    """Share to cut at each end of the bootstrap distribution: the expanded percentile interval.

    Resampling n runs gives a spread that is too small by sqrt((n - 1) / n), and quantiles of a normal where
    a t distribution is due: 95 % intervals from 5 runs would hold the truth 84 % of the time. Cutting at
    Phi(-sqrt(n / (n - 1)) t) instead repairs both to first order (Hesterberg 2015, "What teachers should
    know about the bootstrap", section 5.4).
    """
    from scipy.special import ndtr, stdtrit

    t = stdtrit(runs - 1, 0.5 + confidence / 2)
    return float(ndtr(-math.sqrt(runs / (runs - 1)) * t))


def bootstrap(
    samples: Sequence[ArrayLike],
    statistic: Statistic,
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """Interval of any statistic of one or more independent samples of runs.

    Percentile intervals, with the percentiles expanded for few runs (Hesterberg 2015), so that what is
    called 95 % comes close to it from about 5 runs on. From 2 to 4 runs no bootstrap can: the interval
    then is at most the range of what resampling can give, which is narrower than honest.

    Args:
        samples: each ``(runs,)`` or ``(runs, tasks)``; numbers of runs may differ.
        statistic: see `Statistic`; called with one array ``(resamples, runs, tasks)`` for each sample.
        rng: source of the resampling.
        confidence: in (0, 1).
        resamples: how many; 2000 give the ends of a 95 % interval to about a hundredth of its width.

    Raises:
        ValueError: when scores are NaN, or an argument is out of its range.

    Example:
        >>> e = bootstrap([[60.0, 70.0, 80.0, 90.0, 100.0]], mean, np.random.default_rng(0))
        >>> float(e.value), bool(60 < e.low < 70), bool(90 < e.high < 100)
        (80.0, True, True)
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"confidence {confidence} must lie in (0, 1), resamples {resamples} be at least 1")
    matrices = [_runs_by_tasks(sample) for sample in samples]
    for matrix in matrices:
        if matrix.ndim != 2:
            raise ValueError(f"a sample has shape {matrix.shape}; expected (runs,) or (runs, tasks)")
        if not np.isfinite(matrix).all():
            raise ValueError("scores hold NaN or infinity; leave out the runs that have no score")
    value = np.asarray(statistic(*matrices), dtype=np.float64)
    runs = min(len(matrix) for matrix in matrices)
    if runs < 2:
        nothing = np.full(value.shape, np.nan)
        return Estimate(value, nothing, nothing.copy())

    def resample(matrix: FloatArray, n: int) -> FloatArray:
        return matrix[rng.integers(0, len(matrix), size=(n, len(matrix)))]

    chunk = max(1, _CHUNK // sum(matrix.size for matrix in matrices))
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    draws = np.concatenate([statistic(*(resample(m, size) for m in matrices)) for size in sizes])
    tail = expanded_tail(confidence, runs)
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return Estimate(value, np.asarray(low), np.asarray(high))


def _over_runs(statistic: Statistic) -> Statistic:
    """Apply `statistic` to each column of ``(..., runs, k)`` by itself, giving ``(..., k)``."""
    return lambda scores: statistic(np.swapaxes(scores, -1, -2)[..., None])


def sample_efficiency_curve(
    scores: ArrayLike,
    rng: np.random.Generator,
    *,
    statistic: Statistic = iqm,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """A statistic over runs at each evaluation, with pointwise intervals.

    Args:
        scores: each run's score at each evaluation, shape ``(runs, evaluations)``. NaN where a run has no
            evaluation; each evaluation uses the runs that have it.
        rng, confidence, resamples: as for `bootstrap`; the resampled unit is the run.
        statistic: what to show of the runs' scores.

    Returns:
        Arrays of shape ``(evaluations,)``; NaN where no run has a score.
    """
    matrix = np.asarray(scores, dtype=np.float64)
    there = np.isfinite(matrix)
    out = Estimate(*(np.full(matrix.shape[1], np.nan) for _ in range(3)))
    # Runs are few and end at few different steps: one bootstrap for each set of runs that go together.
    patterns, group = np.unique(there, axis=1, return_inverse=True)
    for index, mask in enumerate(patterns.T):
        columns = np.flatnonzero(group.reshape(-1) == index)
        if mask.any():
            part = bootstrap(
                [matrix[np.ix_(mask, columns)]],
                _over_runs(statistic),
                rng,
                confidence=confidence,
                resamples=resamples,
            )
            out.value[columns], out.low[columns], out.high[columns] = part.value, part.low, part.high
    return out


def seconds_curve(
    seconds: FloatArray,
    scores: FloatArray,
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> tuple[FloatArray, Estimate]:
    """Curve over wall clock: each run interpolated linearly, from the latest start to the earliest end.

    Args:
        seconds, scores: of each run at each evaluation, shape ``(runs, evaluations)``; NaN for none.
        rng, confidence, resamples: as for `sample_efficiency_curve`.

    Returns:
        41 points in time, shape ``(41,)``, and the curve; both empty where there is no score.
    """
    there = np.isfinite(seconds) & np.isfinite(scores)
    runs = [(s[t], y[t]) for s, y, t in zip(seconds, scores, there, strict=True) if t.any()]
    if not runs:
        return np.empty(0), Estimate(np.empty(0), np.empty(0), np.empty(0))
    start = max(s[0] for s, _ in runs)
    x = np.linspace(start, max(start, min(s[-1] for s, _ in runs)), 41)
    rows = np.stack([np.interp(x, s, y) for s, y in runs])
    return x, sample_efficiency_curve(rows, rng, confidence=confidence, resamples=resamples)


def performance_profile(
    scores: ArrayLike,
    thresholds: ArrayLike,
    rng: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Estimate:
    """Share of scores above each threshold, over runs and tasks together, with pointwise intervals.

    The paper's run-score distribution. The share is a mean over runs of each run's own share, so that
    resampling whole runs costs no more than for a curve.

    Args:
        scores: ``(runs,)`` or ``(runs, tasks)``.
        thresholds: shape ``(thresholds,)``.
        rng, confidence, resamples: as for `bootstrap`; the resampled unit is the run.

    Returns:
        Arrays of shape ``(thresholds,)``, falling from left to right, in [0, 1].
    """
    matrix = _runs_by_tasks(scores)
    above = (matrix[..., None] > np.asarray(thresholds, dtype=np.float64)).mean(axis=1)
    return bootstrap([above], _over_runs(mean), rng, confidence=confidence, resamples=resamples)


def welch(scores: ArrayLike, baseline: ArrayLike, confidence: float = 0.95) -> Difference:
    """Difference of the means of two samples of runs, by Welch's t-test.

    The test that TeachMyAgent (Romac et al. 2021) reports and Colas et al. 2019, "A hitchhiker's guide to
    statistical comparisons of reinforcement learning algorithms", recommend: variances may differ. Where
    neither sample varies at all, t is undefined; then `p` is that of a permutation test when every run of
    one sample lies on one side of the other, ``2 / C(n + m, n)``, or 1 when the means are equal.

    Args:
        scores, baseline: one score for each run, shapes ``(n,)`` and ``(m,)``.
        confidence: of the interval.
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    difference = float(x.mean() - y.mean())
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return Difference(difference, math.nan, math.nan, math.nan)
    a, b = float(x.var(ddof=1)) / n, float(y.var(ddof=1)) / m
    if a + b <= (1e-12 * max(1.0, float(np.abs(np.concatenate([x, y])).max()))) ** 2:
        p = min(1.0, 2 / math.comb(n + m, n)) if abs(difference) > 0 else 1.0
        return Difference(difference, math.nan, math.nan, p)
    from scipy.special import stdtr, stdtrit

    error = math.sqrt(a + b)
    degrees = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))  # Welch-Satterthwaite
    half = float(stdtrit(degrees, 0.5 + confidence / 2)) * error
    p = 2 * float(stdtr(degrees, -abs(difference) / error))
    return Difference(difference, difference - half, difference + half, p)


def holm(p_values: ArrayLike) -> FloatArray:
    """Holm's correction: p-values made fit for being read together; NaN stays and does not count.

    The smallest of m is multiplied by m, the next by m - 1, and so on, never falling below the one before.
    Comparing them with 0.05 keeps the chance of any false finding among all of them below 5 %.

    Example:
        >>> holm([0.01, 0.04, 0.03])  # 3 * 0.01; 2 * 0.03; max(0.06, 1 * 0.04)
        array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[: np.count_nonzero(np.isfinite(p))]  # argsort puts NaN last
    adjusted = np.full(p.shape, np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted

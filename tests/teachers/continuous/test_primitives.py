"""What task teachers share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.teachers.continuous.primitives import (
    EpisodeWindow,
    cumulative_choice,
    entropy,
    normal_quantiles,
    robust_scale,
)


def test_normal_quantiles_are_finite_at_both_ends_and_exact_inside():
    quantiles = normal_quantiles(np.array([0.0, 0.5, 0.975, 1.0 - 2.0**-53]))
    assert np.isfinite(quantiles).all()
    np.testing.assert_allclose(quantiles[1:3], [0.0, 1.959963985], atol=1e-9)


def test_choice_in_proportion():
    np.testing.assert_allclose(cumulative_choice(np.array([1.0, 0.0, 3.0])), [0.25, 0.25, 1.0])
    np.testing.assert_allclose(cumulative_choice(np.zeros(4)), [0.25, 0.5, 0.75, 1.0])
    assert entropy(np.array([0.5, 0.5, 1.0])) == pytest.approx(np.log(2))
    assert entropy(np.array([1.0])) == 0.0


def test_robust_scale():
    assert robust_scale(np.arange(101.0)) == pytest.approx(90.0)  # 5 to 95
    assert robust_scale(np.r_[np.zeros(99), 7.0]) == 7.0  # both quantiles 0: whole range
    assert robust_scale(np.full(5, 3.0)) == 1.0
    values = np.random.default_rng(0).random(50)
    assert robust_scale(-2.5 + 40.0 * values) == pytest.approx(40.0 * robust_scale(values))


@given(st.lists(st.integers(0, 23), max_size=12), st.integers(2, 9), st.integers(0, 12))
def test_windows_are_the_stream_cut_in_equal_pieces(batches, length, saved_after):
    stream = np.arange(float(sum(batches)))
    window, seen, start = EpisodeWindow(length, 1), [], 0
    for i, size in enumerate(batches):
        if i == saved_after:
            state = window.state_dict()
            window = EpisodeWindow(length, 1)
            window.load_state_dict(state)
        part = stream[start : start + size]
        start += size
        seen += [(tasks[:, 0].copy(), returns.copy()) for tasks, returns in window.add(part[:, None], -part)]
    assert len(seen) == len(stream) // length
    for i, (tasks, returns) in enumerate(seen):
        np.testing.assert_array_equal(tasks, stream[i * length : (i + 1) * length])
        np.testing.assert_array_equal(returns, -tasks)
    assert window.filled == len(stream) % length

"""The formulas of scores, with the arithmetic written out."""

import numpy as np
import pytest

from tutelage.teachers.replay.regret_scores import (
    gae_l1,
    learnability,
    max_mc,
    mna,
    piece_sums,
    pvl,
    td,
    td_errors,
)

ADVANTAGES = np.array([1.0, -2.0, 4.0, -1.0, 0.5])
LENGTHS = np.array([3, 2])  # two pieces: (1, -2, 4) and (-1, 0.5)


def test_mean_absolute_advantage() -> None:
    # (1 + 2 + 4) / 3 and (1 + 0.5) / 2
    np.testing.assert_allclose(gae_l1(ADVANTAGES, LENGTHS), [7 / 3, 0.75], rtol=1e-15)


def test_positive_value_loss() -> None:
    # (1 + 0 + 4) / 3 and (0 + 0.5) / 2
    np.testing.assert_allclose(pvl(ADVANTAGES, LENGTHS), [5 / 3, 0.25], rtol=1e-15)


def test_negative_advantage_is_summed_and_counts_where_solved() -> None:
    # 0 + 2 + 0 and 1 + 0, neither divided by the length
    np.testing.assert_array_equal(mna(ADVANTAGES, LENGTHS, np.array([True, True])), [2.0, 1.0])
    np.testing.assert_array_equal(mna(ADVANTAGES, LENGTHS, np.array([False, True])), [0.0, 1.0])
    assert np.isnan(mna(ADVANTAGES, LENGTHS, np.array([np.nan, 1.0]))[0])  # success is not defined


def test_maximum_monte_carlo() -> None:
    # values (1, 2, 6), best return 4: ((4 - 1) + (4 - 2) + (4 - 6)) / 3 = 1 = 4 - 3
    np.testing.assert_array_equal(max_mc(np.array([4.0]), np.array([(1 + 2 + 6) / 3])), [1.0])
    # negative returns are not cut off at 0
    np.testing.assert_array_equal(max_mc(np.array([-4.0]), np.array([-6.0])), [2.0])


def test_one_step_errors() -> None:
    # rewards 1, values 0.5, gamma 0.5, lambda 0.5, in one environment; an episode ends with the second step,
    # the value after the last step is 0.5:
    #   deltas  1 + 0.25 - 0.5 = 0.75,  1 - 0.5 = 0.5,  0.75,  0.75
    #   A_3 = 0.75, A_2 = 0.75 + 0.25 * 0.75 = 0.9375, A_1 = 0.5, A_0 = 0.75 + 0.25 * 0.5 = 0.875
    advantages = np.array([[0.875], [0.5], [0.9375], [0.75]])
    dones = np.array([[False], [True], [False], [False]])
    errors = td_errors(advantages, dones, decay=0.25)
    np.testing.assert_array_equal(errors[:, 0], [0.75, 0.5, 0.75, 0.75])
    np.testing.assert_array_equal(advantages[:, 0], [0.875, 0.5, 0.9375, 0.75])  # left as they were
    # (0.75 + 0.5) / 2 and (0.75 + 0.75) / 2
    np.testing.assert_array_equal(td(-errors[:, 0], np.array([2, 2])), [0.625, 0.75])


def test_learnability() -> None:
    # 0/4, 1/4, 2/4, 4/4: p (1 - p) = 0, 3/16, 1/4, 0
    np.testing.assert_array_equal(learnability([0, 1, 2, 4], [4, 4, 4, 4]), [0, 3 / 16, 1 / 4, 0])
    # times 4 / 3
    np.testing.assert_allclose(learnability([0, 1, 2, 4], 4, unbiased=True), [0, 1 / 4, 1 / 3, 0], rtol=1e-15)
    assert np.isnan(learnability([0], [0]))
    assert np.isnan(learnability([1], [1], unbiased=True))


def test_equal_advantages_score_equally_at_any_length() -> None:
    lengths = np.array([10, 100])
    advantages = np.full(110, -0.5)
    np.testing.assert_array_equal(gae_l1(advantages, lengths), [0.5, 0.5])
    np.testing.assert_array_equal(mna(advantages, lengths, [1, 1]), [5.0, 50.0])  # the method's own way


def test_a_piece_does_not_depend_on_its_neighbours() -> None:
    terms = np.random.default_rng(0).normal(size=1000)
    together = piece_sums(terms, np.array([7, 300, 693]))
    apart = [piece_sums(part, np.array([len(part)]))[0] for part in np.split(terms, [7, 307])]
    np.testing.assert_array_equal(together, apart)


@pytest.mark.parametrize("lengths", [[2, 2], [5, 0], []])
def test_lengths_that_do_not_fit_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="do not cut 5 steps into pieces"):
        piece_sums(ADVANTAGES, np.array(lengths, dtype=np.int64))

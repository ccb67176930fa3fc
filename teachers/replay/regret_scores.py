"""Scores of episodes that stand in for regret: the formulas, in numpy, of any student and any simulator.

A *piece* is an episode, or the part of it that lies in one roll-out. Steps of all pieces lie one after the
other in flat arrays ``(steps,)``, and `lengths` ``(n,)`` says how many belong to each piece. Everything is in
the units in which it comes in: hand over advantages and values in units of the task's return, not of
normalised rewards. `EpisodeScores` applies the formulas to whole roll-outs.

=============  =================================================  ====================================
name           of one episode with T steps                        trap
=============  =================================================  ====================================
gae_l1         mean of abs(A_t)                                   rises with noise and scale of returns
pvl            mean of max(0, A_t)                                follows success, not what is learnable
max_mc         best return on the level - mean of V_t             V is discounted, the return is not
mna            solved: sum of max(0, -A_t); else 0                not divided by T: grows with length
td             mean of abs(r_t + gamma V_t+1 - V_t)               noise, as in gae_l1
learnability   p (1 - p), p the success rate on the level         needs several attempts at the level
=============  =================================================  ====================================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def piece_sums(terms: ArrayLike, lengths: NDArray[np.int64]) -> Floats:
    """Sum the terms of each piece.

    Args:
        terms: one a step, ``(steps,)``.
        lengths: steps of each piece, ``(n,)``, each at least 1.

    Returns:
        Shape ``(n,)``. The sum of a piece does not depend on the pieces beside it, to the last bit.

    Raises:
        ValueError: when a piece is empty, or the lengths do not add up to the number of steps.
    """
    terms = np.asarray(terms, dtype=np.float64)
    ends = np.cumsum(lengths)
    if len(lengths) == 0 or np.min(lengths) < 1 or ends[-1] != len(terms):
        raise ValueError(
            f"lengths {np.asarray(lengths).tolist()[:10]} do not cut {len(terms)} steps into pieces; "
            "each must be at least 1, and their sum the number of steps"
        )
    sums: Floats = np.add.reduceat(terms, ends - lengths)
    return sums


def piece_means(terms: ArrayLike, lengths: NDArray[np.int64]) -> Floats:
    """Average the terms ``(steps,)`` of each piece; returns ``(n,)``. Raises as `piece_sums`."""
    return piece_sums(terms, lengths) / lengths


def gae_l1(advantages: ArrayLike, lengths: NDArray[np.int64]) -> Floats:
    """Mean absolute advantage of each piece, ``(n,)``, at least 0: ``value_l1`` of PLR.

    Source: Jiang, Grefenstette, Rocktaschel 2021, "Prioritized Level Replay" (2010.03934).
    """
    # (1 / T) sum_t |A_t|
    return piece_means(np.abs(advantages), lengths)


def pvl(advantages: ArrayLike, lengths: NDArray[np.int64]) -> Floats:
    """Positive value loss of each piece, ``(n,)``, at least 0.

    Source: Jiang et al. 2021, "Replay-Guided Adversarial Environment Design" (2110.02439), on estimating
    regret in general settings.
    """
    # (1 / T) sum_t max(0, A_t)
    return piece_means(np.maximum(advantages, 0.0), lengths)


def max_mc(best_returns: Floats, mean_values: Floats) -> Floats:
    """Maximum Monte Carlo of each episode, ``(n,)``: how far the critic is below the best seen on the level.

    For tasks with rewards at every step the authors' code compares with the value of the first observation
    alone: hand over that in place of the mean.

    Source: Jiang et al. 2021 (2110.02439), as `pvl`.

    Args:
        best_returns: the highest undiscounted return of any episode on the same level, ``(n,)``. Begin with
            the first return of a level, not with 0, which would hide negative returns.
        mean_values: mean of the critic's values over each episode's steps, ``(n,)``.
    """
    # (1 / T) sum_t (R_best - V_t)
    return best_returns - mean_values


def mna(advantages: ArrayLike, lengths: NDArray[np.int64], solved: ArrayLike) -> Floats:
    """Negative advantage of levels that can be solved, ``(n,)``, at least 0; 0 where never solved.

    "Mean" in its name is over the episodes of a level: over the steps of one it is summed.

    Source: 2601.14957, as in the authors' code.

    Args:
        advantages: ``(steps,)``.
        lengths: steps of each piece, ``(n,)``.
        solved: whether the level was ever solved, ``(n,)``; NaN where success is not defined.
    """
    # solved * sum_t max(0, -A_t)
    return np.asarray(solved, dtype=np.float64) * piece_sums(
        np.maximum(np.negative(advantages), 0.0), lengths
    )


def td(errors: ArrayLike, lengths: NDArray[np.int64]) -> Floats:
    """Mean absolute one-step error of the critic, ``(n,)``, at least 0.

    Source: Jiang et al. 2021 (2010.03934), on scores of levels.
    """
    # (1 / T) sum_t |r_t + gamma V_{t+1} - V_t|
    return piece_means(np.abs(errors), lengths)


def td_errors(advantages: ArrayLike, dones: NDArray[np.bool_], decay: float) -> Floats:
    """One-step errors behind the generalised advantages of a roll-out.

    Errors from the advantages keep what was bootstrapped at time limits and at the end of the roll-out.

    Source: Schulman et al. 2016, "High-Dimensional Continuous Control Using GAE" (1506.02438), equation 16.

    Args:
        advantages: ``(steps, num_envs)``.
        dones: whether an episode ended with the step, of the same shape.
        decay: gamma x lambda.
    """
    advantages = np.asarray(advantages, dtype=np.float64)
    # delta_t = A_t - gamma lambda A_{t+1}, and A_t itself where nothing follows
    errors = advantages.copy()
    errors[:-1] -= decay * np.where(dones[:-1], 0.0, advantages[1:])
    return errors


def learnability(successes: ArrayLike, attempts: ArrayLike, unbiased: bool = False) -> Floats:
    """Variance of success on each level, ``(n,)``, in [0, 0.25]; NaN where there are too few attempts.

    Source: Rutherford et al. 2024, "No Regrets" (2408.15099); Tzannetos et al. 2023 (2304.12877).

    Args:
        successes: how many attempts at each level succeeded, ``(n,)``.
        attempts: how many there were, ``(n,)``.
        unbiased: correct for the few attempts: p (1 - p) is too low by (k - 1) / k, where k is their
            number. Can reach 0.5, and needs at least two.
    """
    tried = np.asarray(attempts, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        # p (1 - p), or p (1 - p) k / (k - 1)
        rate = np.asarray(successes, dtype=np.float64) / tried
        variance: Floats = rate * (1.0 - rate)
        return variance * tried / (tried - 1.0) if unbiased else variance

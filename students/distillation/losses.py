"""What makes a student's action differ from the expert's: losses per sample, and their mean under a mask.

Means and standard deviations are ``(..., a)``; losses are ``(...)``, summed over the a actions for the
divergences (as log-probabilities are) and averaged over them for MSE and Huber.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.teachers.experts import unknown

LOSSES = ("huber", "mse", "kl", "sigma")
"""Names: `huber` and `mse` on means; `kl` of Gaussians; `sigma`: L2 weighted by the expert's deviations."""


def mse(mean: Tensor, target: Tensor) -> Tensor:
    """Squared error, averaged over actions: ``mean_j (m_j - t_j)^2``."""
    return (mean - target).square().mean(-1)


def huber(mean: Tensor, target: Tensor, beta: float = 0.1) -> Tensor:
    """Huber 1964 in the "smooth L1" scale: ``e^2 / (2 beta)`` below `beta`, ``|e| - beta / 2`` above.

    Labels of a bounded controller are often at their limits, where single large errors must not rule.
    """
    error = (mean - target).abs()
    return torch.where(error < beta, error.square() / (2 * beta), error - beta / 2).mean(-1)


def gaussian_kl(mean: Tensor, std: Tensor, target_mean: Tensor, target_std: Tensor) -> Tensor:
    """KL(expert || student) of normal distributions with independent actions, summed over actions.

    ``sum_j ln(s_j / e_j) + (e_j^2 + (m_j - t_j)^2) / (2 s_j^2) - 1/2``, s the student's deviation, e the
    expert's (Rusu et al. 2016, "Policy Distillation", use this direction).
    """
    ratio = target_std / std
    distance = (mean - target_mean) / std
    return (0.5 * (ratio.square() + distance.square() - 1) - ratio.log()).sum(-1)


def sigma_weighted(mean: Tensor, std: Tensor | None, target_mean: Tensor, target_std: Tensor) -> Tensor:
    """Squared error in units of the expert's deviations, plus that of the deviations, summed over actions.

    ``sum_j ((m_j - t_j) / e_j)^2 + (s_j - e_j)^2``, as DEXTRAH-G weights its student (Lum et al. 2024): where
    the expert is sure, the student must be exact. Without a student's `std` the second term is left out.
    """
    loss = ((mean - target_mean) / target_std).square().sum(-1)
    return loss if std is None else loss + (std - target_std).square().sum(-1)


def distillation_loss(
    name: str,
    mean: Tensor,
    std: Tensor | None,
    target_mean: Tensor,
    target_std: Tensor,
    huber_beta: float = 0.1,
) -> Tensor:
    """The loss `name` of each sample, ``(...)``.

    Args:
        name: one of `LOSSES`.
        mean, std: the student's; `std` is None for a deterministic head, which `kl` takes as having the
            expert's (it is then half of the `sigma` loss).
        target_mean, target_std: the expert's.
        huber_beta: where `huber` turns from squared to absolute.

    Raises:
        ValueError: for an unknown name.
    """
    if name == "mse":
        return mse(mean, target_mean)
    if name == "huber":
        return huber(mean, target_mean, huber_beta)
    if name == "kl":
        return gaussian_kl(mean, target_std if std is None else std, target_mean, target_std)
    if name == "sigma":
        return sigma_weighted(mean, std, target_mean, target_std)
    check_loss(name)
    raise AssertionError(name)


def check_loss(name: str) -> None:
    """Refuse a loss that is not there.

    Raises:
        ValueError: suggests the nearest name.
    """
    if name not in LOSSES:
        raise ValueError(unknown("loss", name, LOSSES))


def masked_mean(losses: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over samples, weighted by `mask` (bool or weights, of the same shape); 0 where it is all 0.

    What is masked out gives no gradient.
    """
    if mask is None:
        return losses.mean()
    weights = mask.to(losses.dtype)
    return (losses * weights).sum() / weights.sum().clamp(min=1e-8)

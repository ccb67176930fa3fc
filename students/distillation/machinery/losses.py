"""Losses of a student's actions against the expert's, per sample.

Means and standard deviations are ``(..., a)``; losses are ``(...)``, summed over the a actions for the
divergences (as log-probabilities are) and averaged over them for MSE and Huber.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tutelage.envs.contract.names import unknown_name
from tutelage.students.ppo.formulas import gaussian_kl

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


def tempered(std: Tensor, temperature: float) -> Tensor:
    """Standard deviations of normal distributions at a temperature: ``e sqrt(temperature)``.

    Rusu et al. 2015, "Policy Distillation", equation 3, soften or sharpen the expert alone:
    ``softmax(q / temperature)``. That is a distribution to the power ``1 / temperature``, made to sum to 1
    again; of a normal one, ``exp(-(a - t)^2 / (2 e^2))``, that multiplies the variance by the temperature and
    leaves the mean where it is. Below 1 the expert is surer of itself, above 1 less so.

    Raises:
        ValueError: for a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    return std if temperature == 1 else std * math.sqrt(temperature)


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
    temperature: float = 1.0,
) -> Tensor:
    """The loss `name` of each sample, ``(...)``.

    Args:
        name: one of `LOSSES`.
        mean, std: the student's; `std` is None for a deterministic head, which `kl` takes as having the
            expert's (it is then half of the `sigma` loss).
        target_mean, target_std: the expert's.
        huber_beta: where `huber` turns from squared to absolute.
        temperature: of the expert, in `kl` and `sigma`; see `tempered`. A Gaussian student learns the
            tempered deviation; for one with a deterministic head it is a factor of the loss, no more.

    Raises:
        ValueError: for an unknown name, or a temperature that is not positive.
    """
    target_std = tempered(target_std, temperature)
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
    """Refuse a loss that does not exist.

    Raises:
        ValueError: suggests the nearest name.
    """
    if name not in LOSSES:
        raise ValueError(unknown_name("loss", name, LOSSES))

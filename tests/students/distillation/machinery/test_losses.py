"""Losses against numbers computed by hand, and against torch's own distributions."""

import math

import pytest
import torch

from tutelage.students.distillation.machinery.losses import (
    distillation_loss,
    huber,
    mse,
    sigma_weighted,
    tempered,
)
from tutelage.students.ppo.formulas import gaussian_kl

MEAN, TARGET = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.4, 1.0]])
STD, TARGET_STD = torch.tensor([[0.5, 2.0]]), torch.tensor([[1.0, 0.5]])


def test_mse_and_huber() -> None:
    # errors 0.1 and -2
    assert float(mse(MEAN, TARGET)) == pytest.approx((0.01 + 4) / 2)
    assert float(huber(MEAN, TARGET, beta=0.2)) == pytest.approx((0.01 / 0.4 + (2 - 0.1)) / 2)
    assert float(huber(MEAN, TARGET, beta=4.0)) == pytest.approx((0.01 / 8 + 4 / 8) / 2)


def test_kl_of_gaussians() -> None:
    first = math.log(0.5 / 1.0) + (1.0 + 0.01) / (2 * 0.25) - 0.5
    second = math.log(2.0 / 0.5) + (0.25 + 4.0) / (2 * 4.0) - 0.5
    assert float(gaussian_kl(MEAN, STD, TARGET, TARGET_STD)) == pytest.approx(first + second, rel=1e-6)
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(normal(TARGET, TARGET_STD), normal(MEAN, STD)).sum(-1)
    torch.testing.assert_close(gaussian_kl(MEAN, STD, TARGET, TARGET_STD), wanted)
    assert float(gaussian_kl(TARGET, TARGET_STD, TARGET, TARGET_STD)) == 0


def test_sigma_weighted() -> None:
    means = (0.1 / 1.0) ** 2 + (2 / 0.5) ** 2
    assert float(sigma_weighted(MEAN, None, TARGET, TARGET_STD)) == pytest.approx(means, rel=1e-6)
    deviations = (0.5 - 1.0) ** 2 + (2.0 - 0.5) ** 2
    assert float(sigma_weighted(MEAN, STD, TARGET, TARGET_STD)) == pytest.approx(means + deviations, rel=1e-6)


def test_kl_without_a_student_deviation_is_half_of_the_weighted_error() -> None:
    kl = distillation_loss("kl", MEAN, None, TARGET, TARGET_STD)
    torch.testing.assert_close(kl, sigma_weighted(MEAN, None, TARGET, TARGET_STD) / 2)


def test_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown loss 'hubr'; did you mean 'huber'"):
        distillation_loss("hubr", MEAN, None, TARGET, TARGET_STD)


def test_temperature_is_a_power_of_the_expert() -> None:
    """``p^(1 / T)``, made to sum to 1 again, of a normal distribution, on a grid."""
    deviation, temperature = 0.5, 0.25
    grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    step = float(grid[1] - grid[0])
    density = torch.exp(-(grid**2) / (2 * deviation**2)) ** (1 / temperature)
    density /= density.sum() * step
    variance = float((density * grid**2).sum() * step)
    found = tempered(torch.tensor(deviation), temperature)
    assert float(found) == pytest.approx(math.sqrt(variance), rel=1e-4)
    assert float(found) == 0.25  # 0.5 * sqrt(0.25)


def test_kl_at_a_temperature() -> None:
    sharp = TARGET_STD / 2  # temperature 1/4
    found = distillation_loss("kl", MEAN, STD, TARGET, TARGET_STD, temperature=0.25)
    torch.testing.assert_close(found, gaussian_kl(MEAN, STD, TARGET, sharp))
    # a deterministic student's is the same, times 1 / temperature
    plain = distillation_loss("kl", MEAN, None, TARGET, TARGET_STD)
    torch.testing.assert_close(
        distillation_loss("kl", MEAN, None, TARGET, TARGET_STD, temperature=0.25), 4 * plain
    )
    for name in ("mse", "huber"):
        one, other = (
            distillation_loss(name, MEAN, STD, TARGET, TARGET_STD, temperature=t) for t in (1.0, 9.0)
        )
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
        distillation_loss("kl", MEAN, STD, TARGET, TARGET_STD, temperature=0)


def test_a_gaussian_student_learns_the_tempered_deviation() -> None:
    log_std = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([log_std], 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss = distillation_loss("kl", TARGET, log_std.exp()[None], TARGET, TARGET_STD, temperature=4.0)
        loss.sum().backward()
        optimizer.step()
    torch.testing.assert_close(log_std.detach().exp()[None], 2 * TARGET_STD, rtol=0, atol=1e-2)

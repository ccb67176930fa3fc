"""Losses against numbers computed by hand, and against torch's own distributions."""

import math

import pytest
import torch

from tutelage.students.distillation.losses import (
    distillation_loss,
    gaussian_kl,
    huber,
    masked_mean,
    mse,
    sigma_weighted,
)

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


def test_no_gradient_where_the_mask_is_zero() -> None:
    mean = torch.tensor([[1.0], [2.0], [1e9], [4.0]], requires_grad=True)
    loss = masked_mean(mse(mean, torch.zeros(4, 1)), torch.tensor([True, False, False, True]))
    loss.backward()
    assert loss.item() == (1 + 16) / 2
    assert mean.grad is not None
    assert mean.grad.flatten().tolist() == [1.0, 0.0, 0.0, 4.0]  # 2 x / 2
    none = masked_mean(mse(mean, torch.zeros(4, 1)), torch.zeros(4, dtype=torch.bool))
    assert none.item() == 0

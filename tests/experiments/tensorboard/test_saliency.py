"""Saliency of a student that looks at one pixel, by the formula's arithmetic."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.experiments.tensorboard.saliency import BLUR, MASK, overlay, perturbation_saliency

SIZE, ROW, COLUMN = 16, 10, 6


class OnePixel:
    """A policy whose only action is half of one pixel's red, or of its depth."""

    def __init__(self, image: str, shape: tuple[int, ...]) -> None:
        self.config = SimpleNamespace(views=(image, "policy"), images=(image,), depth_far=3.0)
        self.image, self.shapes = image, {image: shape}

    def __call__(self, inputs: dict[str, Tensor], state: Any) -> Any:
        images = inputs[self.image].float()
        pixel = images[:, ROW, COLUMN, 0] if images.ndim == 4 else images[:, ROW, COLUMN]
        return SimpleNamespace(mean=0.5 * pixel[:, None])


class NoStack:
    """The state of a student that sees single frames."""

    frames: dict[str, Tensor] = {}  # noqa: RUF012

    def push(self, obs_dict: Any) -> "NoStack":
        return self


def saliency(image: str, pictures: Tensor, stride: int = 1) -> Tensor:
    student: Any = OnePixel(image, tuple(pictures.shape[1:]))
    state: Any = NoStack()
    return perturbation_saliency(student, {image: pictures}, state, image, stride)


def gaussian(distance: float, sigma: float) -> float:
    return float(torch.exp(torch.tensor(-(distance**2) / (2 * sigma**2))))


def centre(sigma: float) -> float:
    """Weight of the middle of the blur's kernel, along one axis."""
    radius = max(1, round(3 * sigma))
    return 1 / sum(gaussian(x, sigma) for x in range(-radius, radius + 1))


def test_depth_by_hand() -> None:
    depth = torch.zeros(1, SIZE, SIZE)
    depth[0, ROW, COLUMN] = 2.0
    found = saliency("front/depth", depth)
    assert found.shape == (1, SIZE, SIZE)
    # At the pixel the mask is 1: 2 becomes A = 2 k^2, and the action changes by half of the difference.
    blurred = 2 * centre(BLUR * SIZE) ** 2
    assert float(found[0, ROW, COLUMN]) == pytest.approx(0.5 * (0.5 * (2 - blurred)) ** 2, rel=1e-5)
    # One row and two columns off, the mask is exp(-5 / (2 sigma^2)), and the difference that times as large.
    mask = gaussian(5**0.5, MASK * SIZE)
    expected = 0.5 * (0.5 * mask * (2 - blurred)) ** 2
    assert float(found[0, ROW + 1, COLUMN - 2]) == pytest.approx(expected, rel=1e-4)


def test_where_nothing_is_to_be_seen_or_looked_at() -> None:
    even = torch.full((2, SIZE, SIZE, 3), 90, dtype=torch.uint8)
    assert not saliency("front/rgb", even).any()  # blurring changes nothing
    even[1, 0, 15] = 255
    assert not saliency("front/rgb", even)[1].any()  # the policy does not look there
    far = torch.full((1, SIZE, SIZE), torch.inf)
    assert torch.isfinite(saliency("front/depth", far)).all()


def test_coarse_places_find_the_pixel_too() -> None:
    pictures = torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)
    pictures[0, ROW, COLUMN] = 255
    found = saliency("front/rgb", pictures, stride=4)[0]
    row, column = divmod(int(found.argmax()), SIZE)
    assert abs(row - ROW) <= 2
    assert abs(column - COLUMN) <= 2


def test_overlay() -> None:
    images = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    heat = torch.tensor([[[0.0, 4.0], [2.0, 0.0]]])
    shown = overlay(images, heat)
    assert shown[0, 0, 0].tolist() == [204, 204, 204]  # grey: 255 (0.6 + 0.2)
    assert shown[0, 0, 1].tolist() == [255, 26, 0]  # all red, (1, 0.1, 0)
    assert shown[0, 1, 0].tolist() == [round(0.5 * (204 + 255)), round(0.5 * (204 + 25.5)), 102]

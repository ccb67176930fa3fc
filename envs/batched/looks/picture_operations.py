"""The operations of `ImageAugmentation` on pictures, in batched torch: shift, blur, colours, rectangles."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Brightness of red, green and blue (ITU-R BT.601)."""


def shift(images: Tensor, offsets: Tensor) -> Tensor:
    """Move images by whole pixels; what comes in is the border, repeated.

    Args:
        images: ``(N, H, W, C)`` of any dtype.
        offsets: int64 ``(N, 2)``: the pixel at (y, x) is then the one at (y, x) + offset.
    """
    n, height, width, channels = images.shape
    device = images.device
    y = (torch.arange(height, device=device) + offsets[:, :1]).clamp(0, height - 1)
    x = (torch.arange(width, device=device) + offsets[:, 1:]).clamp(0, width - 1)
    first = height * torch.arange(n, device=device)[:, None]
    pixels = width * (first + y)[:, :, None] + x[:, None]
    return images.reshape(-1, channels).index_select(0, pixels.view(-1)).view(images.shape)


def reach(sigma: float) -> int:
    """Pixels to either side that a Gaussian blur of this standard deviation needs: 2.5 of them."""
    return max(1, math.ceil(2.5 * sigma))


def blur(planes: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur, along one axis and then the other, the border repeated.

    Args:
        planes: float ``(N, C, H, W)``.
        sigma: standard deviations in pixels, ``(N,)``; 0 leaves an image as it is.
        radius: pixels to either side beyond which the Gaussian counts as 0; see `reach`.
    """
    distance = torch.arange(radius + 1, device=planes.device, dtype=planes.dtype)
    weights = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-3)[:, None]) ** 2)
    weights = (weights / (2 * weights.sum(1, keepdim=True) - 1)).view(-1, radius + 1, 1, 1, 1)
    for axis, padding in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        size = planes.shape[axis]
        padded = F.pad(planes, padding, mode="replicate")
        planes = padded.narrow(axis, radius, size) * weights[:, 0]
        for i in range(1, radius + 1):
            pair = padded.narrow(axis, radius - i, size) + padded.narrow(axis, radius + i, size)
            planes = torch.addcmul(planes, pair, weights[:, i])
    return planes


def colour_maps(
    brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> tuple[Tensor, Tensor]:
    """Linear maps that scale brightness, contrast about the mean and saturation, and rotate hue.

    Hue is rotated about the grey axis of RGB (Haeberli 1993, "Matrix Operations for Image Processing").

    Args:
        brightness, contrast, saturation: factors, ``(N,)``; 1 changes nothing.
        hue: turns, ``(N,)``; 0 changes nothing.

    Returns:
        Maps, ``(N, 3, 3)``, and lifts, ``(N, 3)``, for `map_colours`.
    """
    device = brightness.device
    luma = torch.tensor(LUMA, device=device)
    angle = (2 * math.pi * hue)[:, None, None]
    eye, third = torch.eye(3, device=device), torch.full((3, 3), 1 / 3, device=device)
    # The cross product with (1, 1, 1) / sqrt(3)
    cross = torch.tensor(((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0)), device=device) / math.sqrt(3)
    rotation = angle.cos() * eye + (1 - angle.cos()) * third + angle.sin() * cross
    keep = saturation[:, None, None]
    saturate = keep * eye + (1 - keep) * luma.expand(3, 3)
    gain = (brightness * contrast)[:, None, None]
    return gain * (rotation @ saturate), (brightness * (1 - contrast))[:, None] * luma


def map_colours(planes: Tensor, maps: Tensor, lifts: Tensor) -> Tensor:
    """Multiply colours by ``maps`` and add ``lifts @ mean`` to all three: one linear map per image.

    Args:
        planes: float ``(N, 3, H, W)``; nothing is clipped.
        maps: ``(N, 3, 3)``.
        lifts: how often the image's mean red, green and blue are added, ``(N, 3)``.
    """
    lift = (lifts * planes.mean((2, 3))).sum(1)[:, None, None]
    return torch.baddbmm(lift, maps, planes.flatten(2)).view_as(planes)


def cut_out(planes: Tensor, boxes: Tensor, colours: Tensor) -> Tensor:
    """Fill a rectangle of each image.

    Args:
        planes: float ``(N, C, H, W)``.
        boxes: top, bottom, left, right in pixels, ``(N, 4)``; filled are pixels whose centre is inside.
        colours: ``(N, C)``.
    """
    y = torch.arange(planes.shape[2], device=planes.device)[:, None] + 0.5
    x = torch.arange(planes.shape[3], device=planes.device) + 0.5
    top, bottom, left, right = boxes[:, :, None, None].unbind(1)
    inside = ((y > top) & (y < bottom) & (x > left) & (x < right))[:, None]
    return torch.where(inside, colours[:, :, None, None], planes)

"""Augmented pictures: what a camera and its sensor do to an image, in batched torch, each image differently.

Applied to batches while learning, not to the environments. Other looks of the scene itself are in
`tutelage.envs.batched.visual_randomization`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

LUMA = (0.299, 0.587, 0.114)
"""Brightness of red, green and blue (ITU-R BT.601)."""

_AT_ONCE = 32  # images on a CPU, so that all steps find them in its cache: three times as fast as 256


@dataclass(frozen=True)
class ImageAugmentation:
    """Random shifts, blur, colour jitter, noise and cut-outs of RGB; shifts, noise and gaps of depth.

    Amounts are the largest ones; each image gets its own, uniform up to there, and 0 leaves that step out::

        augment = ImageAugmentation(shift=4, noise=8.0)
        generator = torch.Generator().manual_seed(0)
        images = augment(images, generator)    # uint8 (N, H, W, 3), or depth, float (N, H, W)

    Steps in order, for RGB: shift, blur, colour, noise, cut-outs; for depth: shift, noise, quantisation, lost
    pixels, cut-outs. Two calls shift differently; for modalities that must stay aligned call `shift` with the
    same offsets.

    Attributes:
        shift: pixels up to which the image is moved along either axis, its border repeated, which is DrQ's
            random crop of the padded image; 4 there (Yarats et al. 2021, "Image Augmentation Is All You
            Need: Regularizing Deep Reinforcement Learning from Pixels").
        blur: standard deviation of a Gaussian, in pixels.
        brightness, contrast, saturation: of factors from 1 - amount to 1 + amount; contrast is about the
            image's mean brightness. At most 1.
        hue: rotation of colours about the grey axis, in turns to either side: 1/3 makes red green.
        noise: standard deviation of Gaussian noise, in levels of 255.
        cutouts: how many rectangles of one random colour (0 in depth) are put into each image (Laskin et al.
            2020, "Reinforcement Learning with Augmented Data").
        cutout_size: their sides, as a share of the image's.
        depth_noise: standard deviation of Gaussian noise relative to the depth, at most 0.5; what is
            infinitely far stays so, and nothing comes behind the camera.
        depth_lost: share of the pixels that a depth camera returns as 0.
        depth_step: metres to whose multiples depth is rounded; the same for all images.

    Raises:
        ValueError: for a negative or infinite amount, or one that is too large.
    """

    shift: int = 0
    blur: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    noise: float = 0.0
    cutouts: int = 0
    cutout_size: float = 0.3
    depth_noise: float = 0.0
    depth_lost: float = 0.0
    depth_step: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            amount = getattr(self, field.name)
            shares = ("brightness", "contrast", "saturation", "cutout_size", "depth_lost")
            most = {**dict.fromkeys(shares, 1.0), "depth_noise": 0.5}.get(field.name, math.inf)
            if not (0 <= amount <= most and amount < math.inf):
                raise ValueError(
                    f"{field.name} must be from 0 to {most:g}, not {amount}"
                    if most < math.inf
                    else f"{field.name} must be finite and not negative, but is {amount}"
                )

    @staticmethod
    def drq() -> ImageAugmentation:
        """Shifts of up to 4 pixels alone, as in DrQ."""
        return ImageAugmentation(shift=4)

    @staticmethod
    def strong() -> ImageAugmentation:
        """All of it, for policies that are to leave the simulator."""
        return ImageAugmentation(
            shift=4,
            blur=1.0,
            brightness=0.3,
            contrast=0.3,
            saturation=0.4,
            hue=0.05,
            noise=8.0,
            cutouts=1,
            depth_noise=0.02,
            depth_lost=0.02,
            depth_step=0.005,
        )

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Augment a batch; the images given are not changed.

        Args:
            images: RGB, uint8, ``(N, H, W, 3)``; or depth, floating point, ``(N, H, W)``, metres.
            generator: on the images' device.

        Returns:
            Images of the same shape and dtype.

        Raises:
            ValueError: for another shape or dtype.
        """
        if images.dtype == torch.uint8 and images.ndim == 4 and images.shape[3] == 3:
            augment = self._rgb
        elif images.dtype.is_floating_point and images.ndim == 3:
            augment = self._depth
        else:
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; need RGB, uint8 (N, H, W, 3), or "
                "depth, floating point (N, H, W)"
            )
        if images.is_cuda:
            return augment(images, generator)
        return torch.cat([augment(part, generator) for part in images.split(_AT_ONCE)])

    def _rgb(self, images: Tensor, generator: Generator) -> Tensor:
        images = self._shift(images, generator)
        jitter = (self.brightness, self.contrast, self.saturation, self.hue)
        if not any((self.blur, *jitter, self.noise, self.cutouts)):
            return images
        planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        if self.blur:
            planes = blur(planes, self.blur * _uniform(planes, 1, generator)[:, 0], reach(self.blur))
        if any(jitter):
            signed = (2 * _uniform(planes, 4, generator) - 1).unbind(1)
            *factors, hue = (amount * unit for amount, unit in zip(jitter, signed, strict=True))
            brightness, contrast, saturation = (1 + factor for factor in factors)
            planes = jitter_colours(planes, brightness, contrast, saturation, hue)
        if self.noise:
            planes = self._noisy(planes, self.noise, generator)
        if self.cutouts:
            for _ in range(self.cutouts):
                colour = 255 * _uniform(planes, 3, generator)
                planes = cut_out(planes, self._box(planes, generator), colour)
        return planes.add_(0.5).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _depth(self, images: Tensor, generator: Generator) -> Tensor:
        images = self._shift(images[..., None], generator)[..., 0]
        planes = images[:, None]
        if self.depth_noise:
            factors = self._noisy(torch.ones_like(planes), self.depth_noise, generator).clamp_(min=0)
            planes = torch.where(planes.isfinite(), planes * factors, planes)  # infinity times 0 is NaN
        if self.depth_step:
            planes = (planes / self.depth_step).round() * self.depth_step
        if self.depth_lost:
            share = self.depth_lost * _uniform(planes, 1, generator)[:, :, None, None]
            lost = torch.rand(planes.shape, generator=generator, device=planes.device) < share
            planes = planes.masked_fill(lost, 0.0)
        for _ in range(self.cutouts):
            planes = cut_out(planes, self._box(planes, generator), planes.new_zeros(len(planes), 1))
        return planes[:, 0]

    def _shift(self, images: Tensor, generator: Generator) -> Tensor:
        if not self.shift:
            return images.clone()
        shape, most = (len(images), 2), self.shift
        offsets = torch.randint(-most, most + 1, shape, generator=generator, device=images.device)
        return shift(images, offsets)

    def _noisy(self, planes: Tensor, amount: float, generator: Generator) -> Tensor:
        deviations = amount * _uniform(planes, 1, generator)[:, :, None, None]
        noise = torch.randn(planes.shape, generator=generator, device=planes.device, dtype=planes.dtype)
        return torch.addcmul(planes, noise, deviations)

    def _box(self, planes: Tensor, generator: Generator) -> Tensor:
        """Random rectangles, (top, bottom, left, right), in pixels."""
        height, width = planes.shape[2:]
        unit = _uniform(planes, 4, generator)
        y, x = unit[:, 0] * height, unit[:, 1] * width
        tall, wide = (self.cutout_size / 2 * size * unit[:, i] for i, size in ((2, height), (3, width)))
        return torch.stack([y - tall, y + tall, x - wide, x + wide], 1)


def shift(images: Tensor, offsets: Tensor) -> Tensor:
    """Move images by whole pixels; what comes in is the border, repeated.

    Args:
        images: ``(N, H, W, C)`` of any dtype.
        offsets: int64 ``(N, 2)``: the pixel at (y, x) is then what was at (y, x) + offset.
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


def jitter_colours(
    planes: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Scale brightness, contrast about the mean and saturation, and rotate hue: one linear map per image.

    Hue is rotated about the grey axis of RGB (Haeberli 1993, "Matrix Operations for Image Processing").

    Args:
        planes: float ``(N, 3, H, W)``; nothing is clipped.
        brightness, contrast, saturation: factors, ``(N,)``; 1 changes nothing.
        hue: turns, ``(N,)``; 0 changes nothing.
    """
    n, _, height, width = planes.shape
    luma = planes.new_tensor(LUMA)
    angle = (2 * math.pi * hue)[:, None, None]
    eye, third = torch.eye(3, device=planes.device), torch.full((3, 3), 1 / 3, device=planes.device)
    # The cross product with (1, 1, 1) / sqrt(3)
    cross = planes.new_tensor(((0, -1, 1), (1, 0, -1), (-1, 1, 0))) / math.sqrt(3)
    rotation = angle.cos() * eye + (1 - angle.cos()) * third + angle.sin() * cross
    keep = saturation[:, None, None]
    saturate = keep * eye + (1 - keep) * luma.expand(3, 3)
    gain = (brightness * contrast)[:, None, None]
    mean = planes.mean((2, 3)) @ luma
    lift = (brightness * (1 - contrast) * mean)[:, None, None]
    mapped = torch.baddbmm(lift, gain * (rotation @ saturate), planes.flatten(2))
    return mapped.view(n, 3, height, width)


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


def _uniform(planes: Tensor, count: int, generator: Generator) -> Tensor:
    """Numbers in [0, 1) for each image, ``(N, count)``."""
    drawn = torch.rand(len(planes), count, generator=generator, device=planes.device)
    return drawn.to(planes.dtype)

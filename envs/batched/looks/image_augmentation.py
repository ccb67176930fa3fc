"""Augmentation of pictures, as by a camera and its sensor, in batched torch, each image differently.

Applied to batches while learning, not to the environments. Other looks of the scene itself are in
`tutelage.envs.batched.looks.visual_randomization`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from tutelage.envs.batched.looks.picture_operations import (
    blur,
    colour_maps,
    cut_out,
    map_colours,
    reach,
    shift,
)

_AT_ONCE = 32  # images on a CPU, so that all steps find them in its cache: three times as fast as 256


@dataclass(frozen=True)
class ImageAugmentation:
    """Random shifts, blur, colour jitter, noise and cut-outs of RGB; shifts, noise and gaps of depth.

    Amounts are the largest ones; each image gets its own, uniform up to there, and 0 leaves that step out::

        augment = ImageAugmentation(shift=4, noise=8.0)
        generator = torch.Generator().manual_seed(0)
        images = augment(images, generator)    # uint8 (N, H, W, 3), or depth, float (N, H, W)

    Steps in order, for RGB: shift, blur, colour, noise, cut-outs; for depth: shift, noise, quantisation, lost
    pixels, cut-outs. Two calls shift and cover differently, but alike, RGB and depth too, where their
    generators are in the same state: so stay modalities of one camera aligned. Without blur and noise, RGB on
    a CPU takes a single pass, which is several times as fast (`augmentation_kernel`).

    Attributes:
        shift: pixels up to which the image is moved along either axis, its border repeated, which is DrQ's
            random crop of the padded image; 4 there (Yarats et al. 2021, "Image Augmentation Is All You
            Need: Regularizing Deep Reinforcement Learning from Pixels").
        blur: standard deviation of a Gaussian, in pixels.
        brightness, contrast, saturation: of factors from 1 - amount to 1 + amount; contrast is about the
            image's mean brightness. At most 1.
        hue: rotation of colours about the grey axis, in turns to either side: 1/3 makes red green.
        swap: probability that green and blue are exchanged: grey stays grey and red stays red, green becomes
            blue and orange pink. Tells what is red from what has the other colours that a camera never saw.
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
    swap: float = 0.0
    noise: float = 0.0
    cutouts: int = 0
    cutout_size: float = 0.3
    depth_noise: float = 0.0
    depth_lost: float = 0.0
    depth_step: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shift", "cutouts"):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"{name} must be a whole number, not {getattr(self, name)}")
        for field in fields(self):
            amount = getattr(self, field.name)
            shares = ("brightness", "contrast", "saturation", "swap", "cutout_size", "depth_lost")
            most = {**dict.fromkeys(shares, 1.0), "depth_noise": 0.5}.get(field.name, math.inf)
            if not (0 <= amount <= most and amount < math.inf):
                raise ValueError(
                    f"{field.name} must be from 0 to {most:g}, not {amount}"
                    if most < math.inf
                    else f"{field.name} must be finite and not negative, but is {amount}"
                )

    @staticmethod
    def drq() -> ImageAugmentation:
        """Return shifts of up to 4 pixels alone, as in DrQ."""
        return ImageAugmentation(shift=4)

    @staticmethod
    def camera() -> ImageAugmentation:
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

    @staticmethod
    def unseen_looks() -> ImageAugmentation:
        """Return shifts and colours for students that meet looks of no training; a single pass on a CPU.

        Shifts and colours alone: cutouts are as large as what is to be found in the image.
        """
        return ImageAugmentation(shift=4, brightness=0.5, contrast=0.4, saturation=0.7, hue=0.03, swap=0.5)

    def __call__(self, images: Tensor, generator: Generator, alike: Tensor | None = None) -> Tensor:
        """Augment a batch; the images given are not changed.

        Args:
            images: RGB, uint8, ``(N, H, W, 3)``; or depth, floating point, ``(N, H, W)``, metres.
            generator: on the images' device.
            alike: a number from 0 to N - 1 for each image, int64 ``(N,)``: images of one number are shifted,
                blurred, coloured and covered alike, as the frames of one episode must be where what moves
                from one to the next matters. Noise and lost pixels differ all the same. Default: all differ.

        Returns:
            Images of the same shape and dtype.

        Raises:
            ValueError: for another shape or dtype.
        """
        if alike is not None and alike.shape != images.shape[:1]:
            raise ValueError(
                f"alike has shape {tuple(alike.shape)}; it needs a number for each of {len(images)} images"
            )
        if images.dtype == torch.uint8 and images.ndim == 4 and images.shape[3] == 3:
            rgb = True
        elif images.dtype.is_floating_point and images.ndim == 3:
            rgb = False
        else:
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; need RGB, uint8 (N, H, W, 3), or "
                "depth, floating point (N, H, W)"
            )
        n, height, width = images.shape[:3]
        draws = self._draw(n, height, width, generator)
        if alike is not None:
            draws = _Draws(*(column[alike] for column in draws))
        if rgb and self._takes_one_pass and not images.is_cuda:
            return _in_one_pass(images, draws)
        at_once = max(n, 1) if images.is_cuda else _AT_ONCE
        augment = self._rgb if rgb else self._depth
        return torch.cat(
            [
                augment(images[k : k + at_once], draws.part(k, k + at_once), generator)
                for k in range(0, max(n, 1), at_once)
            ]
        )

    @property
    def _takes_one_pass(self) -> bool:
        """Whether RGB on a CPU is augmented by `tutelage.envs.batched.looks.augmentation_kernel`."""
        return not (self.blur or self.noise)

    def _draw(self, n: int, height: int, width: int, generator: Generator) -> _Draws:
        """All that is drawn once an image."""
        most, device = self.shift, generator.device
        offsets = torch.randint(-most, most + 1, (n, 2), generator=generator, device=device)
        maps, lifts = self._colours(n, generator)
        cuts = [
            (self._boxes(n, height, width, generator), _uniform(n, 3, generator)) for _ in range(self.cutouts)
        ]
        holes, fills = torch.zeros(n, 0, 4, device=device), torch.zeros(n, 0, 3, device=device)
        if cuts:
            holes, fills = (torch.stack(column, 1) for column in zip(*cuts, strict=True))
        return _Draws(offsets, _uniform(n, 3, generator), maps, lifts, holes, fills)

    def _rgb(self, images: Tensor, draws: _Draws, generator: Generator) -> Tensor:
        images = shift(images, draws.offsets) if self.shift else images
        planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        if self.blur:
            planes = blur(planes, self.blur * draws.shares[:, 0], reach(self.blur))
        planes = map_colours(planes, draws.maps, draws.lifts)
        if self.noise:
            planes = _noisy(planes, self.noise * draws.shares[:, 1], generator)
        for i in range(self.cutouts):
            planes = cut_out(planes, draws.holes[:, i], 255 * draws.fills[:, i])
        return planes.add_(0.5).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _depth(self, images: Tensor, draws: _Draws, generator: Generator) -> Tensor:
        if self.shift:
            images = shift(images[..., None], draws.offsets)[..., 0]
        planes = images.clone()[:, None]
        if self.depth_noise:
            deviations = self.depth_noise * draws.shares[:, 1]
            factors = _noisy(torch.ones_like(planes), deviations, generator).clamp_(min=0)
            planes = torch.where(planes.isfinite(), planes * factors, planes)  # infinity times 0 is NaN
        if self.depth_step:
            planes = (planes / self.depth_step).round() * self.depth_step
        if self.depth_lost:
            share = self.depth_lost * draws.shares[:, 2].to(planes.dtype)[:, None, None, None]
            lost = torch.rand(planes.shape, generator=generator, device=planes.device) < share
            planes = planes.masked_fill(lost, 0.0)
        for i in range(self.cutouts):
            planes = cut_out(planes, draws.holes[:, i], planes.new_zeros(len(planes), 1))
        return planes[:, 0]

    def _colours(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Random maps and lifts for `map_colours`."""
        signed = 2 * _uniform(n, 4, generator) - 1
        amounts = (self.brightness, self.contrast, self.saturation, self.hue)
        brightness, contrast, saturation, hue = (
            amount * unit for amount, unit in zip(amounts, signed.unbind(1), strict=True)
        )
        maps, lifts = colour_maps(1 + brightness, 1 + contrast, 1 + saturation, hue)
        swapped = _uniform(n, 1, generator)[:, :, None] < self.swap
        return torch.where(swapped, maps[:, [0, 2, 1]], maps), lifts

    def _boxes(self, n: int, height: int, width: int, generator: Generator) -> Tensor:
        """Random rectangles, (top, bottom, left, right), in pixels, of sides up to `cutout_size`."""
        unit, size = _uniform(n, 4, generator), self.cutout_size
        y, x = unit[:, 0] * height, unit[:, 1] * width
        tall, wide = size / 2 * height * unit[:, 2], size / 2 * width * unit[:, 3]
        return torch.stack([y - tall, y + tall, x - wide, x + wide], 1)


class _Draws(NamedTuple):
    """Random numbers of each of N images.

    Attributes:
        offsets: of the shift, int64 ``(N, 2)``.
        shares: of the largest blur, noise and share of lost pixels, ``(N, 3)``.
        maps, lifts: `map_colours`' arguments.
        holes, fills: cut-outs ``(N, C, 4)``, and their colours from 0 to 1, ``(N, C, 3)``.
    """

    offsets: Tensor
    shares: Tensor
    maps: Tensor
    lifts: Tensor
    holes: Tensor
    fills: Tensor

    def part(self, first: int, end: int) -> _Draws:
        """Those of some images."""
        return _Draws(*(column[first:end] for column in self))


def _in_one_pass(images: Tensor, draws: _Draws) -> Tensor:
    """Shift, colours and cut-outs of RGB on a CPU."""
    from tutelage.envs.batched.looks.augmentation_kernel import augment

    def by_hole(column: Tensor) -> NDArray[np.float32]:
        return column.transpose(0, 1).contiguous().numpy()

    images = images.contiguous()
    out = torch.empty_like(images)
    augment(
        images.flatten(2).numpy(),
        draws.offsets.numpy(),
        draws.maps.contiguous().numpy(),
        draws.lifts.contiguous().numpy(),
        by_hole(draws.holes),
        by_hole(255 * draws.fills),
        out.flatten(2).numpy(),
    )
    return out


def _noisy(planes: Tensor, deviations: Tensor, generator: Generator) -> Tensor:
    """Add Gaussian noise of one standard deviation an image, ``(N,)``."""
    noise = torch.randn(planes.shape, generator=generator, device=planes.device, dtype=planes.dtype)
    return torch.addcmul(planes, noise, deviations.to(planes.dtype)[:, None, None, None])


def _uniform(n: int, count: int, generator: Generator) -> Tensor:
    """Numbers in [0, 1) for each image, ``(n, count)``, on the generator's device."""
    return torch.rand(n, count, generator=generator, device=generator.device)

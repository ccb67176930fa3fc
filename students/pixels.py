"""Images of tasks, as an encoder takes them: channels of numbers from 0 to 255."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tutelage.students.encoders import PIXEL_MAX


def input_size(
    images: Sequence[str], shapes: Mapping[str, tuple[int, ...]], frames: int
) -> tuple[int, int, int]:
    """Channels, height and width of the encoder's input.

    Args:
        images: names, at least one.
        shapes: of a single one: RGB ``(height, width, 3)``, depth ``(height, width)``.
        frames: how many of each are stacked.

    Raises:
        ValueError: for an image that is neither, or images of different sizes.
    """
    sizes, channels = [], 0
    for name in images:
        shape = shapes[name]
        if name.endswith("/segmentation") or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
            raise ValueError(
                "students see RGB (height, width, 3) and depth (height, width); "
                f"{name!r} of shape {shape} is neither"
            )
        sizes.append((shape[0], shape[1]))
        channels += frames * (3 if len(shape) == 3 else 1)
    if len(set(sizes)) > 1:
        listed = ", ".join(f"{name!r} {h} x {w}" for name, (h, w) in zip(images, sizes, strict=True))
        raise ValueError(f"images of one student are channels of one input, so of one size, not {listed}")
    return channels, *sizes[0]


def to_pixels(
    images: Sequence[str],
    inputs: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    frames: int,
    depth_far: float,
    kind: torch.dtype,
) -> Tensor:
    """Pixels from 0 to 255, ``(n, channels, height, width)``: the channels of one image after another.

    A single RGB image is used as it lies in memory, which is called channels last: nothing is moved.

    Args:
        images: names.
        inputs: by name RGB, uint8, or depth, floating point, in metres and infinite for nothing:
            ``(n, *shape)``, or where frames are stacked ``(n, frames, *shape)``, oldest first.
        shapes: of single images.
        frames: how many are stacked.
        depth_far: metres that become 255; depth beyond counts as this.
        kind: floating-point type of the pixels.

    Raises:
        ValueError: for another shape or type.
    """
    parts: list[Tensor] = []
    for name in images:
        part = _channels_last(name, inputs[name], shapes[name], frames)
        if part.dtype != torch.uint8:
            part = part.float().clamp(0.0, float(depth_far)) * (PIXEL_MAX / depth_far)
        parts.append(part)
    numbers = [part.to(kind) for part in parts]
    pixels = numbers[0] if len(numbers) == 1 else torch.cat(numbers, -1)
    return pixels.permute(0, 3, 1, 2)


def _channels_last(name: str, image: Tensor, shape: tuple[int, ...], frames: int) -> Tensor:
    """An image, or a stack, as ``(n, height, width, channels)``."""
    rgb, stacked = len(shape) == 3, frames > 1
    expected = (frames, *shape) if stacked else shape
    if tuple(image.shape[1:]) != expected or rgb != (image.dtype == torch.uint8):
        wanted = "uint8" if rgb else "floating point"
        raise ValueError(
            f"{name!r} is {image.dtype} of shape {tuple(image.shape)}; this student sees {wanted} of shape "
            f"(n, {', '.join(map(str, expected))})"
        )
    if rgb:
        return torch.cat(image.unbind(1), -1) if stacked else image
    if not image.dtype.is_floating_point:
        raise ValueError(f"{name!r} is {image.dtype}; depth is floating point, in metres")
    return image.permute(0, 2, 3, 1) if stacked else image[..., None]

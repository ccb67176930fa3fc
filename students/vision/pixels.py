"""Images of tasks as encoders take them: channels of numbers from 0 to 255."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.compiler import is_compiling

from tutelage.students.vision.encoders import PIXEL_MAX


def input_size(
    images: Sequence[str], shapes: Mapping[str, tuple[int, ...]], frames: int, opponents: bool = False
) -> tuple[int, int, int]:
    """Channels, height and width of the encoder's input.

    Args:
        images: names, at least one.
        shapes: of a single one: RGB ``(height, width, 3)``, depth ``(height, width)``.
        frames: how many of each are stacked.
        opponents: whether each RGB image comes with its opponent colours.

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
        channels += frames * ((6 if opponents else 3) if len(shape) == 3 else 1)
    if len(set(sizes)) > 1:
        listed = ", ".join(f"{name!r} {h} x {w}" for name, (h, w) in zip(images, sizes, strict=True))
        raise ValueError(
            "images of one camera, or of all with fusion='early', are channels of one input, so of one "
            f"size, not {listed}"
        )
    return channels, *sizes[0]


def to_pixels(
    images: Sequence[str],
    inputs: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    frames: int,
    depth_far: float,
    kind: torch.dtype,
    opponents: bool = False,
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
        opponents: whether the three channels of each RGB image are followed by `opponent_colours`.

    Raises:
        ValueError: for another shape or type.
    """
    parts: list[Tensor] = []
    for name in images:
        part = _channels_last(name, inputs[name], shapes[name], frames)
        if part.dtype != torch.uint8:
            part = part.float().clamp(0.0, float(depth_far)) * (PIXEL_MAX / depth_far)
        parts.append(part)
    bytes_on_cpu = all(part.dtype == torch.uint8 and part.device.type == "cpu" for part in parts)
    if opponents and bytes_on_cpu and not is_compiling():
        return _joined_with_opponents(parts).to(kind).permute(0, 3, 1, 2)
    numbers = [part.to(kind) for part in parts]
    if opponents:
        numbers = [
            opponent_colours(pixels) if part.dtype == torch.uint8 else pixels
            for part, pixels in zip(parts, numbers, strict=True)
        ]
    pixels = numbers[0] if len(numbers) == 1 else torch.cat(numbers, -1)
    return pixels.permute(0, 3, 1, 2)


def opponent_colours(pixels: Tensor) -> Tensor:
    """RGB images ``(..., 3 k)``, each followed by |R - G|, |G - B| and |B - R|: ``(..., 6 k)``.

    Named after the opponent processes of colour vision (Hurvich and Jameson 1957). What makes an object's
    colour, whatever the light, is which primary stands out and by how much. That is no linear function of R,
    G and B, and so out of reach of the first layer of a network, which mixes neighbouring pixels; but it is
    one of these six: ``R - max(G, B) = R - (G + B + |G - B|) / 2``.
    """
    rgb = pixels.unflatten(-1, (-1, 3))
    following = torch.cat([rgb[..., 1:], rgb[..., :1]], -1)
    return torch.cat([rgb, (rgb - following).abs()], -1).flatten(-2)


def _joined_with_opponents(parts: Sequence[Tensor]) -> Tensor:
    """RGB images ``(n, height, width, 3 k)`` on a CPU as one, with `opponent_colours`, still in bytes."""
    from tutelage.students.vision.opponent_kernel import join_with_opponents

    joined = torch.empty(*parts[0].shape[:3], sum(2 * part.shape[3] for part in parts), dtype=torch.uint8)
    first, flat = 0, joined.flatten(1, 2).numpy()
    for part in parts:
        join_with_opponents(part.contiguous().flatten(1, 2).numpy(), first, flat)
        first += 2 * part.shape[3]
    return joined


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

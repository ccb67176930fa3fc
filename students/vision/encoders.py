"""Networks that turn the pixels of a camera into features: the eyes of a `VisionStudent`.

All take pixels from 0 to 255, of any floating-point type, ``(n, channels, height, width)``, and give
``(n, features)``. Bytes are exact in bfloat16, so nothing is scaled beforehand: the first layer does it.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIXEL_MAX = 255.0
"""The largest pixel: full brightness of RGB, and the distance `depth_far` of depth."""


@functools.cache
def fast_bfloat16(device_type: str) -> bool:
    """Whether convolutions in bfloat16 are faster than in float32 on a ``cpu`` or ``cuda``.

    It is so where the processor has instructions for them (AVX512-BF16, AMX), by 1.5 times and more. That is
    looked up, not timed: the same machine gives the same results whatever else runs on it.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class PixelConv2d(nn.Conv2d):
    """``Conv2d`` of ``pixels / 255 - centre``, at no more cost than of the pixels: the weights are scaled.

    ``w * (x / 255 - c) + b = (w / 255) * x + (b - c sum w)``; the padding is black.

    Args:
        in_channels, out_channels, kernel_size, stride, padding: as of ``Conv2d``.
        centre: what becomes 0, from 0 to 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        centre: float = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.centre = centre

    def forward(self, pixels: Tensor) -> Tensor:
        """Convolve pixels from 0 to 255."""
        assert self.bias is not None
        bias = self.bias
        if self.centre:
            bias = bias - self.centre * self.weight.sum((1, 2, 3))
        return F.conv2d(pixels, self.weight / PIXEL_MAX, bias, self.stride, self.padding)


class Encoder(nn.Module):
    """Base of all encoders.

    Attributes:
        features: how many they give.
        takes_bfloat16: whether they are accurate enough in it.
    """

    features: int
    takes_bfloat16: ClassVar[bool] = True


class FastEncoder(Encoder):
    """Two strided convolutions, and where in the image each of 32 learnt things is: made for CPUs.

    ::

        4x4 / 4, 32, ReLU -> 3x3 / 2, 48, ReLU -> 1x1, 32 -> softmax over the image -> mean x, y    (64)
                                              `-> flatten -> linear, ELU                           (64)

    The stem's stride of 4 leaves 1/16 of the pixels to the other layers; its patches do not overlap: 6x6 ones
    take a third longer, forwards and backwards, and students learnt no faster. Positions by spatial
    soft-argmax are from Levine et al. 2016, "End-to-End Training of Deep Visuomotor Policies" (there of
    stride-1 features); the flattened features tell what they cannot: sizes, and that something is not there.

    Args:
        in_channels, height, width: of the images; at least 4 pixels either way. Of sizes that are no
            multiples of 4 up to 3 pixels, at the right and at the bottom, are not seen.

    Attributes:
        features: 128.

    Raises:
        ValueError: for images that are too small.
    """

    SHARPNESS: ClassVar[float] = 3.0
    LAYERS: ClassVar[tuple[tuple[int, int, int, int], ...]] = ((32, 4, 4, 0), (48, 3, 2, 1))
    """Channels, kernel, stride and padding of each convolution."""

    def __init__(self, in_channels: int, height: int, width: int) -> None:
        super().__init__()
        _check_size(self, height, width, 4)
        self.features = 128
        self.convolutions = nn.ModuleList()
        before, rows, columns = in_channels, height, width
        for channels, kernel, stride, padding in self.LAYERS:
            shape = (before, channels, kernel, stride, padding)
            first = not self.convolutions
            self.convolutions.append(PixelConv2d(*shape, centre=0.4) if first else nn.Conv2d(*shape))
            rows, columns = (_conv_size(size, kernel, stride, padding) for size in (rows, columns))
            before = channels
        self.maps = nn.Linear(before, 32)  # a 1x1 convolution, of channels that come last
        self.content = nn.Linear(before * rows * columns, 64)
        y = torch.linspace(-1, 1, rows)[:, None].expand(rows, columns)
        x = torch.linspace(-1, 1, columns)[None].expand(rows, columns)
        self.register_buffer("positions", torch.stack([x.flatten(), y.flatten()], 1), persistent=False)

    positions: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        """Features, ``(n, 128)``: 32 times x and y from -1 to 1 (right, down), then the contents."""
        hidden = pixels
        for convolution in self.convolutions:
            hidden = convolution(hidden).relu_()
        # Channels last, as they lie in memory: neither this pass nor its gradient copies anything.
        cells = hidden.permute(0, 2, 3, 1).flatten(1, 2)
        weights = (self.SHARPNESS * self.maps(cells).float()).softmax(1)
        where = (weights.transpose(1, 2) @ self.positions).flatten(1)
        return torch.cat([where, F.elu(self.content(cells.flatten(1))).float()], 1)


class FineEncoder(FastEncoder):
    """As `FastEncoder`, with three convolutions of small steps: for things of a few pixels on any ground.

    ::

        3x3 / 2, 16, ReLU -> 3x3 / 2, 32, ReLU -> 3x3 / 2, 48, ReLU -> as `FastEncoder` goes on

    Takes two fifths longer (`tutelage bench distill`). Of where a ball four pixels wide is, of any colour on
    plates of any texture, it learns far more in as many gradient steps.

    Args:
        in_channels, height, width: of the images; at least 4 pixels either way.
    """

    LAYERS = ((16, 3, 2, 1), (32, 3, 2, 1), (48, 3, 2, 1))


class NatureCNN(Encoder):
    """The network of Mnih et al. 2015, "Human-level control through deep reinforcement learning", Methods.

    ::

        8x8 / 4, 32, ReLU -> 4x4 / 2, 64, ReLU -> 3x3 / 1, 64, ReLU -> flatten -> linear 512, ReLU

    There for four grey frames of 84 x 84.

    Args:
        in_channels, height, width: of the images; at least 36 pixels either way.

    Attributes:
        features: 512.

    Raises:
        ValueError: for images that are too small.
    """

    def __init__(self, in_channels: int, height: int, width: int) -> None:
        super().__init__()
        _check_size(self, height, width, 36)
        self.features = 512
        rows, columns = (
            _conv_size(_conv_size(_conv_size(size, 8, 4), 4, 2), 3, 1) for size in (height, width)
        )
        self.layers = nn.Sequential(
            PixelConv2d(in_channels, 32, 8, 4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * rows * columns, self.features),
            nn.ReLU(),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Features, ``(n, 512)``."""
        features: Tensor = self.layers(pixels)
        return features.float()


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(relu(x))))``, 3x3, of as many channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, 1, 1)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of the same shape."""
        hidden: Tensor = self.second(self.first(inputs.relu()).relu_())
        return inputs + hidden


class ImpalaEncoder(Encoder):
    """The large network of Espeholt et al. 2018, "IMPALA", figure 3, right, without its LSTM.

    ::

        3 times, of 16, 32, 32 channels: 3x3 / 1 -> max 3x3 / 2 -> 2 residual blocks; ReLU -> flatten
        -> linear 256, ReLU

    15 convolutions, the first on all pixels: sees details that a stem with strides passes over, and takes
    about fifteen times as long as `FastEncoder`.

    Args:
        in_channels, height, width: of the images.

    Attributes:
        features: 256.
    """

    def __init__(self, in_channels: int, height: int, width: int) -> None:
        super().__init__()
        _check_size(self, height, width, 1)
        self.features = 256
        layers: list[nn.Module] = []
        before, rows, columns = in_channels, height, width
        for channels in (16, 32, 32):
            convolution = nn.Conv2d if layers else PixelConv2d
            layers += [
                convolution(before, channels, 3, 1, 1),
                nn.MaxPool2d(3, 2, 1),
                ResidualBlock(channels),
                ResidualBlock(channels),
            ]
            before, rows, columns = channels, (rows + 1) // 2, (columns + 1) // 2
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
        self.output = nn.Linear(before * rows * columns, self.features)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features, ``(n, 256)``."""
        features: Tensor = self.output(self.layers(pixels))
        return features.relu().float()


class PointNet(Encoder):
    """Qi et al. 2017, "PointNet", section 4.2, on the points that a depth image shows.

    ::

        pixels -> points (x right, y up, z towards the camera, m) -> for each: linear 64, 128, 256, ReLU
        -> maximum over the points -> linear 128, ELU

    A set has no order, and neither has the maximum. Beside the paper's network this is a small one, without
    its learnt transforms of the input and without batch normalisation, as usual in reinforcement learning.
    Pixels without depth, and those at `depth_far`, are no points; without any, the features are those of
    zeros.

    Args:
        in_channels: 1, depth; or 4, RGB and then depth, where each point has its colour.
        height, width: of the images.
        fovy: the camera's vertical field of view, in degrees.
        depth_far: depth of the pixel 255, in metres.
        points: at most so many per image: every second row and column is used, or every third, and so on.

    Attributes:
        features: 128.

    Raises:
        ValueError: for other channels, or numbers out of range.
    """

    takes_bfloat16: ClassVar[bool] = False  # 8 bits of mantissa are 4 mm at 1 m
    rays: Tensor

    def __init__(
        self,
        in_channels: int,
        height: int,
        width: int,
        fovy: float = 45.0,
        depth_far: float = 3.0,
        points: int = 1024,
    ) -> None:
        super().__init__()
        if in_channels not in (1, 4):
            raise ValueError(
                f"PointNet takes one depth image, or RGB and depth of one camera, in this order and "
                f"without stacked frames: 1 or 4 channels, not {in_channels}"
            )
        if not 0 < fovy < 180 or not depth_far > 0 or points < 1:
            raise ValueError(
                "PointNet needs fovy from 0 to 180 degrees, depth_far above 0 and at least 1 point, not "
                f"{fovy:g}, {depth_far:g} and {points}"
            )
        self.features, self.depth_far = 128, depth_far
        self.every = math.ceil(math.sqrt(height * width / points))
        self.register_buffer("rays", camera_rays(height, width, fovy), persistent=False)
        self.each = nn.Sequential(
            *(nn.Linear(2 + in_channels, 64), nn.ReLU()),
            *(nn.Linear(64, 128), nn.ReLU()),
            *(nn.Linear(128, 256), nn.ReLU()),
        )
        self.output = nn.Linear(256, self.features)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features, ``(n, 128)``."""
        every = self.every
        pixels = pixels[:, :, ::every, ::every]
        depth = pixels[:, -1] * (self.depth_far / PIXEL_MAX)
        points = depth[..., None] * self.rays[::every, ::every]
        colours = pixels[:, :-1].permute(0, 2, 3, 1) / PIXEL_MAX - 0.5
        valid = (depth > 0) & (depth < self.depth_far * (1 - 1e-4))
        return self.encode_points(torch.cat([points, colours], -1).flatten(1, 2), valid.flatten(1))

    def encode_points(self, points: Tensor, valid: Tensor) -> Tensor:
        """Features of sets of points, independent of their order.

        Args:
            points: ``(n, p, 3)``, or with colours from -0.5 to 0.5 ``(n, p, 6)``.
            valid: which of them count, bool ``(n, p)``.
        """
        each = self.each(points) * valid[..., None]  # ReLU leaves nothing below 0
        features: Tensor = F.elu(self.output(each.amax(1)))
        return features


def camera_rays(height: int, width: int, fovy: float) -> Tensor:
    """Where the centres of a perspective camera's pixels are seen, at a depth of 1.

    Args:
        height, width: pixels, which are square.
        fovy: vertical field of view, in degrees.

    Returns:
        ``(height, width, 3)`` in MuJoCo's camera frame: x right, y up, z backwards, so always -1.
    """
    focal = height / 2 / math.tan(math.radians(fovy) / 2)  # pixels
    y = (height / 2 - 0.5 - torch.arange(height)) / focal
    x = (torch.arange(width) + 0.5 - width / 2) / focal
    return torch.stack(
        [x.expand(height, width), y[:, None].expand(height, width), -torch.ones(height, width)], -1
    )


ENCODERS: dict[str, type[Encoder]] = {
    "fast": FastEncoder,
    "fine": FineEncoder,
    "nature": NatureCNN,
    "impala": ImpalaEncoder,
    "points": PointNet,
}
"""Encoders by the names that `tutelage.students.vision.vision_student.VisionConfig` knows them by."""


def _conv_size(size: int, kernel: int, stride: int, padding: int = 0) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def _check_size(encoder: nn.Module, height: int, width: int, least: int) -> None:
    if min(height, width) < least:
        raise ValueError(
            f"{type(encoder).__name__} needs images of at least {least} x {least} pixels, not "
            f"{height} x {width}; render larger ones, or use another encoder"
        )

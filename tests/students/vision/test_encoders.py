"""Image encoders: their layers, what they see, and the threads that they use."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.students.torch_tools.threads import available_cores, torch_threads
from tutelage.students.vision.encoders import (
    ENCODERS,
    FastEncoder,
    FineEncoder,
    ImpalaEncoder,
    NatureCNN,
    PixelConv2d,
    PointNet,
    camera_rays,
    fast_bfloat16,
)


def pixels(n: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator).float()


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "channels"), [("fast", 3), ("fine", 6), ("nature", 4), ("impala", 3), ("points", 4)]
)
def test_contract(name: str, channels: int) -> None:
    """Shapes, rows that do not depend on one another, and a gradient for every parameter."""
    encoder = ENCODERS[name](channels, 44, 52)
    images = pixels(3, channels, 44, 52)
    features = encoder(images)
    assert features.shape == (3, encoder.features)
    assert features.dtype == torch.float32
    torch.testing.assert_close(encoder(images[1:2]), features[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        encoder(images.contiguous(memory_format=torch.channels_last)), features, rtol=1e-4, atol=1e-5
    )
    (features * torch.randn(features.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for parameter_name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_nature_cnn_is_that_of_the_paper() -> None:
    """84 -> (84 - 8) / 4 + 1 = 20 -> (20 - 4) / 2 + 1 = 9 -> 9 - 3 + 1 = 7."""
    encoder = NatureCNN(4, 84, 84)
    convolutions = (4 * 8 * 8 + 1) * 32 + (32 * 4 * 4 + 1) * 64 + (64 * 3 * 3 + 1) * 64
    assert parameters(encoder) == convolutions + (64 * 7 * 7 + 1) * 512


def test_impala_is_that_of_the_paper() -> None:
    """Each part: one convolution and two blocks of two; 64 -> 32 -> 16 -> 8, and 15 convolutions in all."""
    encoder = ImpalaEncoder(3, 64, 64)

    def part(before: int, channels: int) -> int:
        return (before * 9 + 1) * channels + 4 * (channels * 9 + 1) * channels

    assert parameters(encoder) == part(3, 16) + part(16, 32) + part(32, 32) + (32 * 8 * 8 + 1) * 256
    assert sum(isinstance(module, torch.nn.Conv2d) for module in encoder.modules()) == 15


def test_fast_encoder_sizes() -> None:
    """64 -> (64 - 4) / 4 + 1 = 16 -> (16 + 2 - 3) / 2 + 1 = 8."""
    encoder = FastEncoder(3, 64, 64)
    convolutions = (3 * 16 + 1) * 32 + (32 * 9 + 1) * 48
    assert parameters(encoder) == convolutions + (48 + 1) * 32 + (48 * 8 * 8 + 1) * 64


def test_fine_encoder_sizes() -> None:
    """64 -> 32 -> 16 -> 8, each (n + 2 - 3) / 2 + 1."""
    encoder = FineEncoder(6, 64, 64)
    convolutions = (6 * 9 + 1) * 16 + (16 * 9 + 1) * 32 + (32 * 9 + 1) * 48
    assert parameters(encoder) == convolutions + (48 + 1) * 32 + (48 * 8 * 8 + 1) * 64


def test_fast_encoder_tells_where() -> None:
    """A map that only the cell in row 1 and column 2 of 2 x 3 excites is at x = 1, y = 1."""
    encoder = FastEncoder(1, 16, 24)
    assert encoder.positions.tolist() == [[x, y] for y in (-1.0, 1.0) for x in (-1.0, 0.0, 1.0)]
    hidden = torch.zeros(1, 48, 2, 3)
    hidden[0, 0, 1, 2] = 1.0
    with torch.no_grad():
        for parameter in encoder.maps.parameters():
            parameter.zero_()
        encoder.maps.weight[0, 0] = 10.0
        encoder.convolutions = torch.nn.ModuleList()
        x, y, *others = encoder(hidden)[0, :64].tolist()
    assert (x, y) == pytest.approx((1.0, 1.0))
    assert others == pytest.approx([0.0] * 62, abs=1e-6)  # maps of one value have their mean in the middle


def test_scaled_weights_are_scaled_pixels() -> None:
    images = pixels(2, 3, 9, 9)
    convolution = PixelConv2d(3, 5, 3, 2, 1, centre=0.4)
    padded = F.pad(images, (1, 1, 1, 1))  # black
    expected = F.conv2d(padded / 255 - 0.4, convolution.weight, convolution.bias, 2)
    torch.testing.assert_close(convolution(images), expected)


@pytest.mark.parametrize(("encoder", "size"), [(FastEncoder, 3), (NatureCNN, 35)])
def test_small_images_are_refused(encoder: type, size: int) -> None:
    encoder(1, size + 1, size + 1)(torch.zeros(1, 1, size + 1, size + 1))
    with pytest.raises(ValueError, match=f"at least {size + 1} x {size + 1} pixels, not 99 x {size}"):
        encoder(1, 99, size)


def test_rays_by_hand() -> None:
    """At 90 degrees the image is as high as twice its depth: 4 pixels of 0.5 at 1 m."""
    rays = camera_rays(4, 2, 90.0)
    assert rays[0, 0].tolist() == pytest.approx([-0.25, 0.75, -1])
    assert rays[3, 1].tolist() == pytest.approx([0.25, -0.75, -1])
    high = camera_rays(2, 2, 2 * math.degrees(math.atan(0.1)))
    assert high[0, 1].tolist() == pytest.approx([0.05, 0.05, -1])


def test_point_net_makes_points() -> None:
    """Depth and colour of a pixel become one point, beside which those without depth count nothing."""
    encoder = PointNet(4, 2, 2, fovy=90.0, depth_far=2.0)
    image = torch.zeros(1, 4, 2, 2)
    image[0, 3] = 255.0  # far away
    image[0, :, 0, 1] = torch.tensor([255.0, 0.0, 127.5, 127.5])  # at 1 m
    point = torch.tensor([[[0.5, 0.5, -1.0, 0.5, -0.5, 0.0]]])
    torch.testing.assert_close(encoder(image), encoder.encode_points(point, torch.ones(1, 1).bool()))
    image[0, 3, 0, 1] = 0.0
    nothing = encoder.encode_points(point, torch.zeros(1, 1).bool())
    torch.testing.assert_close(encoder(image), nothing)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 40))
def test_point_net_ignores_order(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    encoder = PointNet(1, 8, 8)
    points = torch.randn(2, count, 3, generator=generator)
    valid = torch.rand(2, count, generator=generator) < 0.7
    order = torch.randperm(count, generator=generator)
    features = encoder.encode_points(points, valid)
    torch.testing.assert_close(encoder.encode_points(points[:, order], valid[:, order]), features)
    # Points that do not count may be anywhere.
    moved = torch.where(valid[..., None], points, 100.0)
    torch.testing.assert_close(encoder.encode_points(moved, valid), features)


def test_point_net_takes_every_other_pixel() -> None:
    """64 x 64 pixels are 1024 points: those of every second row and column."""
    encoder = PointNet(1, 64, 64)
    image = pixels(1, 1, 64, 64)
    changed = image.clone()
    changed[:, :, 1::2] = 1.0
    changed[:, :, :, 1::2] = 1.0
    torch.testing.assert_close(encoder(changed), encoder(image))
    with pytest.raises(ValueError, match="1 or 4 channels, not 3"):
        PointNet(3, 64, 64)
    with pytest.raises(ValueError, match="fovy from 0 to 180"):
        PointNet(1, 64, 64, fovy=180.0)


def test_bfloat16_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, fast in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)):
        fast_bfloat16.cache_clear()
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert fast_bfloat16("cpu") is fast
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    fast_bfloat16.cache_clear()
    assert fast_bfloat16("cpu") is False
    fast_bfloat16.cache_clear()


def test_threads_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.students.torch_tools.threads.available_cores", lambda: 2)
    before = torch.get_num_threads()
    for asked, used in ((1, 1), (2, 2), (7, 2), (0, 2)):
        with torch_threads(asked):
            assert torch.get_num_threads() == used
        assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="inside"), torch_threads(1):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="0 for all cores, not -1"), torch_threads(-1):
        pass
    assert available_cores() >= 1

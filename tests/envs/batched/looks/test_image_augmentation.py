"""Augmentations: the deterministic parts by hand, the random ones by their ranges and generators."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tutelage.envs.batched.looks.augmentation_kernel import augment as kernel
from tutelage.envs.batched.looks.image_augmentation import ImageAugmentation
from tutelage.envs.batched.looks.picture_operations import (
    LUMA,
    blur,
    colour_maps,
    cut_out,
    map_colours,
    shift,
)

EVERYTHING = ImageAugmentation.camera()
SINGLE = {
    "shift": 3,
    "blur": 1.5,
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.9,
    "hue": 0.3,
    "swap": 0.9,
    "noise": 20.0,
    "cutouts": 2,
}
SINGLE_DEPTH = {"shift": 3, "cutouts": 2, "depth_noise": 0.1, "depth_lost": 0.5, "depth_step": 0.1}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rgb(n: int = 40) -> torch.Tensor:
    return torch.randint(0, 256, (n, 12, 10, 3), dtype=torch.uint8, generator=generator(1))


def depth(n: int = 40) -> torch.Tensor:
    return 0.5 + torch.rand(n, 12, 10, generator=generator(2))


@pytest.mark.parametrize("images", [rgb(), depth()], ids=["rgb", "depth"])
def test_nothing_is_identity_on_a_copy(images):
    before = images.clone()
    after = ImageAugmentation()(images, generator())
    assert torch.equal(after, before)
    after += 1
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", SINGLE)
def test_each_step_of_rgb(name):
    images, augment = rgb(), ImageAugmentation(**{name: SINGLE[name]})
    before, after = images.clone(), augment(images, generator())
    assert torch.equal(images, before)
    assert after.dtype == torch.uint8
    assert after.shape == images.shape
    assert after.is_contiguous()
    changed = (after != images).flatten(1).float().mean(1)
    assert (changed > 0).float().mean() > 0.6  # of the images; a cut-out may fall between pixels
    assert torch.equal(after, augment(images, generator()))
    assert not torch.equal(after, augment(images, generator(1)))


@pytest.mark.parametrize("name", SINGLE_DEPTH)
def test_each_step_of_depth(name):
    images, augment = depth(), ImageAugmentation(**{name: SINGLE_DEPTH[name]})
    after = augment(images, generator())
    assert after.dtype == images.dtype
    assert after.shape == images.shape
    assert (after >= 0).all()
    assert not torch.equal(after, images)
    assert torch.equal(after, augment(images, generator()))
    if name != "depth_step":  # which is not random
        assert not torch.equal(after, augment(images, generator(1)))


def test_steps_of_one_kind_leave_the_other_alone():
    no_depth = replace(EVERYTHING, shift=0, cutouts=0, depth_noise=0.0, depth_lost=0.0, depth_step=0.0)
    assert torch.equal(no_depth(depth(), generator()), depth())
    no_rgb = ImageAugmentation(depth_noise=0.5, depth_lost=0.5, depth_step=0.1)
    assert torch.equal(no_rgb(rgb(), generator()), rgb())


def test_images_of_a_batch_differ():
    one = rgb(1)
    after = EVERYTHING(one.expand(20, -1, -1, -1), generator())
    assert len(after.flatten(1).unique(dim=0)) == 20


def test_global_random_state_is_not_touched():
    before = torch.get_rng_state()
    EVERYTHING(rgb(), generator())
    EVERYTHING(depth(), generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_shift_by_hand():
    image = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])[None, :, :, None].repeat(3, 1, 1, 1)
    moved = shift(image, torch.tensor([[0, 0], [1, 0], [-1, 2]]))[..., 0]
    assert moved[0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert moved[1].tolist() == [[4, 5, 6], [7, 8, 9], [7, 8, 9]]
    assert moved[2].tolist() == [[3, 3, 3], [3, 3, 3], [6, 6, 6]]


def test_shifts_are_all_those_up_to_the_amount():
    image = torch.arange(49.0).view(1, 7, 7).expand(2000, -1, -1)
    centres = ImageAugmentation(shift=2)(image, generator())[:, 3, 3]
    assert set(centres.long().tolist()) == {7 * y + x for y in range(1, 6) for x in range(1, 6)}


def test_blur_by_hand():
    spot = torch.zeros(2, 1, 5, 5)
    spot[:, :, 2, 2] = 1.0
    after = blur(spot, torch.tensor([0.0, 1.0]), radius=1)
    torch.testing.assert_close(after[0], spot[0])
    side = math.exp(-0.5) / (1 + 2 * math.exp(-0.5))
    middle = 1 - 2 * side
    row = torch.tensor([0.0, side, middle, side, 0.0])
    torch.testing.assert_close(after[1, 0], row[:, None] * row)
    flat = torch.full((1, 3, 6, 4), 7.0)
    torch.testing.assert_close(blur(flat, torch.tensor([2.0]), radius=5), flat)  # borders are repeated


def test_colours_by_hand():
    pixels = torch.tensor([[[10.0, 20.0], [40.0, 60.0], [90.0, 30.0]]]).view(1, 3, 1, 2)
    one, zero = torch.ones(1), torch.zeros(1)

    def jitter(*, b=one, c=one, s=one, h=zero):
        return map_colours(pixels, *colour_maps(b, c, s, h))

    luma = (pixels[0] * torch.tensor(LUMA).view(3, 1, 1)).sum(0)
    torch.testing.assert_close(jitter(), pixels)
    torch.testing.assert_close(jitter(b=one / 2), pixels / 2)
    torch.testing.assert_close(jitter(c=zero), luma.mean().expand(1, 3, 1, 2))
    torch.testing.assert_close(jitter(c=2 * one), 2 * pixels - luma.mean())
    torch.testing.assert_close(jitter(s=zero)[0], luma.expand(3, 1, 2))
    # A third of a turn makes red green, green blue, blue red.
    torch.testing.assert_close(jitter(h=one / 3), pixels.roll(1, 1))
    # Half a turn about the grey axis: twice the mean of the channels less each.
    torch.testing.assert_close(jitter(h=one / 2), 2 * pixels.mean(1, keepdim=True) - pixels)
    # All together: brightness, contrast, then saturation, then hue.
    darker = pixels / 2
    pale = luma.mean() / 2 + 0.5 * (darker - luma.mean() / 2)
    grey = (pale[0] * torch.tensor(LUMA).view(3, 1, 1)).sum(0)
    expected = (grey + 0.5 * (pale - grey)).roll(1, 1)
    torch.testing.assert_close(jitter(b=one / 2, c=one / 2, s=one / 2, h=one / 3), expected)


def test_cut_out_by_hand():
    planes = torch.arange(12.0).view(1, 1, 3, 4)
    after = cut_out(planes, torch.tensor([[0.6, 2.4, 1.0, 3.0]]), torch.tensor([[-1.0]]))
    # Rows with centres 0.5, 1.5, 2.5: the middle one; columns 1.5 and 2.5.
    assert after[0, 0].tolist() == [[0, 1, 2, 3], [4, -1, -1, 7], [8, 9, 10, 11]]
    empty = cut_out(planes, torch.tensor([[1.5, 1.5, 1.0, 3.0]]), torch.tensor([[-1.0]]))
    assert torch.equal(empty, planes)


def test_noise_has_the_deviation_asked_for():
    grey = torch.full((400, 32, 32, 3), 128, dtype=torch.uint8)
    after = ImageAugmentation(noise=20.0)(grey, generator()).float() - 128
    deviations = after.flatten(1).std(1)
    assert deviations.max() < 21
    # Uniform from 0 to 20 (and rounding, which adds 1 / 12 to the variance).
    assert deviations.mean() == pytest.approx(10, abs=1)
    assert after.mean().abs() < 0.1
    extremes = ImageAugmentation(noise=200.0)(grey, generator())
    assert (extremes.min(), extremes.max()) == (0, 255)


def test_depth_by_hand():
    images = torch.tensor([[[0.12, 0.19, math.inf]]])
    coarse = ImageAugmentation(depth_step=0.05)(images, generator())
    torch.testing.assert_close(coarse, torch.tensor([[[0.1, 0.2, math.inf]]]))
    noisy = ImageAugmentation(depth_noise=0.1)(images.expand(500, 1, 3), generator())
    assert noisy[..., 2].isinf().all()
    relative = noisy[:, 0, :2] / images[0, 0, :2] - 1
    # A standard deviation that is uniform in [0, 0.1]: variance 0.1 ** 2 / 3.
    assert relative.std() == pytest.approx(0.1 / math.sqrt(3), rel=0.1)
    lost = ImageAugmentation(depth_lost=0.4)(torch.ones(500, 20, 20), generator())
    shares = (lost == 0).flatten(1).float().mean(1)
    assert shares.mean() == pytest.approx(0.2, abs=0.02)
    assert shares.max() < 0.5
    assert set(lost.unique().tolist()) == {0.0, 1.0}


def test_what_is_infinitely_far_stays_so():
    """Also where noise as strong as that would put it behind the camera, whose factor is 0."""
    images = torch.full((200, 16, 16), math.inf)
    images[:, :, 8:] = 1.0
    after = ImageAugmentation(depth_noise=0.5, depth_step=0.01)(images, generator())
    assert after[:, :, :8].isinf().all()
    assert (after[:, :, 8:] == 0).any()
    assert (after[:, :, 8:] >= 0).all()
    assert after[:, :, 8:].isfinite().all()


def test_half_precision_depth():
    after = EVERYTHING(depth(4).half(), generator())
    assert after.dtype == torch.float16
    assert torch.isfinite(after).all()


def test_empty_batches():
    assert EVERYTHING(rgb(0), generator()).shape == (0, 12, 10, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "need RGB, uint8"),
        (torch.zeros(2, 8, 8, 3), "need RGB, uint8"),
        (torch.zeros(2, 8, 8, dtype=torch.int32), "int32"),
    ],
)
def test_wrong_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        EVERYTHING(images, generator())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise", -1.0),
        ("contrast", 1.5),
        ("shift", -2),
        ("depth_noise", 0.6),
        ("blur", math.inf),
    ],
)
def test_wrong_amounts_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        ImageAugmentation(**{name: value})


def test_one_pass_is_the_same_as_step_by_step():
    """On a CPU, without blur and noise, bytes are augmented by a kernel; elsewhere by tensor operations."""
    augment = ImageAugmentation(
        shift=5,
        brightness=0.5,
        contrast=0.5,
        saturation=0.8,
        hue=0.2,
        swap=0.5,
        cutouts=2,
        cutout_size=0.6,
    )
    for changes in ({}, {"cutouts": 0}, {"shift": 0}, {"shift": 30}):
        some = replace(augment, **changes)
        whole = some(rgb(), generator())
        n, height, width = rgb().shape[:3]
        steps = some._rgb(rgb(), some._draw(n, height, width, generator()), generator())
        difference = (whole.int() - steps.int()).abs()
        assert difference.max() <= 1  # rounded sums in another order
        assert (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize(
    "augment", [ImageAugmentation.unseen_looks(), replace(ImageAugmentation.camera(), noise=0.0)]
)
def test_images_of_one_number_are_augmented_alike(augment):
    """Two pictures three times each, 0 1 0 1 0 1: copies stay copies, the two get other looks."""
    pair = rgb()[:1].repeat(2, 1, 1, 1)
    found = augment(pair.repeat(3, 1, 1, 1), generator(), torch.tensor([0, 1, 0, 1, 0, 1])).unflatten(
        0, (3, 2)
    )
    assert (found == found[0]).all()
    assert (found[0, 0] != found[0, 1]).any()
    alone = augment(pair.repeat(3, 1, 1, 1), generator()).unflatten(0, (3, 2))
    assert (alone[1] != alone[0]).any()


def test_numbers_of_fewer_images_are_refused():
    with pytest.raises(ValueError, match=r"alike has shape \(2,\); it needs a number for each of 3 images"):
        EVERYTHING(rgb()[:1].repeat(3, 1, 1, 1), generator(), torch.tensor([0, 1]))


def test_depths_of_one_number_are_augmented_alike():
    """Shifts and cut-outs are the same; noise is not, as a sensor's differs from frame to frame."""
    depth = torch.rand(1, 16, 16, generator=generator()).repeat(4, 1, 1) + 0.5
    augment = ImageAugmentation(shift=3, cutouts=1, cutout_size=0.8)
    found = augment(depth, generator(), torch.tensor([1, 0, 1, 0]))
    assert (found[0] == found[2]).all()
    assert (found[1] == found[3]).all()
    assert (found[0] != found[1]).any()
    noisy = replace(augment, depth_noise=0.1)(depth, generator(), torch.tensor([1, 0, 1, 0]))
    assert (noisy[0] != noisy[2]).any()
    assert ((noisy[0] == 0) == (noisy[2] == 0)).all()


def test_swap_exchanges_green_and_blue():
    images = rgb()
    swapped = ImageAugmentation(swap=1.0)(images, generator())
    assert (swapped.int() - images[..., [0, 2, 1]].int()).abs().max() <= 1
    half = ImageAugmentation(swap=0.5)(images, generator())
    same = (half.int() - images.int()).abs().flatten(1).amax(1) <= 1
    assert 10 <= same.sum() <= 30  # of 40: binomial, beyond it once in 1,000


def test_kernel_fills_pixels_whose_centre_is_inside():
    """4 x 5 pixels: rows 1 and 2 have centres (1.5, 2.5) from 0.6 to 3.4, columns 3 and 4 beyond 2.5."""
    image, out = np.zeros((1, 4, 15), np.uint8), np.empty((1, 4, 15), np.uint8)
    box = np.array([[[0.6, 3.4, 2.5, 9.0]]], np.float32)
    colour = np.array([[[10.4, 20.6, 255.0]]], np.float32)
    same, no_lift, no_offset = (
        np.eye(3, dtype=np.float32)[None],
        np.zeros((1, 3), np.float32),
        np.zeros((1, 2), np.int64),
    )
    kernel(image, no_offset, same, no_lift, box, colour, out)
    expected = np.zeros((4, 5, 3), np.uint8)
    expected[1:3, 3:] = (10, 21, 255)
    np.testing.assert_array_equal(out[0].reshape(4, 5, 3), expected)

"""Saliency: on which places of its pictures a student's actions depend, by blurring them one by one.

Greydanus et al. 2018, "Visualizing and Understanding Atari Agents" (ICML), section 3: a picture I is mixed
with its blurred self A(I) under a Gaussian mask M around a pixel, ``Phi(I, i, j) = I (1 - M) + A(I) M``,
which takes away what can be seen there without adding edges; how much that moves the policy is the pixel's
saliency, ``S(i, j) = |pi(I) - pi(Phi(I, i, j))|^2 / 2``, here with the actions' means for pi.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from tutelage.envs.batched.looks.contact_sheet import contact_sheet, to_rgb

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.vision.student_state import StudentState
    from tutelage.students.vision.vision_student import VisionStudent

BLUR, MASK = 3 / 80, 5 / 80  # standard deviations, in shares of the height: the paper's 3 and 5 pixels of 80
STRIDE = 4  # pixels between places; the paper's is 5
_HEAT = (1.0, 0.1, 0.0)  # the colour of saliency


def perturbation_saliency(
    student: VisionStudent,
    obs_dict: Mapping[str, Tensor],
    state: StudentState,
    image: str,
    stride: int = STRIDE,
) -> Tensor:
    """How much the actions depend on each place of an image.

    Args:
        student: whose.
        obs_dict: of a task, ``n`` environments.
        state: of the student before this step.
        image: one of the student's images; in a stack, all frames are blurred in the same place.
        stride: pixels from place to place.

    Returns:
        S, float32 ``(n, height, width)``, on the CPU; what lies between places is interpolated.
    """
    config = student.config
    state = state.push(obs_dict)
    inputs = {name: obs_dict[name] for name in config.views if name in obs_dict}
    inputs |= state.frames
    clean = inputs[image].float()
    if inputs[image].dtype != torch.uint8:
        clean = torch.where(torch.isfinite(clean), clean, config.depth_far).clamp(max=config.depth_far)
        inputs[image] = clean
    colour = len(student.shapes[image]) == 3
    height, width = student.shapes[image][:2]
    blurred = _blur(clean, BLUR * height, colour)
    rows = torch.arange(stride // 2, height, stride)
    columns = torch.arange(stride // 2, width, stride)
    saliency = torch.zeros(len(clean), len(rows), len(columns))
    with torch.no_grad():
        before = student(inputs, state).mean
        for r, i in enumerate(rows.tolist()):
            for c, j in enumerate(columns.tolist()):
                mask = _mask(height, width, i, j, clean.device)
                mask = mask[..., None] if colour else mask
                mixed = clean * (1 - mask) + blurred * mask
                mixed = mixed.round().to(torch.uint8) if inputs[image].dtype == torch.uint8 else mixed
                after = student({**inputs, image: mixed}, state).mean
                saliency[:, r, c] = 0.5 * (after - before).square().sum(1).float().cpu()
    size = (height, width)
    return functional.interpolate(saliency[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def overlay(images: Tensor, saliency: Tensor) -> Tensor:
    """Images in grey with their saliency in red, each image by its own maximum.

    Args:
        images: any modality, see `to_rgb`, ``(n, height, width, ...)``.
        saliency: not negative, ``(n, height, width)``.

    Returns:
        RGB, uint8 ``(n, height, width, 3)``.
    """
    rgb = to_rgb(images).float() / 255
    grey = (rgb.mean(-1, keepdim=True) * 0.6 + 0.2).expand_as(rgb)
    heat = (saliency / saliency.amax((1, 2), keepdim=True).clamp(min=1e-12))[..., None]
    mixed = grey * (1 - heat) + torch.tensor(_HEAT) * heat
    return (255 * mixed).round().to(torch.uint8)


def saliency_sheet(task: VecTask, student: VisionStudent, steps: int = 10) -> NDArray[np.uint8]:
    """Images of a student after some steps of its own, and below each what its actions depend on."""
    obs_dict, state = task.reset(), student.start(task.num_envs)
    for _ in range(steps):
        actions, state = student.act(obs_dict, state)
        obs_dict, _, dones, _ = task.step(actions)
        state = state.reset(dones.bool())
    pictures, labels = [], []
    for name in student.config.images:
        saliency = perturbation_saliency(student, obs_dict, state, name)
        seen = to_rgb(obs_dict[name])
        pictures += [seen, overlay(obs_dict[name], saliency)]
        labels += [name, *[""] * (len(seen) - 1), "what actions depend on", *[""] * (len(seen) - 1)]
    return contact_sheet(pictures, task.num_envs, labels)


def _mask(height: int, width: int, row: int, column: int, device: torch.device) -> Tensor:
    """A Gaussian of height 1 around a pixel, ``(height, width)``."""
    y = torch.arange(height, device=device)[:, None] - row
    x = torch.arange(width, device=device)[None] - column
    return torch.exp(-(y.square() + x.square()) / (2 * (MASK * height) ** 2))


def _blur(images: Tensor, sigma: float, colour: bool) -> Tensor:
    """Images ``(..., height, width[, 3])`` blurred by a Gaussian, edges continued."""
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    flat = images.movedim(-1, -3) if colour else images
    planes = flat.reshape(-1, 1, *flat.shape[-2:])
    planes = functional.pad(planes, (radius,) * 4, mode="replicate")
    planes = functional.conv2d(planes, kernel.view(1, 1, -1, 1))
    planes = functional.conv2d(planes, kernel.view(1, 1, 1, -1))
    blurred = planes.view(flat.shape)
    return blurred.movedim(-3, -1) if colour else blurred

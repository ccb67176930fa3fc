"""Prediction of a view that the student does not see: it teaches an encoder where things are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.students.torch_tools.running_moments import update_moments

CLIP = 5.0
"""Standard deviations beyond which what is predicted counts as so far off."""


class Predictor(nn.Module):
    """Predicts a view of the task, normalised, from the inputs of a student's head; used in training alone.

    An expert's action says little of why: where it saturates, or where several things must be known at once,
    a student that knows none of them gets hardly a gradient towards any. What the expert acts on is known in
    training, so the student is asked for that too (an auxiliary task as of Jaderberg et al. 2017,
    "Reinforcement Learning with Unsupervised Auxiliary Tasks", here with privileged targets)::

        target = clip((view - mean) / deviation, -5, 5)
        loss = mean over the view of (layers(hidden) - target)^2

    Args:
        view: its name in ``obs_dict``.
        inputs: size of what the student's head sees.
        outputs: size of the view.
        hidden: width of the hidden layer.

    Attributes:
        mean, scale: of all that `observe` was given, ``(outputs,)``.
    """

    mean: Tensor
    scale: Tensor
    seen: Tensor

    def __init__(self, view: str, inputs: int, outputs: int, hidden: int = 128) -> None:
        super().__init__()
        self.view = view
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ELU(), nn.Linear(hidden, outputs))
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("scale", torch.ones(outputs))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, hidden: Tensor) -> Tensor:
        """The view, normalised, ``(n, outputs)``."""
        predicted: Tensor = self.layers(hidden)
        return predicted

    def observe(self, views: Tensor) -> None:
        """Update the mean and deviation of all views by some more, ``(n, outputs)``."""
        update_moments(self.mean, self.scale, self.seen, views)

    def losses(self, predicted: Tensor, view: Tensor) -> Tensor:
        """Mean squared error of each prediction, ``(...)``, of views ``(..., outputs)``."""
        target = ((view - self.mean) / self.scale).clamp(-CLIP, CLIP)
        return (predicted - target).square().mean(-1)

"""Memory and output of vision students."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class StudentState:
    """Memory of `n` students in their episodes; never changed in place.

    Attributes:
        frames: image -> the last ``config.frames`` of them, oldest first, ``(n, frames, *image)``; empty
            where students see single frames.
        memory: of the GRU, ``(n, config.memory)``.
        started: whether the next frame begins an episode, bool ``(n,)``; it then fills the stack.
    """

    frames: dict[str, Tensor]
    memory: Tensor
    started: Tensor

    def reset(self, dones: Tensor) -> StudentState:
        """Forget where an episode ended, bool ``(n,)``."""
        dones = dones.bool()
        memory = torch.where(dones[:, None], 0.0, self.memory)
        return StudentState(self.frames, memory, self.started | dones)

    def detach(self) -> StudentState:
        """Return the same state, where gradients stop: truncated back-propagation through time."""
        return dataclasses.replace(self, memory=self.memory.detach())

    def push(self, images: Mapping[str, Tensor]) -> StudentState:
        """Add the images of a step, ``(n, *image)`` each, as they are in ``obs_dict``."""
        frames = {}
        for name, stack in self.frames.items():
            n, depth = stack.shape[:2]
            rows = torch.arange(n * (depth + 1), device=stack.device).view(n, depth + 1)
            rows = torch.where(self.started[:, None], rows[:, -1:], rows[:, 1:])
            # Whole images by their row are moved several times as fast as they are chosen by a mask.
            kept = torch.cat([stack, images[name][:, None]], 1).flatten(0, 1)
            frames[name] = kept.index_select(0, rows.flatten()).view(stack.shape)
        return StudentState(frames, self.memory, torch.zeros_like(self.started))


class StudentOutput(NamedTuple):
    """Output of a student: its distribution of actions, its value, its next state.

    Attributes:
        mean: of the actions, before clipping, ``(n, a)``.
        std: standard deviations, ``(n, a)``; None of deterministic students.
        value: estimate of the return of the task's rewards, ``(n,)``; None without a critic, or where its
            view is not given.
        state: with the memory after this step.
        predicted: the view that the student predicts, normalised, ``(n, size)``; None of students that
            predict none, or where the view is not given.
    """

    mean: Tensor
    std: Tensor | None
    value: Tensor | None
    state: StudentState
    predicted: Tensor | None = None

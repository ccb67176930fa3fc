"""Which environments something happens to: a list of indices on the CPU, a mask on a GPU.

Picking out the finished environments by index costs a synchronisation with the host on a GPU; computing for
all of them under a mask costs a little arithmetic instead. A task written with `Rows` runs both ways.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Rows:
    """Some of the environments of a batch: `of_indices`, `of_mask`, or `all`.

    Attributes:
        n: how many rows the caller computes: as many as there are indices, or all under a mask.
        num_envs: environments of the whole batch.
        device: where the batch lives.

    Example:
        >>> speeds, chosen = torch.zeros(4), torch.tensor([False, True, True, False])
        >>> rows = Rows.of_indices(torch.tensor([1, 2]), num_envs=4)
        >>> rows.put(speeds, torch.tensor([5.0, 6.0]))
        >>> speeds
        tensor([0., 5., 6., 0.])
        >>> Rows.of_mask(chosen).put(speeds, torch.tensor([1.0, 2.0, 3.0, 4.0]))
        >>> speeds
        tensor([0., 2., 3., 0.])
    """

    def __init__(self, num_envs: int, indices: Tensor | None, mask: Tensor | None) -> None:
        source = mask if indices is None else indices
        if source is None:
            raise ValueError("rows need indices or a mask; use Rows.of_indices, Rows.of_mask or Rows.all")
        self._indices = indices
        self._mask = mask
        self.num_envs = num_envs
        self.n = num_envs if indices is None else len(indices)
        self.device = source.device

    @staticmethod
    def of_indices(indices: Tensor, num_envs: int) -> Rows:
        """Environments by index, int64, each at most once, in ascending order (any, for `take` alone)."""
        return Rows(num_envs, indices, None)

    @staticmethod
    def at(ids: NDArray[np.int64], num_envs: int, device: torch.device) -> Rows:
        """As `of_indices`, from an array on the host."""
        return Rows.of_indices(torch.from_numpy(ids).to(device), num_envs)

    @staticmethod
    def of_mask(mask: Tensor) -> Rows:
        """Environments where `mask`, bool of shape ``(num_envs,)``, is True; `n` is ``num_envs``."""
        return Rows(len(mask), None, mask)

    @staticmethod
    def all(num_envs: int, device: torch.device | str = "cpu") -> Rows:
        """Every environment."""
        return Rows(num_envs, torch.arange(num_envs, device=device), None)

    @property
    def masked(self) -> bool:
        """Whether values are computed for all environments, and those outside the mask thrown away."""
        return self._indices is None

    @cached_property
    def indices(self) -> Tensor:
        """Index of the environment that each computed row belongs to, int64, shape ``(n,)``."""
        if self._indices is None:
            return torch.arange(self.num_envs, device=self.device)
        return self._indices

    @cached_property
    def mask(self) -> Tensor:
        """True for the chosen environments, bool, shape ``(num_envs,)``."""
        if self._mask is None:
            mask = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
            mask.index_fill_(0, self.indices, True)
            return mask
        return self._mask

    def take(self, buffer: Tensor) -> Tensor:
        """Rows of a ``(num_envs, ...)`` buffer, shape ``(n, ...)``."""
        return buffer if self.masked else buffer[self.indices]

    def put(self, buffer: Tensor, values: Tensor | float) -> None:
        """Overwrite the chosen rows of a ``(num_envs, ...)`` buffer by ``(n, ...)`` values, or one number."""
        if not self.masked:
            if isinstance(values, Tensor):
                buffer[self.indices] = values.to(buffer.dtype)
            else:
                buffer.index_fill_(0, self.indices, values)
            return
        mask = self.mask.view(-1, *(1,) * (buffer.ndim - 1))
        if isinstance(values, Tensor):
            buffer.copy_(torch.where(mask, values.to(buffer.dtype), buffer))
        else:
            buffer.masked_fill_(mask, values)

"""Random numbers of a batch of environments in torch: one stream each, the same numbers on CPU and GPU.

The streams are those of `noise`: a number is a hash (SplitMix64) of the environment's key and
a position, so an episode depends on its seed alone, not on its neighbours, the batch, or the device (normal
numbers differ between devices in their last bits, as logarithms do).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.contract.noise import stream_keys


def _signed(constant: int) -> int:
    """The 64 bits of an unsigned constant as torch's signed integer."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_M1, _M2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's output function; products of 64-bit integers wrap around, as they must."""
    z = (z ^ _shift(z, 30)) * _M1
    z = (z ^ _shift(z, 27)) * _M2
    return z ^ _shift(z, 31)


class RandomStreams:
    """One stream of random numbers for each environment.

    A draw uses up numbers of the chosen environments alone, and gives the same whether they are chosen by
    index or by mask.

    Args:
        num_envs: how many.
        seed: environment *i* begins with the stream of this seed and *i*.
        device: where numbers are drawn.

    Attributes:
        keys: the streams, int64, shape ``(num_envs,)``.
        positions: how many numbers of each have been used, int64, shape ``(num_envs,)``.
    """

    def __init__(self, num_envs: int, seed: int, device: torch.device | str = "cpu") -> None:
        first = stream_keys([seed])
        keys = stream_keys([int(first[0]) + i for i in range(num_envs)])
        self.keys = torch.from_numpy(keys.view(np.int64).copy()).to(device)
        self.positions = torch.zeros(num_envs, dtype=torch.int64, device=device)

    def seed(self, rows: Rows, seeds: Sequence[int]) -> None:
        """Start the streams of these environments anew, each from its own seed.

        Raises:
            ValueError: when there are not as many seeds as rows.
        """
        if len(seeds) != rows.n:
            raise ValueError(f"{rows.n} environments were given {len(seeds)} seeds")
        keys = torch.from_numpy(stream_keys(seeds).view(np.int64).copy())
        rows.put(self.keys, keys.to(self.keys.device))
        rows.put(self.positions, 0)

    def uniform(self, rows: Rows, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers from low to high, float32, shape ``(rows.n, count)``; high only by rounding."""
        # 24 bits: all that a float32 in [0, 1) holds
        unit = _shift(self._outputs(rows, count), 40).to(torch.float32) * 2.0**-24
        return low + (high - low) * unit

    def uniform64(self, rows: Rows, count: int) -> Tensor:
        """Uniform numbers in [0, 1), float64, shape ``(rows.n, count)``: what tasks are drawn from."""
        return _shift(self._outputs(rows, count), 11).to(torch.float64) * 2.0**-53

    def normal(self, rows: Rows, count: int) -> Tensor:
        """Standard normal numbers (Box and Muller 1958), float32, shape ``(rows.n, count)``."""
        pairs = (count + 1) // 2
        u = self.uniform(rows, 2 * pairs)
        radius = torch.sqrt(-2.0 * torch.log1p(-u[:, :pairs]))
        angle = (2 * math.pi) * u[:, pairs:]
        return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :count]

    def _outputs(self, rows: Rows, count: int) -> Tensor:
        """The next `count` outputs of each stream; those are then used up."""
        first = rows.take(self.positions)
        numbers = first[:, None] + torch.arange(1, count + 1, device=first.device)
        rows.put(self.positions, first + count)
        return _mix(rows.take(self.keys)[:, None] + numbers * _GOLDEN)

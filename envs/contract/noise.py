"""Random numbers of many episodes at once, each from its own stream, addressed by position.

A generator object for each environment would have to be called once for each; one generator for all would
make an episode depend on its neighbours. Here a stream is one 64-bit key, and its i-th number a hash of key
and i: SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"). The numbers
are the same on every machine and in every batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
"""Starts of streams, shape ``(n,)``."""

_GOLDEN, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
_QUARTERS = (np.arange(4, dtype=np.uint64) * np.uint64(16))[:, None, None]


def _mix(z: Keys) -> Keys:
    """SplitMix64's output function, in place."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def _outputs(keys: Keys, first: Keys | int, count: int) -> Keys:
    """Numbers `first` to ``first + count - 1`` of each stream, shape ``(count, n)``."""
    begin = keys + np.asarray(first, dtype=np.uint64) * np.uint64(_GOLDEN)
    return _mix(begin + (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN))[:, None])


@cache
def _normal_quantiles() -> NDArray[np.float64]:
    """The normal distribution as 65,536 equally likely values; standard deviation 0.99999, ends at 4.32."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / 65536) for i in range(65536)])


def stream_keys(seeds: Iterable[int]) -> Keys:
    """Streams that belong to integer seeds; neighbouring seeds give unrelated streams."""
    return _mix(np.array([(seed + _GOLDEN) & _MASK for seed in seeds], dtype=np.uint64))


def next_keys(keys: Keys) -> Keys:
    """Streams that follow the given ones: what the next episode of the same environment uses."""
    return _mix(keys ^ np.uint64(0xD6E8FEB86659FD93))


def uniforms(keys: Keys, first: Keys | int, count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), shape ``(count, n)``, from outputs `first` to ``first + count - 1``."""
    return np.asarray((_outputs(keys, first, count) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def normals(keys: Keys, first: Keys | int, count: int) -> NDArray[np.float64]:
    """Standard normal numbers, four of each output, shape ``(4 * count, n)``.

    Each is a quantile chosen by 16 bits: no transcendental function, so it is fast and the same everywhere.
    """
    places = (_outputs(keys, first, count) >> _QUARTERS) & np.uint64(0xFFFF)
    return _normal_quantiles().take(places.view(np.int64), mode="clip").reshape(4 * count, -1)

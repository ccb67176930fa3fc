"""Kernels that several processes use are compiled before they start."""

from typing import Any

import pytest

from tutelage.students.vision import opponent_kernel
from tutelage.students.vision.warm_up import compile_kernels


def test_the_kernel_of_opponent_colours_is_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    join = opponent_kernel.join_with_opponents

    def spy(pictures: Any, first: int, out: Any) -> None:
        shapes.append(pictures.shape)
        join(pictures, first, out)

    monkeypatch.setattr(opponent_kernel, "join_with_opponents", spy)
    compile_kernels()
    assert shapes == [(1, 16 * 16, 3)]

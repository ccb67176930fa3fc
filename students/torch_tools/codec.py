"""State trees with tensors as JSON: tensors go into a safetensors file, and their names stand for them.

Optimisers number their parameters and JSON's own keys are strings, so mappings become lists of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def encode(node: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """A tree as JSON; its tensors and arrays are put into `tensors`, on the CPU and by value.

    Args:
        node: nested mappings, lists and tuples of tensors, arrays, numbers, strings, None.
        where: its name; tensors are named by their paths, ``policy/action_net.weight``.
        tensors: what is to be saved beside the JSON text.

    Raises:
        TypeError: for a leaf of another type.
    """
    if isinstance(node, Tensor | np.ndarray):
        kind = "tensor" if isinstance(node, Tensor) else "array"
        tensor = node.detach() if isinstance(node, Tensor) else torch.from_numpy(np.array(node))
        tensors[where] = tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {kind: where}
    if isinstance(node, Mapping):
        return {"dict": [[key, encode(value, f"{where}/{key}", tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return [encode(value, f"{where}/{i}", tensors) for i, value in enumerate(node)]
    if isinstance(node, np.generic):
        return node.item()
    if node is None or isinstance(node, bool | int | float | str):
        return node
    raise TypeError(
        f"state entry {where!r} is a {type(node).__name__}; save tensors, arrays, numbers, strings, dicts, "
        "lists"
    )


def decode(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that `encode` was given, with tensors of its own; also of students of earlier versions."""
    if isinstance(node, list):
        return [decode(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    [(kind, value)] = node.items()
    if kind in ("dict", "items"):
        return {key: decode(inner, tensors) for key, inner in value}
    if kind in ("list", "value"):  # of earlier versions
        return decode(value, tensors) if kind == "list" else value
    tensor = tensors[value].clone()  # no view of a file that the next checkpoint deletes
    return tensor if kind == "tensor" else tensor.numpy()

"""The task space of LiftObject: which object lies where; with features by which tasks can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tutelage.envs.batched.worlds.object_families import ObjectMaker, family_indices
from tutelage.envs.contract.tasks import BoxTasks


class ObjectTasks(BoxTasks):
    """Objects of some families, and how they lie; see `tutelage.envs.batched.worlds.lift_object.LiftObject`.

    Args:
        families: names of `FAMILIES`; the whole part of the parameter
            ``family`` is the position in them.

    Raises:
        ValueError: when there is no such family, or none at all.

    Example:
        >>> space = ObjectTasks(("box", "mug"))
        >>> tasks = space.sample(np.random.default_rng(0), 3)
        >>> space.features(tasks).shape
        (3, 21)
    """

    def __init__(self, families: Sequence[str]) -> None:
        self.family_indices = family_indices(families)
        self.families = tuple(families)
        super().__init__(
            {
                "family": (0.0, float(len(families))),
                "scale": (0.014, 0.022),
                "aspect": (0.0, 1.0),
                "mass": (0.05, 0.25),
                "friction": (0.5, 1.2),
                "x": (-0.06, 0.06),
                "y": (-0.06, 0.06),
                "yaw": (-math.pi / 2, math.pi / 2),
            }
        )

    def features(self, tasks: ArrayLike) -> NDArray[np.float64]:
        """Geometry and pose of the objects, ``(n, 21)``: what tells similar tasks from different ones.

        The 13 features of the shape (`FEATURES`), the place and width
        of the grasp (4), x, y, cosine and sine of yaw; in metres where they are lengths. The same object has
        the same features whatever families the space has, so training and held-out tasks can be compared.
        """
        columns = dict(zip(self.names, np.asarray(tasks, dtype=np.float64).T, strict=True))
        position = np.floor(columns["family"]).astype(np.int64).clip(max=len(self.families) - 1)
        family = torch.from_numpy(np.array(self.family_indices)[position])
        scale, aspect = (torch.from_numpy(columns[name].astype(np.float32)) for name in ("scale", "aspect"))
        made = _maker().make(family, scale, aspect)
        shape = torch.cat([made.features, made.grasp, made.grasp_width[:, None]], 1).numpy()
        yaw = columns["yaw"]
        return np.column_stack([shape, columns["x"], columns["y"], np.cos(yaw), np.sin(yaw)])

    def to_json(self) -> dict[str, Any]:
        """Describe the space by JSON values."""
        return {**super().to_json(), "families": list(self.families)}


@cache
def _maker() -> ObjectMaker:
    return ObjectMaker()

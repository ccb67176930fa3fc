"""The batched tasks that can be named: on the command line, in experiments, in benchmarks."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.envs.batched.vec_task import VecTask

VEC_TASKS = {
    "stump-walker": "tutelage.envs.batched.stump_walker:StumpWalker",
    "quadruped-terrain": "tutelage.envs.batched.quadruped_terrain:QuadrupedTerrain",
    "reach": "tutelage.envs.batched.reach:Reach",
    "push-cube": "tutelage.envs.batched.push_cube:PushCube",
    "lift-object": "tutelage.envs.batched.lift_object:LiftObject",
    "ball-balance": "tutelage.envs.batched.ball_balance:BallBalance",
}
"""Name -> ``module:Class``."""


def vec_task_class(name: str) -> type[VecTask]:
    """The class of a task by its name, or of a user's by ``module:Class``.

    Raises:
        ValueError: when there is none; suggests the nearest name.
    """
    path = VEC_TASKS.get(name, name)
    module, separator, cls = path.partition(":")
    if not separator:
        near = difflib.get_close_matches(name, VEC_TASKS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown batched task {name!r}{hint} (known: {', '.join(VEC_TASKS)}; or module:Class)"
        )
    try:
        found: type[VecTask] = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"batched task {name!r} cannot be imported: {error}") from error
    return found


def make_vec_task(name: str, num_envs: int, **options: Any) -> VecTask:
    """Make a batched task by name; `options` go to its constructor (see `VecTask`).

    Raises:
        ValueError: when there is no such task, or an option does not fit.
    """
    return vec_task_class(name)(num_envs, **options)

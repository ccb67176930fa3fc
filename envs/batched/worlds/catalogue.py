"""The batched tasks that can be named: on the command line, in experiments, in benchmarks."""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask

VEC_TASKS = {
    "stump-walker": "tutelage.envs.batched.worlds.stump_walker:StumpWalker",
    "quadruped-terrain": "tutelage.envs.batched.worlds.quadruped_terrain:QuadrupedTerrain",
    "reach": "tutelage.envs.batched.worlds.reach:Reach",
    "push-cube": "tutelage.envs.batched.worlds.push_cube:PushCube",
    "lift-object": "tutelage.envs.batched.worlds.lift_object:LiftObject",
    "ball-balance": "tutelage.envs.batched.worlds.ball_balance:BallBalance",
}
"""Name -> ``module:Class``."""


def vec_task_class(name: str) -> type[VecTask]:
    """The class of a task by its name, or of a user's by ``module:Class``.

    Raises:
        ValueError: when there is none, or it is no `VecTask`; suggests the nearest name.
    """
    from tutelage.envs.batched.task.vec_task import VecTask

    path = VEC_TASKS.get(name, name)
    module, separator, cls = path.partition(":")
    if not separator:
        near = difflib.get_close_matches(name, VEC_TASKS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown batched task {name!r}{hint} (known: {', '.join(VEC_TASKS)}; or module:Class)"
        )
    try:
        found = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"batched task {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, VecTask)):
        raise ValueError(f"{name!r} is no batched task: {cls} is not a subclass of VecTask")
    return found


def make_vec_task(name: str, num_envs: int, **options: Any) -> VecTask:
    """Make a batched task by name; `options` go to its constructor (see `VecTask`).

    Raises:
        ValueError: when there is no such task, or no such option (suggests the nearest), or an option does
            not fit.
    """
    from tutelage.envs.batched.task.task_checks import unknown

    found = vec_task_class(name)
    known = _options(found)
    for option in options:
        if option not in known:
            raise unknown(f"{found.__name__} has no option", option, known)
    return found(num_envs, **options)


def _options(task: type[VecTask]) -> list[str]:
    """Names of what a task's constructor takes, and those that it hands on to, beside `num_envs`."""
    names: list[str] = []
    for base in task.__mro__:
        if "__init__" in vars(base):
            _, *parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            variadic = [p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
            names += [p.name for p in parameters if p not in variadic and p.name != "num_envs"]
            if not any(p.kind is p.VAR_KEYWORD for p in variadic):
                break
    return list(dict.fromkeys(names))

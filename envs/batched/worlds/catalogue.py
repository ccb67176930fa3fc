"""The batched tasks that can be named: on the command line, in experiments, in benchmarks."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from tutelage.envs.contract.names import load_object, unknown_name
from tutelage.envs.contract.recipe import WorldRecipe, recipe_of

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
    if ":" not in name and name not in VEC_TASKS:
        raise ValueError(unknown_name("batched task", name, VEC_TASKS, "module:Class of your own"))
    found = load_object(VEC_TASKS.get(name, name), "batched task")
    if not is_vec_task(found):
        raise ValueError(f"{name!r} is no batched task: it is not a subclass of VecTask")
    cls: type[VecTask] = found
    return cls


def is_vec_task(world: object) -> bool:
    """Whether this is the class of a batched task."""
    from tutelage.envs.batched.task.vec_task import VecTask

    return isinstance(world, type) and issubclass(world, VecTask)


def vec_task_recipe(name: str) -> WorldRecipe:
    """The recipe of a batched task, by its name or ``module:Class``.

    Raises:
        ValueError: when there is no such task, or it has no recipe.
    """
    return recipe_of(vec_task_class(name), name)


def make_vec_task(name: str, num_envs: int, **options: Any) -> VecTask:
    """Make a batched task by name; `options` go to its constructor (see `VecTask`).

    Raises:
        ValueError: when there is no such task, or no such option (suggests the nearest), or an option does
            not fit.
    """
    found = vec_task_class(name)
    known = _options(found)
    for option in options:
        if option not in known:
            raise ValueError(unknown_name(f"{found.__name__} option", option, known))
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

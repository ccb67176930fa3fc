"""Environments and task teachers by name, and how experiments make them.

An environment's card (`card`) is made of what it tells of itself: its ``task_space`` and its ``recipe``. A
user's Gymnasium environment may have ``task_knowledge`` and ``test_tasks()`` instead of a recipe, or neither.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.envs.batched.worlds.catalogue import is_vec_task
from tutelage.envs.catalogue import USERS_OWN, find_world
from tutelage.envs.contract.names import load_object, unknown_name
from tutelage.envs.contract.recipe import WorldRecipe, recipe_of
from tutelage.envs.contract.tasks import BoxSpace, Tasks, TaskSpace, missing_members, unit_grid
from tutelage.experiments.worlds.card import TaskEnvCard
from tutelage.teachers import TASK_TEACHERS, make_task_teacher, needs_knowledge

if TYPE_CHECKING:
    import gymnasium as gym
    from stable_baselines3.common.vec_env import VecEnv

    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.envs.contract.interface import TaskTeacher
    from tutelage.envs.contract.vector import BatchedTaskVecEnv

EVALUATED_AT_ONCE = 25  # environments that an evaluation steps side by side, where they are not batched


def task_env_card(name: str) -> TaskEnvCard:
    """The card of an environment: ours by its name, a user's by ``module:Class`` or ``module:factory``.

    A `VecTask` is natively batched. A Gymnasium environment is too if its class has ``make_batch``, a class
    method of the number of environments and the constructor's options.

    Raises:
        ValueError: when there is no such environment, it cannot be made, has no task space, or is a batched
            task without a recipe.
    """
    world, options = find_world(name)
    if is_vec_task(world):
        return _batched_card(name, world)
    takes_render_mode = "render_mode" in inspect.signature(world).parameters

    def make(render_mode: str | None) -> gym.Env[Any, Any]:
        drawn = {"render_mode": render_mode} if takes_render_mode else {}
        try:
            made: gym.Env[Any, Any] = world(**options, **drawn)
        except Exception as error:
            raise ValueError(
                f"environment {name!r} cannot be made: {type(error).__name__}: {error}"
            ) from error
        return made

    env = make(None)
    try:
        space: TaskSpace = env.get_wrapper_attr("task_space")
    except AttributeError:
        raise ValueError(
            f"environment {name!r} has no `task_space`; see tutelage.envs.check_task_env"
        ) from None
    if lacking := missing_members(space, TaskSpace):
        raise ValueError(
            f"the task space of {name!r}, a {type(space).__name__}, lacks {', '.join(lacking)}; use BoxTasks "
            "or DiscreteTasks of tutelage.envs, or inherit from its TaskSpace or LevelSpace"
        )
    bare = env.unwrapped
    if hasattr(bare, "recipe"):
        recipe = recipe_of(bare, name)
    else:
        recipe = replace(USERS_OWN, knowledge=getattr(bare, "task_knowledge", None))
    # Of the class itself: an inherited one would make environments of the class above.
    batched = world.make_batch if "make_batch" in vars(world) else None
    renders = takes_render_mode and "rgb_array" in env.metadata.get("render_modes", ())
    env.close()
    return TaskEnvCard(
        name=name,
        recipe=recipe,
        make=make,
        tests=partial(_test_sets, name, recipe),
        make_batch=None if batched is None else partial(batched, **options),
        renders=renders,
        options=options,
    )


def _batched_card(name: str, cls: type[VecTask]) -> TaskEnvCard:
    """The card of a batched task; each cell runs it on one thread of its own."""

    def make(render_mode: str | None) -> gym.Env[Any, Any]:
        from tutelage.envs.batched.adaptors.gymnasium_env import SingleVecTask

        return SingleVecTask(cls(1, threads=1), render_mode=render_mode)

    def make_batch(n: int) -> BatchedTaskVecEnv:
        from tutelage.envs.batched.adaptors.sb3 import SB3VecTask

        return SB3VecTask(cls(n, threads=1))

    recipe = recipe_of(cls, name)
    return TaskEnvCard(name, recipe, make, partial(_test_sets, name, recipe), make_batch)


def _test_sets(name: str, recipe: WorldRecipe, env: Any) -> dict[str, Tasks]:
    """The test sets of an environment: its recipe's, its own, or such as suit its task space."""
    space: TaskSpace = env.task_space
    if recipe.test_sets:
        return {
            label: space.check(tasks(env), source=f"the test set {label!r} of {name}")
            for label, tasks in recipe.test_sets.items()
        }
    own_tests = getattr(env, "test_tasks", None)
    if own_tests is not None:
        return {"own": space.check(own_tests(), source=f"test_tasks() of {name}")}
    if isinstance(space, BoxSpace) and space.dim <= 2:
        return {"grid": space.from_unit(unit_grid(10, space.dim))}
    if space.shape == () and len(space.axes) == 1 and space.axes[0].whole:
        return {"all": np.arange(np.ceil(space.axes[0].low), space.axes[0].high).astype(space.dtype)}
    return {"uniform": space.sample(np.random.default_rng(0), 100)}


def build_task_teacher(
    name: str,
    card: TaskEnvCard,
    space: TaskSpace,
    rng: np.random.Generator,
    overrides: Mapping[str, Any] | None = None,
) -> TaskTeacher:
    """Build a task teacher for an environment, with its expert knowledge where the method needs some.

    Args:
        name: of `tutelage.teachers.TASK_TEACHERS`, or ``module:Class`` of a user, built of ``(space, rng)``.
        card: the environment.
        space: its task space.
        rng: decides everything random.
        overrides: config fields that differ from the defaults; keyword arguments of a user's class.

    Raises:
        ValueError: when there is no such task teacher, or it needs knowledge that there is not.
        TypeError: when there is no such config field, or it cannot propose from such a task space.
    """
    overrides = dict(overrides or {})
    if ":" in name:
        return _users_task_teacher(name, space, rng, overrides)
    if name not in TASK_TEACHERS:
        raise ValueError(unknown_name("task teacher", name, TASK_TEACHERS, "module:Class of your own"))
    _, config_class = TASK_TEACHERS[name]
    if not needs_knowledge(name):
        return make_task_teacher(name, space, rng, config_class(**overrides))
    if card.knowledge is None:
        raise ValueError(
            f"the task teacher {name!r} needs expert knowledge, and {card.name} offers none: give the "
            "environment a recipe with `knowledge` (tutelage.envs.TaskKnowledge)"
        )
    return make_task_teacher(
        name, space, rng, replace(config_class.for_environment(card.knowledge), **overrides)
    )


def _users_task_teacher(
    name: str, space: TaskSpace, rng: np.random.Generator, overrides: Mapping[str, Any]
) -> TaskTeacher:
    cls = load_object(name, "task teacher")
    needed = ("propose", "observe", "metrics", "state_dict", "load_state_dict")
    missing = [method for method in needed if not callable(getattr(cls, method, None))]
    if missing:
        raise ValueError(f"task teacher {name!r} lacks {', '.join(missing)}; see tutelage.envs.TaskTeacher")
    try:
        made: TaskTeacher = cls(space, rng, **overrides)
    except Exception as error:
        raise ValueError(f"task teacher {name!r} cannot be built: {type(error).__name__}: {error}") from error
    return made


def make_venv(card: TaskEnvCard, n_envs: int, workers: bool = False) -> VecEnv:
    """Make `n_envs` training environments: batched where there is such a thing, else one after the other.

    With `workers`, each runs in a process of its own, with one task queued ahead.
    """
    if card.make_batch is not None and not workers:
        return card.make_batch(n_envs)
    if workers:
        from stable_baselines3.common.vec_env import SubprocVecEnv

        from tutelage.envs.teaching.taught import TaskQueue

        return SubprocVecEnv([lambda: TaskQueue(card.make(None)) for _ in range(n_envs)])
    from tutelage.envs.contract.vector import GymTaskVecEnv

    return GymTaskVecEnv([lambda: card.make(None) for _ in range(n_envs)])


def make_eval_venv(card: TaskEnvCard) -> BatchedTaskVecEnv:
    """Make the environments of evaluations, apart from those of the training."""
    n = max(len(tasks) for tasks in card.test_sets().values())
    if card.make_batch is not None:
        return card.make_batch(n)
    venv = make_venv(card, min(n, EVALUATED_AT_ONCE))
    return venv  # type: ignore[return-value]  # not batched, so a GymTaskVecEnv

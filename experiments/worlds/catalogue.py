"""Environments and task teachers by name, and how experiments make them.

A user's environment is named ``module:factory`` and gets a card (`card`) made from what
it tells of itself: its ``task_space``, and where it has them ``task_knowledge`` and ``test_tasks()``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.envs.contract.tasks import BoxSpace, Tasks, TaskSpace, missing_members, unit_grid
from tutelage.experiments.worlds.card import TASK_ENVS, TaskEnvCard
from tutelage.students.sb3.config import load_object
from tutelage.teachers import TASK_TEACHERS, make_task_teacher, needs_knowledge

if TYPE_CHECKING:
    import gymnasium as gym
    from stable_baselines3.common.vec_env import VecEnv

    from tutelage.envs.contract.interface import TaskTeacher
    from tutelage.envs.contract.vector import BatchedTaskVecEnv

EVALUATED_AT_ONCE = 25  # environments that an evaluation steps side by side, where they are not batched


def nearest_name(what: str, name: str, known: Mapping[str, Any]) -> str:
    """Return `name` if it is known.

    Raises:
        ValueError: when it is not; suggests the nearest and lists all.
    """
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {what} {name!r}{hint} (known: {', '.join(known)}; or module:name of your own)")


def task_env_card(name: str) -> TaskEnvCard:
    """Find the card of an environment, or make one for ``module:factory``.

    Raises:
        ValueError: when there is no such environment, or a user's has no task space.
    """
    if ":" not in name:
        return TASK_ENVS[nearest_name("environment", name, TASK_ENVS)]()
    factory = load_object(name, "environment")
    takes_render_mode = "render_mode" in inspect.signature(factory).parameters

    def make(render_mode: str | None) -> gym.Env[Any, Any]:
        try:
            made: gym.Env[Any, Any] = factory(render_mode=render_mode) if takes_render_mode else factory()
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
    knowledge = getattr(env.unwrapped, "task_knowledge", None)
    own_tests = getattr(env.unwrapped, "test_tasks", None)
    renders = takes_render_mode and "rgb_array" in env.metadata.get("render_modes", ())
    env.close()

    def test_sets() -> dict[str, Tasks]:
        if own_tests is not None:
            return {"own": space.check(own_tests(), source=f"test_tasks() of {name}")}
        if isinstance(space, BoxSpace) and space.dim <= 2:
            return {"grid": space.from_unit(unit_grid(10, space.dim))}
        if space.shape == () and len(space.axes) == 1 and space.axes[0].whole:
            return {"all": np.arange(np.ceil(space.axes[0].low), space.axes[0].high).astype(space.dtype)}
        return {"uniform": space.sample(np.random.default_rng(0), 100)}

    return TaskEnvCard(
        name=name,
        env_id=name,
        summary="your own",
        mastered="info['success'] at the end of the episode",
        make=make,
        test_sets=test_sets,
        picture_test_set=next(iter(test_sets())),
        knowledge=knowledge,
        return_range=knowledge.return_range if knowledge else None,
        renders=renders,
    )


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
    _, config_class = TASK_TEACHERS[nearest_name("task teacher", name, TASK_TEACHERS)]
    if not needs_knowledge(name):
        return make_task_teacher(name, space, rng, config_class(**overrides))
    if card.knowledge is None:
        raise ValueError(
            f"the task teacher {name!r} needs expert knowledge, and {card.name} offers none: give the "
            "environment an attribute `task_knowledge` (tutelage.teachers.TaskKnowledge)"
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

        from tutelage.envs.contract.taught import TaskQueue

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

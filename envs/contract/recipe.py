"""What a world's author knows of it: numbers for students and commands, and knowledge of its tasks.

A world is an environment class: a `VecTask`, or a Gymnasium environment with a task space. It carries a
`WorldRecipe` as its class attribute ``recipe``, so that one file is all that a new world needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tutelage.envs.contract.tasks import BoxTasks, Tasks


@dataclass(frozen=True)
class TaskKnowledge:
    """Expert knowledge about the tasks of one environment, in the task box's own units.

    Which task teacher uses what: ADR `easy_task`, `mastered_return`, `return_range`; Oracle `easy_task`,
    `target_mean` (for the direction between them) and `mastered_return`; TargetOnly `target_mean` and
    `target_std`. The others need none of it.

    Attributes:
        easy_task: a task that an untrained student can begin to learn on, d values.
        easy_std: spread of the easy tasks around it, d values.
        target_mean: centre of the tasks that matter in the end, d values.
        target_std: spread of them, d values.
        mastered_return: return from which a task counts as mastered.
        return_range: lowest and highest return to be expected.
    """

    easy_task: tuple[float, ...]
    easy_std: tuple[float, ...]
    target_mean: tuple[float, ...]
    target_std: tuple[float, ...]
    mastered_return: float
    return_range: tuple[float, float]


@dataclass(frozen=True)
class WorldRecipe:
    """What commands need to know of a world beside the environment itself.

    Fields that have no default that suits every world are None by default, and a command that needs one says
    so (`needed`).

    Attributes:
        summary: the world in one line.
        mastered: what counts as mastering a task, in words.
        gymnasium_id: the id under which Gymnasium knows the world, if any.
        knowledge: expert knowledge for the task teachers that need some, or a function of the environment
            that returns it, where it depends on the environment's options.
        return_range: nominal range of returns, for the axes of plots; default: that of `knowledge`.
        test_sets: name -> function of the environment that returns fixed test tasks; task teachers are
            compared on the first. Default: the environment's ``test_tasks()``, if it has that; else a grid of
            10 by 10, all tasks of a discrete space, or 100 tasks drawn uniformly.
        picture_test_set: which of them the mastery pictures show; default: the first.
        students: name -> fields of `tutelage.students.sb3.config.StudentConfig` that suit this world; other
            students get the general settings of `tutelage.students.sb3.presets`.
        quick_steps: steps of ``tutelage compare --preset quick``. A world that has them is compared with that
            preset unless the user says otherwise; others with ``standard``.
        quick_task_teachers: the task teachers of that preset, name -> fields that differ from their defaults;
            the first is the baseline. Default: random, and on parameter boxes alp-gmm.
        quick_seeds: how many seeds that preset has.
        quick_evaluations: how many evaluations that preset makes.
        expert_steps: environment steps of an expert's training, at most.
        quick_frames: frames of a student's training in ``tutelage distill --preset quick``.
        cameras: cameras of students; default: the task's ``default_camera``.
        encoder: image encoder of students; ``fast`` takes two fifths less time than ``fine``, and does for
            large things.
        looks: how much looks differ in the training of students, ``none``, ``mild`` or ``strong``.
        stack: frames that a student without memory sees at once.
        held_out: options of the constructor that make environments with objects that no training shows;
            empty where there are none.

    Example:
        >>> WorldRecipe("a cart on a rail", "within 5 cm of the goal at the end").quick_frames
        400000
    """

    summary: str
    mastered: str
    gymnasium_id: str | None = None
    knowledge: TaskKnowledge | Callable[[Any], TaskKnowledge] | None = None
    return_range: tuple[float, float] | None = None
    test_sets: Mapping[str, Callable[[Any], Tasks]] = field(default_factory=dict)
    picture_test_set: str | None = None
    students: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quick_steps: int | None = None
    quick_task_teachers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quick_seeds: int = 5
    quick_evaluations: int = 10
    expert_steps: int = 3_000_000
    quick_frames: int = 400_000
    cameras: tuple[str, ...] = ()
    encoder: Literal["fast", "fine", "nature", "impala", "points"] = "fine"
    looks: Literal["none", "mild", "strong"] = "strong"
    stack: int = 1
    held_out: Mapping[str, Any] = field(default_factory=dict)

    def needed(self, name: str, world: str, instead: str) -> Any:
        """The value of a field that a command cannot do without.

        Args:
            name: of the field.
            world: the environment's name, for the message.
            instead: what the user can do about it on the command line, e.g. ``"give --steps"``.

        Raises:
            ValueError: when the recipe leaves it open.
        """
        if (value := getattr(self, name)) is None:
            raise ValueError(f"the recipe of {world} has no {name}: add it to the WorldRecipe, or {instead}")
        return value


def recipe_of(world: object, name: str) -> WorldRecipe:
    """The recipe that a world's class, or an environment, carries.

    Args:
        world: the class or environment.
        name: of the world, for the message.

    Raises:
        ValueError: when it has none.
    """
    found = getattr(world, "recipe", None)
    if not isinstance(found, WorldRecipe):
        raise ValueError(
            f"{name} has no recipe: give its class an attribute `recipe = WorldRecipe(summary=..., "
            "mastered=...)` (tutelage.envs.WorldRecipe), which tells commands what they need to know of it"
        )
    return found


def grid_or_sample(env: Any) -> Tasks:
    """Fixed test tasks of an environment's task box: a 10 by 10 grid, or 100 uniform ones of a larger box."""
    space: BoxTasks = env.task_space
    return space.grid(10) if space.dim <= 2 else space.sample(np.random.default_rng(2026), 100)


def batched_ppo(n_envs: int, normalize_rewards: bool = True, **changes: Any) -> dict[str, Any]:
    """Settings of PPO for batched MuJoCo worlds: short roll-outs of many environments.

    Args:
        n_envs: environments stepped at once.
        normalize_rewards: divide rewards by the running deviation of returns.
        changes: arguments of the algorithm that differ; ``policy_kwargs`` are merged.

    Returns:
        A value of `WorldRecipe.students`.
    """
    policy = {"net_arch": [128, 128], "activation_fn": "ELU", "log_std_init": -0.5}
    kwargs: dict[str, Any] = {
        "n_steps": 32,
        "batch_size": 2048,
        "n_epochs": 5,
        "learning_rate": 1e-3,
        "gamma": 0.99,
        **changes,
        "policy_kwargs": {**policy, **changes.get("policy_kwargs", {})},
    }
    return {
        "n_envs": n_envs,
        "kwargs": kwargs,
        "normalize_observations": True,
        "normalize_rewards": normalize_rewards,
    }

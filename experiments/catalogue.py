"""The environments that can be named on the command line, with all that an experiment must know of them.

A card says how to make the environment, single and batched; on which fixed test tasks students are
evaluated; and what expert knowledge there is for the task teachers that need some. A user's environment is
named ``module:factory`` and gets a card made from what it tells of itself: its ``task_space``, and where it
has them ``task_knowledge`` and ``test_tasks()``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.envs.tasks import BoxTasks, DiscreteTasks, Tasks, TaskSpace
from tutelage.students.config import load_object
from tutelage.teachers import TASK_TEACHERS, TaskKnowledge, make_task_teacher, needs_knowledge

if TYPE_CHECKING:
    import gymnasium as gym
    from stable_baselines3.common.vec_env import VecEnv

    from tutelage.envs.interface import TaskTeacher
    from tutelage.envs.vector import BatchedTaskVecEnv

EVALUATED_AT_ONCE = 25  # environments that an evaluation steps side by side, where they are not batched


@dataclass(frozen=True)
class TaskEnvCard:
    """An environment as experiments see it.

    Attributes:
        name: on the command line.
        env_id: Gymnasium id, or ``module:factory``.
        summary: one line for ``--help``.
        mastered: what counts as mastering a task, in words.
        make: makes one environment; takes the render mode.
        test_sets: name -> fixed test tasks; the first is the one that task teachers are compared on.
        picture_test_set: which of them the mastery pictures show.
        knowledge: expert knowledge for task teachers that need it, or None.
        return_range: nominal range of returns, for the axes of plots, or None.
        make_batch: makes a natively batched environment of so many, or None.
        renders: whether it can draw itself into arrays.
    """

    name: str
    env_id: str
    summary: str
    mastered: str
    make: Callable[[str | None], gym.Env[Any, Any]]
    test_sets: Callable[[], dict[str, Tasks]]
    picture_test_set: str
    knowledge: TaskKnowledge | None = None
    return_range: tuple[float, float] | None = None
    make_batch: Callable[[int], BatchedTaskVecEnv] | None = None
    renders: bool = True

    @cached_property
    def primary_test_set(self) -> str:
        """The test set that task teachers are compared on."""
        return next(iter(self.test_sets()))

    def task_space(self) -> TaskSpace:
        """The task space of the environment."""
        env = self.make(None)
        space: TaskSpace = env.get_wrapper_attr("task_space")
        env.close()
        return space


def _stump_tracks(name: str, body: str) -> TaskEnvCard:
    def make(render_mode: str | None) -> gym.Env[Any, Any]:
        from tutelage.envs.stump_tracks import StumpTracks

        return StumpTracks(body=body, render_mode=render_mode)

    def test_sets() -> dict[str, Tasks]:
        from tutelage.envs.stump_tracks import StumpTracks

        return {"grid": StumpTracks().test_tasks()}

    return TaskEnvCard(
        name=name,
        env_id="tutelage/StumpTracks-v0",
        summary=f"Box2D walker ({body}) over stumps: height [0, 3] x spacing [0, 6], 100 test tasks",
        mastered="undiscounted return above 230",
        make=make,
        test_sets=test_sets,
        picture_test_set="grid",
        # The easy task and its spread: TeachMyAgent's "low knowledge" (flat ground, 10 % of the ranges).
        knowledge=TaskKnowledge(
            easy_task=(0.0, 6.0),
            easy_std=(0.3, 0.6),
            target_mean=(3.0, 0.0),
            target_std=(0.3, 0.6),
            mastered_return=230.0,
            return_range=(-150.0, 350.0),
        ),
        return_range=(-150.0, 350.0),
    )


def _hexagon_tracks() -> TaskEnvCard:
    def make(render_mode: str | None) -> gym.Env[Any, Any]:
        from tutelage.envs.stump_tracks import HexagonTracks

        return HexagonTracks(render_mode=render_mode)

    def test_sets() -> dict[str, Tasks]:
        from tutelage.envs.stump_tracks import HexagonTracks

        return {"uniform": HexagonTracks().test_tasks()}

    return TaskEnvCard(
        name="hexagon-tracks",
        env_id="tutelage/HexagonTracks-v0",
        summary="Box2D walker (classic_bipedal) over deformed hexagons: 12 parameters in [0, 4]",
        mastered="undiscounted return above 230",
        make=make,
        test_sets=test_sets,
        picture_test_set="uniform",
        knowledge=TaskKnowledge(
            easy_task=(0.0,) * 12,
            easy_std=(0.4,) * 12,
            target_mean=(4.0,) * 12,
            target_std=(0.4,) * 12,
            mastered_return=230.0,
            return_range=(-150.0, 350.0),
        ),
        return_range=(-150.0, 350.0),
    )


def _point_mass_gate(name: str, friction: bool) -> TaskEnvCard:
    def make(render_mode: str | None) -> gym.Env[Any, Any]:
        from tutelage.envs.point_mass_gate import PointMassGate

        return PointMassGate(friction=friction, render_mode=render_mode)

    def make_batch(n: int) -> BatchedTaskVecEnv:
        from tutelage.envs.point_mass_gate import PointMassGateVecEnv

        return PointMassGateVecEnv(n, friction=friction)

    def test_sets() -> dict[str, Tasks]:
        from tutelage.envs.point_mass_gate import target_test_tasks, uniform_test_tasks

        return {"target": target_test_tasks(friction), "uniform": uniform_test_tasks(friction)}

    d = 3 if friction else 2
    return TaskEnvCard(
        name=name,
        env_id="tutelage/PointMassGate-v0",
        summary=f"point mass through a gate: position x width{' x friction' * friction}, target off-centre",
        mastered="within 0.25 of the goal at the end",
        make=make,
        test_sets=test_sets,
        picture_test_set="uniform",
        # Distributions of Klink et al. 2020 (self-paced RL), "Easy start" and target.
        knowledge=TaskKnowledge(
            easy_task=(0.0, 4.25, 2.0)[:d],
            easy_std=(2.0, 1.875, 1.0)[:d],
            target_mean=(2.5, 0.5, 0.0)[:d],
            target_std=(0.004, 0.00375, 0.002)[:d],
            mastered_return=60.0,  # beyond the goal, pinned to the border, an episode brings 48; good ones 80
            return_range=(0.0, 90.0),
        ),
        return_range=(0.0, 90.0),
        make_batch=make_batch,
    )


def _vec_task(
    name: str,
    summary: str,
    mastered: str,
    knowledge: TaskKnowledge | None = None,
    return_range: tuple[float, float] | None = None,
) -> TaskEnvCard:
    """A batched MuJoCo task, each cell on one thread of its own."""

    def make(render_mode: str | None) -> gym.Env[Any, Any]:
        from tutelage.envs.batched.catalogue import make_vec_task
        from tutelage.envs.batched.gymnasium_env import SingleVecTask

        return SingleVecTask(make_vec_task(name, 1, threads=1), render_mode=render_mode)

    def make_batch(n: int) -> BatchedTaskVecEnv:
        from tutelage.envs.batched.catalogue import make_vec_task
        from tutelage.envs.batched.sb3 import SB3VecTask

        return SB3VecTask(make_vec_task(name, n, threads=1))

    @cache
    def test_sets() -> dict[str, Tasks]:
        env = make(None)
        space: BoxTasks = env.get_wrapper_attr("task_space")
        env.close()
        return {"test": space.grid(10) if space.dim <= 2 else space.sample(np.random.default_rng(2026), 100)}

    return TaskEnvCard(
        name=name,
        env_id=f"tutelage.envs.batched:{name}",
        summary=summary,
        mastered=mastered,
        make=make,
        test_sets=test_sets,
        picture_test_set="test",
        knowledge=knowledge,
        return_range=return_range,
        make_batch=make_batch,
    )


def _stump_walker() -> TaskEnvCard:
    return _vec_task(
        "stump-walker",
        "MuJoCo biped over stumps: height [0, 3] x spacing [0, 6], 100 test tasks; minutes, not hours",
        "6 m walked within 240 steps",
        # As for StumpTracks: flat ground is easy, the highest stumps close together are the hardest.
        knowledge=TaskKnowledge(
            easy_task=(0.0, 6.0),
            easy_std=(0.3, 0.6),
            target_mean=(3.0, 0.0),
            target_std=(0.3, 0.6),
            mastered_return=55.0,  # 10 for each of 6 m, less 2 to 4 for posture and effort
            return_range=(-5.0, 60.0),
        ),
        return_range=(-5.0, 60.0),
    )


TASK_ENVS: dict[str, Callable[[], TaskEnvCard]] = {
    "point-mass-gate": lambda: _point_mass_gate("point-mass-gate", friction=False),
    "point-mass-gate/friction": lambda: _point_mass_gate("point-mass-gate/friction", friction=True),
    "stump-tracks": lambda: _stump_tracks("stump-tracks", "classic_bipedal"),
    "stump-tracks/small-bipedal": lambda: _stump_tracks("stump-tracks/small-bipedal", "small_bipedal"),
    "stump-tracks/spider": lambda: _stump_tracks("stump-tracks/spider", "spider"),
    "stump-tracks/old-classic-bipedal": lambda: _stump_tracks(
        "stump-tracks/old-classic-bipedal", "old_classic_bipedal"
    ),
    "hexagon-tracks": _hexagon_tracks,
    "stump-walker": _stump_walker,
    "quadruped-terrain": lambda: _vec_task(
        "quadruped-terrain",
        "MuJoCo quadruped on rough ground: roughness, stairs, slope, friction, commanded speed",
        "upright at the end, having kept the commanded speed",
    ),
    "reach": lambda: _vec_task(
        "reach", "MuJoCo arm: its tip to a goal in space", "within 4 cm of the goal at the end"
    ),
    "push-cube": lambda: _vec_task(
        "push-cube",
        "MuJoCo arm pushes a cube: goal, size, mass, friction",
        "the cube within 5 cm of the goal at the end",
    ),
    "lift-object": lambda: _vec_task(
        "lift-object", "MuJoCo gripper lifts objects of many shapes", "lifted by 10 cm at the end"
    ),
    "ball-balance": lambda: _vec_task(
        "ball-balance", "MuJoCo plate brings a ball to rest on a spot", "at the spot, and slow, at the end"
    ),
}
"""Names of environments on the command line."""


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
    knowledge = getattr(env.unwrapped, "task_knowledge", None)
    own_tests = getattr(env.unwrapped, "test_tasks", None)
    renders = takes_render_mode and "rgb_array" in env.metadata.get("render_modes", ())
    env.close()

    def test_sets() -> dict[str, Tasks]:
        if own_tests is not None:
            return {"own": space.check(own_tests(), source=f"test_tasks() of {name}")}
        if isinstance(space, BoxTasks) and space.dim <= 2:
            return {"grid": space.grid(10)}
        if isinstance(space, DiscreteTasks):
            return {"all": np.arange(space.n)}
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

        from tutelage.envs.taught import TaskQueue

        return SubprocVecEnv([lambda: TaskQueue(card.make(None)) for _ in range(n_envs)])
    from tutelage.envs.vector import GymTaskVecEnv

    return GymTaskVecEnv([lambda: card.make(None) for _ in range(n_envs)])


def make_eval_venv(card: TaskEnvCard) -> BatchedTaskVecEnv:
    """Make the environments of evaluations, apart from those of the training."""
    n = max(len(tasks) for tasks in card.test_sets().values())
    if card.make_batch is not None:
        return card.make_batch(n)
    venv = make_venv(card, min(n, EVALUATED_AT_ONCE))
    return venv  # type: ignore[return-value]  # not batched, so a GymTaskVecEnv

"""Random play in taught environments, watched from all sides; `check_curriculum` draws its conclusions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.interface import TaskTeacher
from tutelage.envs.contract.proposals import Proposals
from tutelage.envs.contract.tasks import Tasks
from tutelage.envs.contract.taught import TaughtVecEnv
from tutelage.envs.contract.taught_gymnasium import TaughtGymnasiumVectorEnv
from tutelage.envs.contract.vector import take

AnyVectorEnv = VecEnv | VectorEnv[Any, Any, Any]
Taught = TaughtVecEnv | TaughtGymnasiumVectorEnv


class WatchedTaskTeacher:
    """Stands in for a task teacher, and counts what passes."""

    def __init__(self, task_teacher: TaskTeacher) -> None:
        self._task_teacher = task_teacher
        self.observed: list[Episodes] = []

    def propose(self, n: int) -> Tasks | Proposals:
        """As the task teacher does."""
        return self._task_teacher.propose(n)

    def observe(self, episodes: Episodes) -> None:
        """Keep the episodes, and pass them on."""
        self.observed.append(episodes)
        self._task_teacher.observe(episodes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task_teacher, name)


@contextmanager
def watched(taught: Taught) -> Iterator[WatchedTaskTeacher]:
    """Context in which a `WatchedTaskTeacher` stands in for the task teacher of a taught environment."""
    original = taught.episodes.task_teacher
    # Messages about proposals name the task teacher by its class.
    watch: Any = type(type(original).__name__, (WatchedTaskTeacher,), {})(original)
    taught.episodes.task_teacher = watch
    try:
        yield watch
    finally:
        taught.episodes.task_teacher = original


class RandomPlay:
    """Plays random actions in a taught environment, and notes what the environments say of their tasks.

    Args:
        venv: the taught environment, or a wrapper around it.
        taught: the taught environment.
        n: number of environments.
        action_space: of one environment.

    Attributes:
        ended: episodes that have ended.
        reported: how often an environment said which task it plays.
        wrong: environment, proposed task and reported task, where these differed.
    """

    def __init__(self, venv: Any, taught: Taught, n: int, action_space: gymnasium.Space[Any]) -> None:
        self.venv, self.taught, self.n, self.action_space = venv, taught, n, action_space
        self.ended = self.reported = 0
        self.wrong: list[tuple[int, Any, Any]] = []

    def reset(self, seed: int) -> Any:
        """Begin; return observations."""
        raise NotImplementedError

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[np.bool_]]:
        """Step; return observations, rewards, ends."""
        raise NotImplementedError

    def actions(self, seed: int) -> Iterator[Any]:
        """Random actions; those of environment *i* come of ``seed + i`` alone."""
        spaces = [deepcopy(self.action_space) for _ in range(self.n)]
        for i, space in enumerate(spaces):
            space.seed(seed + i)
        while True:
            buffer: Any = create_empty_array(self.action_space, self.n)
            yield concatenate(self.action_space, [space.sample() for space in spaces], buffer)

    def play(self, steps: int, seed: int) -> None:
        """Take `steps` steps in every environment."""
        self.reset(seed)
        for _, actions in zip(range(steps), self.actions(seed), strict=False):
            self.ended += int(np.count_nonzero(self.step(actions)[2]))

    def compare(self, environment: int, proposed: Any, reported: Any) -> None:
        """Note whether an environment plays what was proposed; `reported` is None where it does not say."""
        if reported is None:
            return
        self.reported += 1
        if np.shape(reported) != np.shape(proposed) or not np.allclose(reported, proposed, atol=1e-6):
            self.wrong.append((environment, proposed, reported))


class SB3RandomPlay(RandomPlay):
    """Listens below `TaughtVecEnv`, which writes the task that it proposed into the infos."""

    taught: TaughtVecEnv

    def reset(self, seed: int) -> Any:
        """Seed and begin; return observations."""
        self.taught.seed(seed)
        observations = self.venv.reset()
        self._compare_started(np.arange(self.n))
        return observations

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[np.bool_]]:
        """Step; return observations, rewards, ends."""
        before, ids, inner = self.taught.tasks.copy(), self.taught.ids.copy(), self.taught.venv
        original = inner.step_wait
        said: list[Any] = []

        def step_wait() -> Any:
            result = original()
            said.extend(info.get("task") for info in result[3])
            return result

        inner.step_wait = step_wait  # type: ignore[method-assign]
        try:
            observations, rewards, dones, _ = self.venv.step(actions)
        finally:
            del inner.step_wait
        for i, task in enumerate(said):
            self.compare(i, before[i], task)
        self._compare_started(np.flatnonzero(self.taught.ids != ids))
        return observations, rewards, dones

    def _compare_started(self, rows: NDArray[np.int64]) -> None:
        for i in rows.tolist():
            task = self.taught.venv.reset_infos[i].get("task")
            if task is None and self.taught.venv.has_attr("task"):
                task = self.taught.venv.get_attr("task", [i])[0]
            self.compare(i, self.taught.tasks[i], task)


class GymnasiumRandomPlay(RandomPlay):
    """Listens to infos, in which `TaughtGymnasiumVectorEnv` leaves what environments say of their tasks."""

    taught: TaughtGymnasiumVectorEnv

    def reset(self, seed: int) -> Any:
        """Seed and begin; return observations."""
        observations, infos = self.venv.reset(seed=seed)
        self._compare(infos)
        return observations

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[np.bool_]]:
        """Step; return observations, rewards, ends."""
        observations, rewards, terminations, truncations, infos = self.venv.step(actions)
        self._compare(infos)
        return observations, rewards, terminations | truncations

    def _compare(self, infos: dict[str, Any]) -> None:
        for i in np.flatnonzero(infos.get("_task", np.zeros(self.n))).tolist():
            self.compare(i, self.taught.tasks[i], infos["task"][i])


def random_play(venv: AnyVectorEnv, task_teacher: TaskTeacher) -> RandomPlay:
    """Make the player of `venv`, in a taught environment of `task_teacher` if `venv` has none."""
    inner: Any = venv
    if isinstance(venv, VecEnv):
        while not isinstance(inner, TaughtVecEnv) and hasattr(inner, "venv"):
            inner = inner.venv
        if not isinstance(inner, TaughtVecEnv):
            inner = venv = TaughtVecEnv(venv, task_teacher)
        return SB3RandomPlay(venv, inner, inner.num_envs, inner.action_space)
    while not isinstance(inner, TaughtGymnasiumVectorEnv) and hasattr(inner, "env"):
        inner = inner.env
    if not isinstance(inner, TaughtGymnasiumVectorEnv):
        inner = venv = TaughtGymnasiumVectorEnv(venv, task_teacher)
    return GymnasiumRandomPlay(venv, inner, inner.num_envs, inner.single_action_space)


class _Repeats:
    """Proposes the same tasks again and again, and learns nothing."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks

    def propose(self, n: int) -> Tasks:
        return np.resize(self.tasks, (n, *self.tasks.shape[1:]))

    def observe(self, episodes: Episodes) -> None:
        """Nothing to learn."""


def first_episodes(venv: AnyVectorEnv, tasks: Tasks, steps: int, seed: int) -> list[dict[str, Any]]:
    """First observation and rewards of each environment's first episode, cut off after `steps` steps."""
    repeats: Any = _Repeats(tasks)
    player = random_play(venv, repeats)
    space = player.taught.observation_space
    if isinstance(player, SB3RandomPlay):  # an array, or a dict or tuple of arrays, environments first
        first = player.reset(seed)
        rows = [deepcopy(take(first, i)) for i in range(player.n)]
    else:
        rows = deepcopy(list(iterate(space, player.reset(seed))))
    rewards: list[list[float]] = [[] for _ in range(player.n)]
    running = np.ones(player.n, dtype=np.bool_)
    for _, actions in zip(range(steps), player.actions(seed), strict=False):
        _, earned, ended = player.step(actions)
        for i in np.flatnonzero(running).tolist():
            rewards[i].append(float(earned[i]))
        running &= ~ended
        if not running.any():
            break
    venv.close()
    return [{"first": row, "rewards": np.array(r)} for row, r in zip(rows, rewards, strict=True)]

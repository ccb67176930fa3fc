"""The taught vector environment: any Stable-Baselines3 `VecEnv`, with a task teacher behind its resets.

It stands between the vector environment and the algorithm. `Starter` knows how each kind of `VecEnv` is
made to start a chosen task; `TaughtVecEnv` counts episodes, asks the task teacher, and reports back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from tutelage.envs.contract.episodes import Episodes, check_successes, episode_success
from tutelage.envs.contract.interface import TaskTeacher
from tutelage.envs.contract.proposals import check_proposals
from tutelage.envs.contract.state import StateDict, StateError
from tutelage.envs.contract.tasks import Tasks, TaskSpace
from tutelage.envs.contract.vector import BatchedTaskVecEnv, GymTaskVecEnv, Observations, put


class TaskQueue(gym.Wrapper[Any, Any, Any, Any]):
    """Holds one task ahead inside a worker process, for `SubprocVecEnv`.

    An automatic reset happens in the worker, without a message from the main process, so the next task
    must lie there already: it was proposed one episode earlier than a task in the same process would be.

    Example:
        ``SubprocVecEnv([lambda: TaskQueue(gymnasium.make("tutelage/StumpTracks-v0"))] * 4)``
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._queued: Any = None

    def queue_task(self, task: Any) -> None:
        """Let the next reset without a task of its own start `task`."""
        self._queued = task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset to the task in `options`, or else to the queued one."""
        if self._queued is not None and not (options and "task" in options):
            options = {**(options or {}), "task": self._queued}
            self._queued = None
        return self.env.reset(seed=seed, options=options)


class Starter:
    """Starts chosen tasks in any SB3 `VecEnv`, and keeps track of the task that runs in each environment.

    - `BatchedTaskVecEnv`s are reset once, here, with the task proposed after the episode ended. A
      `DummyVecEnv` is stepped as a `GymTaskVecEnv`, which is one.
    - Worker processes with `TaskQueue` hold one task ahead (`lag` is 1).
    - Other vector environments are reset a second time after their automatic reset: right, but slower.

    Attributes:
        venv: the vector environment that is stepped.
        running: task of each environment, shape ``(num_envs, *task_space.shape)``.
        lag: how many episodes ahead of its start a task is proposed, 0 or 1.

    Raises:
        TypeError: when `venv` is wrapped already: wrappers such as `VecNormalize` belong around the taught
            environment, or they would see observations of automatic resets that are thrown away.
    """

    def __init__(self, venv: VecEnv, task_space: TaskSpace) -> None:
        if isinstance(venv, VecEnvWrapper):
            raise TypeError(
                f"{type(venv).__name__} is inside the taught environment; wrap the other way round, e.g. "
                f"{type(venv).__name__}(TaughtVecEnv({type(venv.unwrapped).__name__}([...]), task_teacher))"
            )
        if type(venv) is DummyVecEnv:  # a subclass may step in its own way
            venv = GymTaskVecEnv([lambda env=env: env for env in venv.envs], task_space)  # type: ignore[misc]
        if isinstance(venv, BatchedTaskVecEnv):
            venv.auto_reset = False
        self.venv = venv
        self.running: Tasks = np.zeros((venv.num_envs, *task_space.shape), dtype=task_space.dtype)
        self._queued = self.running.copy()
        self.lag = int(not isinstance(venv, BatchedTaskVecEnv) and venv.has_attr("queue_task"))

    def start_all(self, tasks: Tasks, ahead: Tasks | None, seeds: Sequence[int] | None) -> Observations:
        """Start a task in every environment; `ahead` holds as many more tasks when `lag` is 1."""
        everyone = np.arange(self.venv.num_envs)
        self.running[:] = tasks
        if isinstance(self.venv, BatchedTaskVecEnv):
            return self.venv.start(everyone, tasks, seeds)
        self.venv.set_options([{"task": task} for task in tasks])
        if seeds is not None:
            self.venv._seeds = list(seeds)
        observations = self.venv.reset()
        if ahead is not None:
            self._queue(everyone, ahead)
        return observations

    def restart(self, observations: Observations, finished: NDArray[np.int64], tasks: Tasks) -> None:
        """Give finished environments their next task; write their first observations in place."""
        if self.lag:
            self.running[finished] = self._queued[finished]
            self._queue(finished, tasks)
            return
        self.running[finished] = tasks
        if isinstance(self.venv, BatchedTaskVecEnv):
            put(observations, finished, self.venv.start(finished, tasks))
            return
        for index, task in zip(finished.tolist(), tasks, strict=True):
            [(first, _)] = self.venv.env_method("reset", indices=[index], options={"task": task})
            put(observations, index, first)

    def _queue(self, indices: NDArray[np.int64], tasks: Tasks) -> None:
        self._queued[indices] = tasks
        for index, task in zip(indices.tolist(), tasks, strict=True):
            self.venv.env_method("queue_task", task, indices=[index])


class TaughtVecEnv(VecEnvWrapper):
    """A vector environment whose tasks a task teacher proposes, at every reset, automatic ones too.

    Algorithms stay unmodified; `VecNormalize`, `VecMonitor`, `VecFrameStack` go around it::

        venv = TaughtVecEnv(DummyVecEnv([make_env] * 8), task_teacher)
        PPO("MlpPolicy", VecNormalize(venv)).learn(1_000_000)

    All episodes that end in one step are observed, and their successors proposed, in one call each.
    At the end of an episode its info holds ``task``, ``success`` and SB3's ``is_success`` where the
    environment defines success, and ``episode`` (SB3's return and length), unless a monitor set it.
    Episodes cut off by a call of `reset` are not reported.

    Args:
        venv: `DummyVecEnv`, `SubprocVecEnv` (environments in `TaskQueue`), a `BatchedTaskVecEnv`, or any
            other unwrapped SB3 vector environment (see `Starter`).
        task_teacher: proposes and observes.
        task_space: where the tasks live; default: the environments' own ``task_space``.
        on_episodes: called with every batch of finished episodes, after the task teacher observed it.

    Attributes:
        task_teacher_seconds: time spent in proposing and observing.
        environment_seconds: time spent in stepping and resetting environments.

    Raises:
        TaskError: when a proposed task is NaN, out of the space or of the wrong shape.
        ValueError: when an episode's return is not finite, or `venv` has no task space.
    """

    def __init__(
        self,
        venv: VecEnv,
        task_teacher: TaskTeacher,
        task_space: TaskSpace | None = None,
        on_episodes: Callable[[Episodes], None] | None = None,
    ) -> None:
        if task_space is None:
            if not venv.has_attr("task_space"):
                raise ValueError(
                    "the environments have no `task_space`; give them one (see tutelage.envs.check_task_env) "
                    "or pass task_space= to TaughtVecEnv"
                )
            task_space = (
                venv.task_space
                if isinstance(venv, BatchedTaskVecEnv)
                else venv.get_attr("task_space", [0])[0]
            )
        self.starter = Starter(venv, task_space)
        super().__init__(self.starter.venv)
        self.task_space = task_space
        self.task_teacher = task_teacher
        self.on_episodes = on_episodes
        self.task_teacher_seconds = 0.0
        self.environment_seconds = 0.0
        self._returns = np.zeros(self.num_envs)
        self._clock = 0
        self._started = np.zeros(self.num_envs, dtype=np.int64)  # the clock when each episode began
        self._reset_seed: int | None = None
        self._created = perf_counter()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Let the next `reset` seed environment *i* with ``seed + i``."""
        self._reset_seed = seed
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def reset(self) -> Observations:
        """Begin a new episode, of a newly proposed task, in every environment."""
        tasks = self._propose(self.num_envs)
        ahead = self._propose(self.num_envs) if self.starter.lag else None
        self._returns[:] = 0
        self._started[:] = self._clock
        seeds = None if self._reset_seed is None else [self._reset_seed + i for i in range(self.num_envs)]
        self._reset_seed = None
        begin = perf_counter()
        observations = self.starter.start_all(tasks, ahead, seeds)
        self.environment_seconds += perf_counter() - begin
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step of all environments."""
        self._begin = perf_counter()
        self.venv.step_async(actions)

    def step_wait(self) -> tuple[Observations, NDArray[Any], NDArray[np.bool_], list[dict[str, Any]]]:
        """Finish the step; report finished episodes and start their successors."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._returns += rewards
        self._clock += 1
        if not math.isfinite(np.add.reduce(self._returns)):
            self._refuse_rewards(rewards)
        self.environment_seconds += perf_counter() - self._begin
        if np.count_nonzero(dones):  # four times faster than dones.any() on few environments
            self._finish(observations, dones.nonzero()[0], infos)
        return observations, rewards, dones, infos

    @property
    def saves_episodes(self) -> bool:
        """Whether running episodes can be saved: whether the vector environment has a ``state_dict``."""
        return hasattr(self.venv, "state_dict")

    def state_dict(self) -> StateDict:
        """The running episodes, by value; the task teacher saves itself.

        Raises:
            StateError: when the environments cannot be saved.
        """
        if not self.saves_episodes:
            raise StateError(f"{type(self.venv).__name__} cannot be saved; begin new episodes instead")
        return {
            "environments": self.venv.state_dict(),  # type: ignore[attr-defined]  # see saves_episodes
            "running": self.starter.running.copy(),
            "returns": self._returns.copy(),
            "lengths": self._clock - self._started,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue the episodes of a `state_dict`; the student's last observations must be restored as well.

        Raises:
            StateError: when the state is of other environments.
        """
        self.venv.load_state_dict(state["environments"])  # type: ignore[attr-defined]
        self.starter.running[:] = state["running"]
        self._returns[:] = state["returns"]
        self._started[:] = self._clock - state["lengths"]

    def _finish(
        self, observations: Observations, finished: NDArray[np.int64], infos: list[dict[str, Any]]
    ) -> None:
        tasks, returns = self.starter.running[finished], self._returns[finished]
        lengths = self._clock - self._started[finished]
        successes = np.empty(len(finished))
        for row, (index, r, steps) in enumerate(
            zip(finished.tolist(), returns.tolist(), lengths.tolist(), strict=True)
        ):
            info = infos[index]
            success = successes[row] = episode_success(info)
            if success == success:  # not NaN
                info["is_success"] = info["success"] = bool(success)
            info["task"] = tasks[row].copy()
            if "episode" not in info:
                info["episode"] = {"r": r, "l": steps, "t": perf_counter() - self._created}
        check_successes(successes)
        begin = perf_counter()
        episodes = Episodes(tasks, returns, lengths, successes)
        self.task_teacher.observe(episodes)
        self.task_teacher_seconds += perf_counter() - begin
        tasks = self._propose(len(finished))
        begin = perf_counter()
        self.starter.restart(observations, finished, tasks)
        self.environment_seconds += perf_counter() - begin
        self._returns[finished] = 0
        self._started[finished] = self._clock
        if self.on_episodes is not None:
            self.on_episodes(episodes)

    def _refuse_rewards(self, rewards: NDArray[Any]) -> None:
        index = int(np.argmin(np.isfinite(self._returns)))
        raise ValueError(
            f"environment {index} gave the reward {rewards[index]} in step "
            f"{self._clock - self._started[index]} of task {self.starter.running[index]}, which makes its "
            f"return {self._returns[index]}; mend the reward, or end the episode before it is no number"
        )

    def _propose(self, n: int) -> Tasks:
        begin = perf_counter()
        proposed = self.task_teacher.propose(n)
        proposals = check_proposals(proposed, self.task_space, n, type(self.task_teacher).__name__)
        self.task_teacher_seconds += perf_counter() - begin
        return proposals.tasks

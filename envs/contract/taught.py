"""The taught vector environment: any Stable-Baselines3 `VecEnv`, with a task teacher behind its resets.

It stands between the vector environment and the algorithm. `EpisodeStarter` knows how each kind of `VecEnv`
is made to start a chosen task, `EpisodeBookkeeping` counts episodes and speaks with the task teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from tutelage.envs.contract.bookkeeping import EpisodeBookkeeping, RunningProposals
from tutelage.envs.contract.episodes import Episodes, episode_success
from tutelage.envs.contract.interface import TaskTeacher
from tutelage.envs.contract.starting import EpisodeStarter
from tutelage.envs.contract.starting import TaskQueue as TaskQueue
from tutelage.envs.contract.state import StateDict
from tutelage.envs.contract.tasks import TaskSpace
from tutelage.envs.contract.vector import BatchedTaskVecEnv, Observations, take


class TaughtVecEnv(RunningProposals, VecEnvWrapper):
    """A vector environment whose tasks a task teacher proposes, at every reset, automatic ones too.

    Algorithms stay unmodified; `VecNormalize`, `VecMonitor`, `VecFrameStack` go around it::

        venv = TaughtVecEnv(DummyVecEnv([make_env] * 8), task_teacher)
        PPO("MlpPolicy", VecNormalize(venv)).learn(1_000_000)

    All episodes that end in one step are observed, and their successors proposed, in one call each.
    At the end of an episode its info holds ``task``, ``proposal_id``, ``success`` and SB3's ``is_success``
    where the environment defines success, and ``episode`` (SB3's return and length), unless a monitor set it.
    An episode that reaches the horizon of its proposal is cut off as by a time limit: it is done, with
    ``TimeLimit.truncated`` and ``terminal_observation``. Its success is what the environment says in that
    step, else 0, or NaN where the environment defines none. Episodes cut off by a call of `reset` are not
    reported.

    Args:
        venv: `DummyVecEnv`, `SubprocVecEnv` (environments in `TaskQueue`), a `BatchedTaskVecEnv`, or any
            other unwrapped SB3 vector environment (see `EpisodeStarter`).
        task_teacher: proposes and observes.
        task_space: where the tasks live; default: the environments' own ``task_space``.
        on_episodes: called with every batch of finished episodes, after the task teacher observed it.

    Attributes:
        episodes: bookkeeping of the running episodes; what it has of their proposals is in attributes here
            too, see `RunningProposals`.
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
        self.starter = EpisodeStarter(venv, task_space)
        super().__init__(self.starter.venv)
        self.task_space = task_space
        self.task_teacher = task_teacher
        self.on_episodes = on_episodes
        self.environment_seconds = 0.0
        self.episodes = EpisodeBookkeeping(
            self.num_envs,
            task_space,
            task_teacher,
            queues=bool(self.starter.lag),
            defines_success=getattr(self.venv, "defines_success", False),
        )
        self._reset_seed: int | None = None
        self._created = perf_counter()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Let the next `reset` seed environment *i* with ``seed + i``."""
        self._reset_seed = seed
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def reset(self) -> Observations:
        """Begin a new episode, of a newly proposed task, in every environment."""
        proposals = self.episodes.propose(self.num_envs)
        ahead = self.episodes.propose(self.num_envs) if self.starter.lag else None
        self.episodes.begin_all(proposals, ahead)
        seeds = None if self._reset_seed is None else [self._reset_seed + i for i in range(self.num_envs)]
        self._reset_seed = None
        begin = perf_counter()
        observations = self.starter.start_all(proposals, ahead, seeds)
        self.environment_seconds += perf_counter() - begin
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step of all environments."""
        self._begin = perf_counter()
        self.venv.step_async(actions)

    def step_wait(self) -> tuple[Observations, NDArray[Any], NDArray[np.bool_], list[dict[str, Any]]]:
        """Finish the step; report finished episodes and start their successors."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self.environment_seconds += perf_counter() - self._begin
        if self.episodes.add_rewards(rewards):
            dones = self._cut_off(observations, dones, infos)
        if np.count_nonzero(dones):  # four times faster than dones.any() on few environments
            self._finish(observations, dones.nonzero()[0], infos)
        return observations, rewards, dones, infos

    @property
    def saves_episodes(self) -> bool:
        """Whether running episodes can be saved: whether the vector environment has a ``state_dict``."""
        return hasattr(self.venv, "state_dict")

    def state_dict(self) -> StateDict:
        """The running episodes, by value; the task teacher saves itself.

        Where the environments cannot be saved (see `saves_episodes`), the counters of proposals and steps
        alone: new episodes must begin after loading.
        """
        return self.episodes.save_with(self.venv)

    def load_state_dict(self, state: StateDict) -> None:
        """Continue the episodes of a `state_dict`; the student's last observations must be restored as well.

        Raises:
            StateError: when the state is of other environments.
        """
        self.episodes.load_with(self.venv, state)

    def _cut_off(
        self, observations: Observations, dones: NDArray[np.bool_], infos: list[dict[str, Any]]
    ) -> NDArray[np.bool_]:
        """End the episodes that have reached their horizon, as a time limit would."""
        cut = self.episodes.reached_horizon(dones)
        if not len(cut):
            return dones
        last = take(observations, cut)
        for row, index in enumerate(cut.tolist()):
            infos[index]["terminal_observation"] = take(last, row)
            infos[index]["TimeLimit.truncated"] = True
        dones = dones.copy()
        dones[cut] = True
        return dones

    def _finish(
        self, observations: Observations, finished: NDArray[np.int64], infos: list[dict[str, Any]]
    ) -> None:
        successes = np.array([episode_success(infos[index]) for index in finished.tolist()])
        episodes = self.episodes.end(finished, successes)
        columns = (finished, episodes.returns, episodes.lengths, episodes.successes, episodes.ids)
        now = perf_counter() - self._created
        for row, (index, r, steps, success, number) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            info = infos[index]
            if success == success:  # not NaN
                info["is_success"] = info["success"] = bool(success)
            info["task"], info["proposal_id"] = episodes.tasks[row].copy(), number
            if "episode" not in info:
                info["episode"] = {"r": r, "l": steps, "t": now}
        self.episodes.observe(episodes)
        proposals = self.episodes.propose(len(finished))
        begin = perf_counter()
        self.starter.restart(observations, finished, proposals)
        self.environment_seconds += perf_counter() - begin
        self.episodes.begin(finished, proposals)
        if self.on_episodes is not None:
            self.on_episodes(episodes)

"""The taught vector environment for users of Gymnasium: a `gymnasium.vector` environment with a task teacher.

Gymnasium's vector environments reset finished environments by themselves, without task, seed or options.
Here all three arrive at every reset, automatic ones too: `TaskQueue` in each environment holds them ready.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from tutelage.envs.contract.bookkeeping import EpisodeBookkeeping, NumberedProposals, RunningProposals
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.interface import TaskTeacher
from tutelage.envs.contract.starting import TaskQueue
from tutelage.envs.contract.state import StateDict
from tutelage.envs.contract.tasks import TaskSpace
from tutelage.envs.contract.vector import put

Infos = dict[str, Any]
"""Gymnasium's vector infos: name -> array over environments, with the mask ``_name``."""


class TaughtGymnasiumVectorEnv(RunningProposals, VectorWrapper[Any, Any, Any, Any, NDArray[Any]]):
    """A `gymnasium.vector` environment whose tasks a task teacher proposes, at every reset.

    ::

        envs = TaughtGymnasiumVectorEnv(SyncVectorEnv([make_env] * 8), task_teacher)
        observations, infos = envs.reset(seed=0, options={"wind": 3.0})
        observations, rewards, terminations, truncations, infos = envs.step(actions)

    The options of `reset` hold at the automatic resets that follow too. An episode that reaches the horizon
    of its proposal is truncated. Episodes cut off by a call of `reset` are not reported.

    ===================== ==================================== =======================================
    `envs`                its ``autoreset_mode``               resets here
    ===================== ==================================== =======================================
    `SyncVectorEnv`       ``NEXT_STEP``                        in the next step, as there
    `SyncVectorEnv`       ``SAME_STEP``, ``DISABLED``          in the same step
    `AsyncVectorEnv`      ``NEXT_STEP``                        in the next step, as there
    `AsyncVectorEnv`      ``DISABLED``                         in the same step
    `AsyncVectorEnv`      ``SAME_STEP``                        in the same step, to the task that was
                                                               proposed one episode earlier
    `GymnasiumVecTask`    any                                  in the same step
    ===================== ==================================== =======================================

    Resets in the same step give ``final_obs`` and ``final_info``, resets in the next step leave the last
    infos in `infos`, both as Gymnasium does. Infos of finished episodes have ``proposal_id`` and ``task``.

    Args:
        env: as in the table; wrappers such as `RecordEpisodeStatistics` go around the taught environment.
            Environments of `AsyncVectorEnv` are in `TaskQueue`.
        task_teacher: proposes and observes.
        task_space: where the tasks live; default: the environments' own ``task_space``.
        on_episodes: called with every batch of finished episodes, after the task teacher observed it.
        seed_episodes: seed each episode by `episode_seed`, of the seed given to `reset` and its proposal's
            number, so that it can be played again alone. False: seeds given to `reset` are for the first
            episodes, as Gymnasium has it.

    Raises:
        TypeError: when `env` is of another kind, or has no `TaskQueue` in its worker processes.
        TaskError: when a proposed task is NaN, out of the space or of the wrong shape.
        ValueError: when an episode's return is not finite, or `env` has no task space.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, NDArray[Any]],
        task_teacher: TaskTeacher,
        task_space: TaskSpace | None = None,
        on_episodes: Callable[[Episodes], None] | None = None,
        seed_episodes: bool = False,
    ) -> None:
        self._native = hasattr(env, "start")
        _prepare(env)
        super().__init__(env)
        self.task_space = task_space or _task_space(env)
        self.on_episodes = on_episodes
        self._next_step = env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
        self._in_workers = isinstance(env, AsyncVectorEnv) and env.autoreset_mode is AutoresetMode.SAME_STEP
        self.metadata = {
            **env.metadata,
            "autoreset_mode": AutoresetMode.NEXT_STEP if self._next_step else AutoresetMode.SAME_STEP,
        }
        self.episodes = EpisodeBookkeeping(
            self.num_envs,
            self.task_space,
            task_teacher,
            queues=self._in_workers,
            defines_success=getattr(env, "defines_success", False),
        )
        self._seed_episodes = seed_episodes
        self._seed = 0
        self._options: dict[str, Any] = {}
        self._waiting: tuple[NDArray[np.int64], NumberedProposals] | None = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begin a new episode, of a newly proposed task, in every environment.

        Args:
            seed: as in `SyncVectorEnv.reset`; an integer or None with `seed_episodes`.
            options: of every reset until the next call of this method; the task is the task teacher's.

        Raises:
            ValueError: when the options have ``task`` or ``reset_mask``, or there is not one seed for each.
        """
        if taken := sorted({"task", "tasks", "reset_mask"} & set(options or {})):
            raise ValueError(
                f"reset option {taken[0]!r} is not for users of a taught environment: leave it out, the task "
                "teacher decides on tasks, and all environments are reset"
            )
        self._options, self._waiting = dict(options or {}), None
        n, everyone = self.num_envs, np.arange(self.num_envs)
        seeds = [seed + i for i in range(n)] if isinstance(seed, int | np.integer) else seed
        if self._seed_episodes:
            if not isinstance(seed, int | np.integer | None):
                raise ValueError("seed is a list; with seed_episodes=True give one integer, or None")
            self._seed = int(np.random.default_rng().integers(1 << 62)) if seed is None else int(seed)
            seeds = None
        if seeds is not None and len(seeds) != n:
            raise ValueError(f"{len(seeds)} seeds were given for {n} environments")
        proposals = self.episodes.propose(n)
        ahead = self.episodes.propose(n) if self._in_workers else None
        self.episodes.begin_all(proposals, ahead)
        if self._native:
            return self._start(None, everyone, proposals, seeds)
        self._queue(everyone, proposals, seeds)
        observations, infos = self.env.reset()
        if ahead is not None:
            self._queue(everyone, ahead)
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], Infos]:
        """Step; report finished episodes and start, or get ready, their successors."""
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        waiting, self._waiting = self._waiting, None
        resets = 0 if waiting is None else len(waiting[0])
        may_reach = self.episodes.add_rewards(rewards, self.num_envs - resets)
        if waiting is not None:  # these have been reset instead of stepped
            self.episodes.begin(*waiting)
        ended = terminations | truncations
        if may_reach and self._native:  # others are cut off by their `TaskQueue`
            cut = self.episodes.reached_horizon(ended)
            truncations[cut] = ended[cut] = True
        if np.count_nonzero(ended):
            observations = self._finish(observations, ended, infos)
        return observations, rewards, terminations, truncations, infos

    def state_dict(self) -> StateDict:
        """The running episodes, by value; the task teacher saves itself.

        Of environments without ``state_dict``, the counters alone: new episodes must begin after loading.
        """
        return self.episodes.save_with(self.env)

    def load_state_dict(self, state: StateDict) -> None:
        """Continue the episodes of a `state_dict`; the student's last observations must be restored as well.

        Raises:
            StateError: when the state is of other environments.
        """
        self.episodes.load_with(self.env, state)

    def _finish(self, observations: Any, ended: NDArray[np.bool_], infos: Infos) -> Any:
        finished = np.flatnonzero(ended)
        if not (self._next_step or self._in_workers):
            rows = list(iterate(self.env.observation_space, observations))
            infos["final_obs"] = np.full(self.num_envs, None, dtype=object)
            for index in finished.tolist():
                infos["final_obs"][index] = deepcopy(rows[index])
            infos["final_info"] = _take_out(infos, ended)
            infos["_final_obs"], infos["_final_info"] = ended.copy(), ended.copy()
        last = infos if self._next_step else infos.setdefault("final_info", {})
        episodes = self.episodes.end(finished, _successes(last, finished))
        if "_task" not in last or not last["_task"][finished].all():
            _set(last, "task", episodes.tasks, finished, self.num_envs)
        _set(last, "proposal_id", episodes.ids, finished, self.num_envs)
        self.episodes.observe(episodes)
        proposals = self.episodes.propose(len(finished))
        if self._next_step:
            self._queue(finished, proposals)
            self._waiting = finished, proposals
        else:
            if self._native:
                observations, first = self._start(observations, finished, proposals)
                _put_in(infos, first, ended)
            else:
                self._queue(finished, proposals)
                if not self._in_workers:
                    observations, first = self.env.reset(options={"reset_mask": ended})
                    _put_in(infos, first, ended)
            self.episodes.begin(finished, proposals)
        if self.on_episodes is not None:
            self.on_episodes(episodes)
        return observations

    def _seeds(
        self, proposals: NumberedProposals, seeds: Sequence[int | None] | None
    ) -> Sequence[int | None] | None:
        if self._seed_episodes:
            return [episode_seed(self._seed, number) for number in proposals.ids.tolist()]
        return seeds

    def _queue(
        self,
        rows: NDArray[np.int64],
        proposals: NumberedProposals,
        seeds: Sequence[int | None] | None = None,
    ) -> None:
        """Hold these proposals ready in their environments for the next reset."""
        queued: list[dict[str, Any] | None] = [None] * self.num_envs
        seeds = self._seeds(proposals, seeds)
        for row, index in enumerate(rows.tolist()):
            queued[index] = {
                "options": {**self._options, "task": proposals.tasks[row]},
                "horizon": None if proposals.horizons is None else int(proposals.horizons[row]),
                "seed": None if seeds is None else seeds[row],
            }
        self.env.set_attr("queued_reset", queued)  # type: ignore[attr-defined]

    def _start(
        self,
        observations: Any,
        rows: NDArray[np.int64],
        proposals: NumberedProposals,
        seeds: Sequence[int | None] | None = None,
    ) -> tuple[Any, Infos]:
        """Start these proposals in a natively vectorised environment; return all observations."""
        if self._options:
            raise ValueError(f"{type(self.env).__name__} takes no reset options but tasks: {self._options}")
        first = self.env.start(rows, proposals.tasks, self._seeds(proposals, seeds))  # type: ignore[attr-defined]
        if observations is None:
            observations = first
        else:
            put(observations, rows, first)
        infos: Infos = {}
        _set(infos, "task", proposals.tasks, rows, self.num_envs)
        return observations, infos


def episode_seed(seed: int, number: int) -> int:
    """The seed of the episode of proposal `number` in a run of `seed`, below 2^31."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) >> 1


def _prepare(env: Any) -> None:
    """Let all resets but the workers' own be ours.

    Raises:
        TypeError: when that cannot be.
    """
    kind = type(env).__name__
    if isinstance(env, VectorWrapper):
        raise TypeError(
            f"{kind} is inside the taught environment; wrap the other way round: "
            f"{kind}(TaughtGymnasiumVectorEnv(envs, task_teacher))"
        )
    if not (isinstance(env, SyncVectorEnv | AsyncVectorEnv) or hasattr(env, "start")):
        raise TypeError(
            f"{kind} cannot be given tasks; use SyncVectorEnv, AsyncVectorEnv, or one with a method "
            "`start(indices, tasks, seeds)` as GymnasiumVecTask has it"
        )
    if type(env) is SyncVectorEnv:  # a subclass may step in its own way
        env.envs = [one if one.has_wrapper_attr("queued_reset") else TaskQueue(one) for one in env.envs]
    if not isinstance(env, AsyncVectorEnv) and env.autoreset_mode is AutoresetMode.SAME_STEP:
        env.autoreset_mode = AutoresetMode.DISABLED
    if not hasattr(env, "start") and not all(env.call("has_wrapper_attr", "queued_reset")):
        raise TypeError(
            f"the environments of {kind} are not in `TaskQueue`, so no task can reach their automatic "
            f"resets; make them by {kind}([lambda: TaskQueue(make_env())] * n)"
        )


def _task_space(env: VectorEnv[Any, Any, Any]) -> TaskSpace:
    space: TaskSpace | None = getattr(env, "task_space", None)
    if space is None and hasattr(env, "call") and all(env.call("has_wrapper_attr", "task_space")):
        space = env.get_attr("task_space")[0]  # type: ignore[attr-defined]
    if space is None:
        raise ValueError(
            "the environments have no `task_space`; give them one (see tutelage.envs.check_task_env) "
            "or pass task_space= to TaughtGymnasiumVectorEnv"
        )
    return space


def _successes(infos: Infos, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Success in the last infos of these environments, 1 or 0, NaN where they say nothing, ``(n,)``."""
    name = "success" if "success" in infos else "is_success"
    if name not in infos:
        return np.full(len(rows), np.nan)
    return np.where(infos[f"_{name}"][rows], infos[name][rows].astype(bool).astype(np.float64), np.nan)


def _set(infos: Infos, name: str, values: NDArray[Any], rows: NDArray[np.int64], n: int) -> None:
    """Write `values` of some environments into infos of `n`."""
    array = np.zeros((n, *values.shape[1:]), dtype=values.dtype)
    mask = np.zeros(n, dtype=np.bool_)
    array[rows], mask[rows] = values, True
    _put_in(infos, {name: array, f"_{name}": mask}, mask)


def _take_out(infos: Infos, rows: NDArray[np.bool_]) -> Infos:
    """Move what infos say of some environments into infos of their own."""
    moved: Infos = {}
    for name in [name for name in infos if f"_{name}" in infos]:
        mask = infos[f"_{name}"]
        if np.any(mask & rows):
            value = infos[name]
            moved[name] = _take_out(value, rows) if isinstance(value, dict) else value.copy()
            moved[f"_{name}"], infos[f"_{name}"] = mask & rows, mask & ~rows
    return moved


def _put_in(infos: Infos, new: Infos, rows: NDArray[np.bool_]) -> None:
    """Write what `new` says of some environments into `infos`."""
    for name in [name for name in new if f"_{name}" in new]:
        mask = new[f"_{name}"] & rows
        if name not in infos:
            infos[name], infos[f"_{name}"] = new[name], mask
        elif isinstance(new[name], dict):
            _put_in(infos[name], new[name], rows)
            infos[f"_{name}"] = infos[f"_{name}"] | mask
        else:
            both = np.result_type(infos[name], new[name])
            infos[name] = infos[name].astype(both)
            infos[name][mask] = new[name][mask]
            infos[f"_{name}"] = infos[f"_{name}"] | mask

"""`VecTask`s as Gymnasium environments: a whole batch as a ``VectorEnv``, or a single one as an ``Env``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.batched.cameras.camera_config import CameraConfig, Cameras
from tutelage.envs.batched.cameras.factory import make_cameras
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.contract.state import StateDict
from tutelage.envs.contract.tasks import Tasks
from tutelage.envs.contract.vector import take

Observations = NDArray[Any] | dict[str, NDArray[Any]]


class GymnasiumVecTask(VectorEnv[Observations, NDArray[Any], NDArray[Any]]):
    """A `VecTask` as a Gymnasium vector environment, numpy in and out.

    A finished environment begins its next episode within the same step
    (``metadata["autoreset_mode"]`` is ``AutoresetMode.SAME_STEP``): its last observation is in
    ``infos["final_obs"]``, an object array with None elsewhere, and ``infos["final_info"]`` has its ``task``,
    ``success`` and ``diverged``, each with a mask (``_task``, ...), as `gymnasium.vector.SyncVectorEnv` gives
    them. ``infos["task"]`` are the tasks that run now. With `autoreset_mode` set to `AutoresetMode.DISABLED`
    finished environments wait for `start`, and ``infos`` themselves have ``success`` and ``diverged``.

    Args:
        task: the environments.
        views: None for ``obs`` as a plain array, or names of views and images, which make a dict space.

    Raises:
        ValueError: when the task has no such view.
    """

    defines_success = True

    def __init__(self, task: VecTask, views: Sequence[str] | None = None) -> None:
        self.vec_task = task
        task.terminal_images = True
        self.task_space = task.task_space
        self.num_envs = task.num_envs
        self.view_names = None if views is None else tuple(views)
        self.single_observation_space = _space(task, self.view_names)
        self.single_action_space = task.action_space
        self.observation_space = batch_space(self.single_observation_space, task.num_envs)
        self.action_space = batch_space(task.action_space, task.num_envs)
        self.autoreset_mode = AutoresetMode.SAME_STEP
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin a new episode in every environment.

        Args:
            seed: environment *i* gets the seed ``seed + i``, or ``seed[i]``; None goes on with the streams of
                random numbers that the task has.
            options: ``{"task": task}`` begins one task everywhere, ``{"tasks": tasks}``, shape
                ``(num_envs, d)``, one for each; without them tasks are drawn.

        Raises:
            TaskError: when a task is not in the task space.
            ValueError: when there is another option, both of them, or None for one; when there are not as
                many seeds or tasks as environments, or a seed in a list is None.
        """
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
        if seeds is not None:
            if len(seeds) != self.num_envs:
                raise ValueError(f"{len(seeds)} seeds were given for {self.num_envs} environments")
            if missing := [i for i, one in enumerate(seeds) if one is None]:
                raise ValueError(
                    f"seed[{missing[0]}] is None: give a seed to every environment, or seed=None to go on "
                    "with the streams of random numbers that all of them have"
                )
            super().reset(seed=seeds[0])
        tasks = _tasks(options, self.num_envs)
        obs_dict = _begin(self.vec_task, tasks, seeds)
        return _arrays(obs_dict, self.view_names), self._info()

    def start(
        self, indices: NDArray[np.int64], tasks: Tasks, seeds: Sequence[int] | None = None
    ) -> Observations:
        """Start chosen tasks; return the first observations of just those environments.

        Raises:
            TaskError, ValueError: as `VecTask.start` does.
        """
        first = _arrays(self.vec_task.start(torch.from_numpy(indices), tasks, seeds), self.view_names)
        return take(first, indices)

    def state_dict(self) -> StateDict:
        """The running episodes; see `VecTask.state_dict`."""
        return self.vec_task.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Continue running episodes; see `VecTask.load_state_dict`."""
        self.vec_task.load_state_dict(state)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step all environments; see `gymnasium.vector.VectorEnv.step`."""
        task = self.vec_task
        # Another adaptor of the same task may have set it.
        task.auto_reset = self.autoreset_mode is AutoresetMode.SAME_STEP
        obs_dict, rewards, ends, extras = task.step(_action(task, actions))
        infos = self._info()
        ended = ends.cpu().numpy().astype(bool)
        if ended.any():
            infos.update(self._final(ended, extras) if task.auto_reset else _outcomes(ended, extras))
        return (
            _arrays(obs_dict, self.view_names),
            rewards.cpu().numpy().astype(np.float64),
            task.terminated.cpu().numpy().copy(),
            task.truncated.cpu().numpy().copy(),
            infos,
        )

    def close_extras(self, **_: Any) -> None:
        """Free the simulator."""
        self.vec_task.close()

    def _info(self) -> dict[str, Any]:
        return {
            "task": self.vec_task.tasks.cpu().numpy().copy(),
            "_task": np.ones(self.num_envs, dtype=bool),
        }

    def _final(self, ended: NDArray[np.bool_], extras: dict[str, Any]) -> dict[str, Any]:
        last = _arrays(extras["terminal_obs"], self.view_names)
        final_obs = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended):
            final_obs[i] = _row(last, int(i))
        tasks = np.where(ended[:, None], extras["ended_tasks"].cpu().numpy(), 0.0)
        return {
            "final_obs": final_obs,
            "_final_obs": ended.copy(),
            "final_info": {"task": tasks, "_task": ended.copy(), **_outcomes(ended, extras)},
            "_final_info": ended.copy(),
        }


class SingleVecTask(gymnasium.Env[Observations, NDArray[Any]]):
    """A batch of one as a task environment: `task_space`, ``options={"task": ...}``, ``info["task"]``.

    Info has ``task``, and ``success`` and ``diverged`` at the end of an episode. An episode depends on its
    task, seed and actions alone, and is the same, bit for bit, as that of the same seed in a batch.

    Args:
        task: with ``num_envs=1``.
        render_mode: ``rgb_array``: `render` draws what the task's `default_camera` sees.
        views: None for ``obs`` as a plain array, or names of views and images, which make a dict space.
        camera: what `render` draws; default: 240 x 160 pixels of `default_camera`.

    Raises:
        ValueError: when the task has several environments, or no such view.
    """

    def __init__(
        self,
        task: VecTask,
        render_mode: str | None = None,
        views: Sequence[str] | None = None,
        camera: CameraConfig | None = None,
    ) -> None:
        if task.num_envs != 1:
            raise ValueError(f"the task has {task.num_envs} environments, not one: use GymnasiumVecTask")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r} (known: 'rgb_array', None)")
        self.vec_task = task
        self.task_space = task.task_space
        self.view_names = None if views is None else tuple(views)
        self.observation_space = _space(task, self.view_names)
        self.action_space = task.action_space
        fps = round(1 / (task.model.opt.timestep * task.decimation))
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps}
        self.render_mode = render_mode
        self.camera = camera or CameraConfig(task.default_camera, width=240, height=160)
        self._cameras: Cameras | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin an episode: of ``options["task"]``, or else of a task drawn uniformly.

        Without a seed, the random numbers of the episode are drawn from ``np_random``.

        Raises:
            TaskError: when the task is not in the task space.
            ValueError: when there is another option, or None for one.
        """
        super().reset(seed=seed)
        episode_seed = int(self.np_random.integers(2**62)) if seed is None else seed
        obs_dict = _begin(self.vec_task, _tasks(options, 1), [episode_seed])
        return self._first(obs_dict), self._info()

    def step(self, action: NDArray[Any]) -> tuple[Observations, float, bool, bool, dict[str, Any]]:
        """Step; see `gymnasium.Env.step`."""
        task = self.vec_task
        task.auto_reset = False
        obs_dict, rewards, ends, extras = task.step(_action(task, np.asarray(action)[None]))
        info = self._info()
        if bool(ends[0]):
            info |= {name: bool(extras[name][0]) for name in ("success", "diverged")}
        return (
            self._first(obs_dict),
            float(rewards[0]),
            bool(task.terminated[0]),
            bool(task.truncated[0]),
            info,
        )

    def render(self) -> NDArray[np.uint8] | None:
        """A picture of the present state, uint8 ``(height, width, 3)``; None without a render mode."""
        if self.render_mode is None:
            return None
        if self._cameras is None:
            self._cameras = make_cameras(self.vec_task.sim, [self.camera])
        pictures = self._cameras.render()
        picture: NDArray[np.uint8] = pictures[f"{self.camera.camera}/rgb"][0].cpu().numpy().copy()
        return picture

    def close(self) -> None:
        """Free the simulator."""
        self.vec_task.close()

    def _info(self) -> dict[str, Any]:
        return {"task": self.vec_task.tasks[0].cpu().numpy().copy()}

    def _first(self, obs_dict: Mapping[str, Tensor]) -> Observations:
        return _row(_arrays(obs_dict, self.view_names), 0)


def _outcomes(ended: NDArray[np.bool_], extras: Mapping[str, Any]) -> dict[str, NDArray[np.bool_]]:
    values = {name: extras[name].cpu().numpy() & ended for name in ("success", "diverged")}
    return values | {f"_{name}": ended.copy() for name in values}


def _space(task: VecTask, views: tuple[str, ...] | None) -> gymnasium.Space[Any]:
    if views is None:
        return task.observation_space
    return gymnasium.spaces.Dict({name: task.view_space(name) for name in views})


def _arrays(obs_dict: Mapping[str, Tensor], views: tuple[str, ...] | None) -> Observations:
    """Copies: the task computes its next observations into the same memory."""
    if views is None:
        return obs_dict["obs"].cpu().numpy().copy()
    return {name: obs_dict[name].cpu().numpy().copy() for name in views}


def _row(observations: Observations, i: int) -> Observations:
    if isinstance(observations, dict):
        return {name: view[i] for name, view in observations.items()}
    row: NDArray[Any] = observations[i]
    return row


def _action(task: VecTask, actions: NDArray[Any]) -> Tensor:
    return torch.tensor(np.asarray(actions, dtype=np.float32), device=task.device)


def _tasks(options: Mapping[str, Any] | None, n: int) -> Tasks | None:
    for name in options or {}:
        if name not in ("task", "tasks"):
            near = difflib.get_close_matches(name, ["task", "tasks"], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown reset option {name!r}{hint} (known: task, tasks)")
        if options is not None and options[name] is None:
            raise ValueError(f"reset option {name!r} is None: leave it out to have tasks drawn")
    if not options:
        return None
    if len(options) > 1:
        raise ValueError("reset options 'task' and 'tasks' exclude each other: give one of them")
    if "task" in options:
        return np.stack([np.asarray(options["task"], dtype=np.float64)] * n)
    return np.asarray(options["tasks"], dtype=np.float64)


def _begin(task: VecTask, tasks: Tasks | None, seeds: Sequence[int] | None) -> dict[str, Tensor]:
    if tasks is not None:
        return task.start(torch.arange(task.num_envs), tasks, seeds)
    if seeds is not None:
        task.seed(seeds)
    return task.reset()

"""`VecTask`s as Stable-Baselines3 vector environments, which task teachers can drive."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.contract.state import StateDict
from tutelage.envs.contract.tasks import Tasks
from tutelage.envs.contract.vector import BatchedTaskVecEnv, Observations


class SB3VecTask(BatchedTaskVecEnv):
    """A `VecTask` as an SB3 ``VecEnv``: numpy arrays, terminal observations, truncation marked as such.

    A task teacher drives it through `tutelage.envs.TaughtVecEnv` without any lag: a finished environment gets
    the task that is proposed after its episode ended. Infos of finished environments hold ``task``,
    ``success``, ``diverged``, ``TimeLimit.truncated`` and ``terminal_observation``.

    Args:
        task: the environments.
        views: what students see: None for ``obs`` as a plain array, or names of views and images, which make
            a dict space, e.g. ``("policy", "front/rgb")``.

    Raises:
        ValueError: when the task has no such view.
    """

    defines_success = True

    def __init__(self, task: VecTask, views: Sequence[str] | None = None) -> None:
        self.vec_task = task
        task.terminal_images = True
        self.task_space = task.task_space
        self.view_names = None if views is None else tuple(views)
        space: gymnasium.Space[Any] = task.observation_space
        if self.view_names is not None:
            space = gymnasium.spaces.Dict({name: task.view_space(name) for name in self.view_names})
        super().__init__(task.num_envs, space, task.action_space)
        self._seed: int | None = None
        self._actions = torch.zeros(task.num_envs, task.num_actions, device=task.device)
        self._log_sums: dict[str, float] = {}
        self._logs = 0

    def reset(self) -> Observations:
        """Begin a new episode everywhere: of a newly drawn task, or of that which `set_options` chose.

        ``set_options({"task": task})`` chooses one for all environments, a list of such dicts (empty where a
        task is to be drawn) one for each; both hold for one reset, as SB3 has it.

        Raises:
            TaskError: when a chosen task is not in the task space.
            ValueError: when there is another option, or not one dict for each environment.
        """
        options, self._options = self._options, [{} for _ in range(self.num_envs)]
        chosen, tasks = self._chosen_tasks(options)
        if self._seed is not None:
            self.vec_task.seed([self._seed + i for i in range(self.num_envs)])
            self._seed = None
        if not len(chosen):
            return self._observations(self.vec_task.reset())
        others = np.setdiff1d(np.arange(self.num_envs), chosen)
        if len(others):
            self.vec_task.reset_idx(torch.from_numpy(others))
        return self._observations(self.vec_task.start(torch.from_numpy(chosen), tasks))

    def start(
        self, indices: NDArray[np.int64], tasks: Tasks, seeds: Sequence[int] | None = None
    ) -> Observations:
        """Start chosen tasks; return the first observations of just those environments."""
        order = np.argsort(indices)
        in_order = None if seeds is None else [seeds[i] for i in order]
        self.vec_task.start(torch.from_numpy(indices[order]), np.asarray(tasks)[order], in_order)
        return self._observations(self.vec_task.obs_dict, indices)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = torch.from_numpy(np.asarray(actions, dtype=np.float32)).to(self.vec_task.device)

    def step_wait(self) -> tuple[Observations, NDArray[Any], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step all environments."""
        task = self.vec_task
        task.auto_reset = self.auto_reset
        obs_dict, rewards, ends, extras = task.step(self._actions)
        dones = ends.cpu().numpy().astype(bool)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        finished = np.flatnonzero(dones)
        if len(finished):
            self._describe(infos, finished, extras)
        return self._observations(obs_dict), rewards.cpu().numpy().copy(), dones, infos

    def take_metrics(self) -> dict[str, float]:
        """Return the means since the last call: each reward term's sum over an episode, lengths, success.

        Each step in which episodes ended counts alike. ``episode/diverged`` is the number of simulations
        that have diverged so far.
        """
        metrics = {name: total / self._logs for name, total in self._log_sums.items()}
        self._log_sums, self._logs = {}, 0
        if metrics:
            metrics["episode/diverged"] = float(self.vec_task.num_diverged)
        return metrics

    def _chosen_tasks(self, options: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.int64], Tasks]:
        """The environments whose options choose a task, and those tasks."""
        if len(options) != self.num_envs:
            raise ValueError(f"set_options was given {len(options)} dicts for {self.num_envs} environments")
        for name in {name for option in options for name in option} - {"task"}:
            near = "; did you mean 'task'?" if difflib.get_close_matches(name, ["task"]) else ""
            raise ValueError(f"unknown reset option {name!r}{near} (known: task)")
        chosen = [i for i, option in enumerate(options) if option.get("task") is not None]
        tasks = [np.asarray(options[i]["task"], dtype=np.float64) for i in chosen]
        checked = self.task_space.check(np.stack(tasks)) if tasks else np.zeros((0, *self.task_space.shape))
        return np.array(chosen, dtype=np.int64), checked

    def _describe(
        self, infos: list[dict[str, Any]], finished: NDArray[np.int64], extras: dict[str, Any]
    ) -> None:
        self._logs += 1
        for name, value in extras["log"].items():
            if name == "episode/count":  # no mean over episodes
                continue
            self._log_sums[name] = self._log_sums.get(name, 0.0) + float(value)
        terminal = self._observations(extras["terminal_obs"], finished)
        truncated, success, diverged = (
            extras[name].cpu().numpy()[finished].tolist() for name in ("time_outs", "success", "diverged")
        )
        tasks = extras["ended_tasks"].cpu().numpy()[finished]
        for row, index in enumerate(finished.tolist()):
            infos[index] = {
                "task": tasks[row],
                "success": success[row],
                "diverged": diverged[row],
                "TimeLimit.truncated": truncated[row],
                "terminal_observation": (
                    {name: part[row] for name, part in terminal.items()}
                    if isinstance(terminal, dict)
                    else terminal[row]
                ),
            }

    def state_dict(self) -> StateDict:
        """The running episodes; see `VecTask.state_dict`."""
        return self.vec_task.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Continue running episodes; see `VecTask.load_state_dict`."""
        self.vec_task.load_state_dict(state)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Let the next `reset` seed environment *i* with ``seed + i``."""
        self._seed = seed
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def close(self) -> None:
        """Free the simulator."""
        self.vec_task.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the task, once for each environment."""
        value = None if attr_name == "render_mode" else getattr(self.vec_task, attr_name)
        return [value] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the task, for all environments at once."""
        setattr(self.vec_task, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method of the task, once for all environments; the result stands for each."""
        result = getattr(self.vec_task, method_name)(*args, **kwargs)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """There are no Gymnasium wrappers inside."""
        return [False] * len(list(self._get_indices(indices)))

    def _observations(
        self, obs_dict: dict[str, Tensor], rows: NDArray[np.int64] | slice = slice(None)
    ) -> Observations:
        def array(tensor: Tensor) -> NDArray[Any]:
            return tensor.cpu().numpy()[rows].copy()

        if self.view_names is None:
            return array(obs_dict["obs"])
        return {name: array(obs_dict[name]) for name in self.view_names}

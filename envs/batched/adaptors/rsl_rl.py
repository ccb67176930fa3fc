"""`VecTask`s as environments of rsl_rl: for its PPO, its distillation, and trainers built on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rsl_rl.env import VecEnv
from tensordict import TensorDict
from torch import Tensor

from tutelage.envs.batched.task.vec_task import VecTask


class RslRlVecTask(VecEnv):
    """A `VecTask` as an ``rsl_rl.env.VecEnv`` (rsl-rl-lib 5.5).

    Every view is an observation group of its own name, so that the runner's ``obs_groups`` can say, e.g.,
    ``{"actor": ["policy"], "critic": ["privileged"]}``. Images become what rsl_rl's ``CNNModel`` takes,
    float32 ``(num_envs, channels, height, width)``: RGB in [0, 1], depth in metres up to `far`, segmentation
    as the ids themselves, -1 where there is nothing.

    rsl_rl never resets: the task's running episodes go on, and finished ones are reset within the step. At a
    time limit (``extras["time_outs"]``) its PPO adds the discounted value of the state *before* the last step
    to the reward, an approximation that needs no terminal observation. A divergence is a termination.
    ``extras["log"]`` holds the reward terms and success rate of the episodes that ended in the step.

    Tensors are copies, and not inference tensors even where the runner steps in inference mode, so the task
    can be used outside of it afterwards.

    Args:
        task: the environments.
        views: which views become groups; default: all. rsl_rl stores every group of every step.
        far: depth of what is farther, or nothing.

    Attributes:
        cfg: what the runner's logger stores about the environments.

    Raises:
        ValueError: when the task has no such view.

    Example::

        runner = OnPolicyRunner(RslRlVecTask(StumpWalker(1024)), train_cfg, log_dir=None)
        runner.learn(300, init_at_random_ep_len=True)
    """

    def __init__(self, task: VecTask, views: Sequence[str] | None = None, far: float = 10.0) -> None:
        self.vec_task = task
        self.num_envs = task.num_envs
        self.num_actions = task.num_actions
        self.max_episode_length = task.max_episode_length
        self.device = task.device
        self.groups = tuple(task.views if views is None else views)
        for name in self.groups:
            task.view_space(name)
        self.far = far
        self.cfg = {"task": type(task).__name__, "num_envs": task.num_envs}

    @property
    def episode_length_buf(self) -> Tensor:
        """Steps of the running episodes, int64; the runner overwrites it to spread the first ends."""
        return self.vec_task.progress_buf

    @episode_length_buf.setter
    def episode_length_buf(self, lengths: Tensor) -> None:
        self.vec_task.progress_buf.copy_(lengths)

    def get_observations(self) -> TensorDict:
        """The present observations, one entry for each group."""
        return self._observations(self.vec_task.obs_dict)

    def step(self, actions: Tensor) -> tuple[TensorDict, Tensor, Tensor, dict[str, Any]]:
        """Step all environments; see `rsl_rl.env.VecEnv.step`."""
        with torch.inference_mode(False), torch.no_grad():
            self.vec_task.auto_reset = True  # another adaptor of the same task may have turned it off
            obs_dict, rewards, ends, extras = self.vec_task.step(actions)
            log = {"log": dict(extras["log"])} if "log" in extras else {}
            return (
                self._observations(obs_dict),
                rewards.clone(),
                ends.clone(),
                {"time_outs": extras["time_outs"], "success": extras["success"], **log},
            )

    def _observations(self, obs_dict: Mapping[str, Tensor]) -> TensorDict:
        groups = {name: self._group(obs_dict[name]) for name in self.groups}
        return TensorDict(groups, batch_size=[self.num_envs], device=self.device)

    def _group(self, view: Tensor) -> Tensor:
        if view.ndim == 4:
            return view.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)
        if view.ndim == 3:
            image = view[:, None].to(torch.float32)
            return image.clamp(max=self.far) if view.is_floating_point() else image  # ids are no distances
        return view.clone()

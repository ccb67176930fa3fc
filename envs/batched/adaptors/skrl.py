"""`VecTask`s as environments of skrl 2.x, whose own wrapper of Isaac Gym is gone."""

from __future__ import annotations

from typing import Any

from skrl.envs.wrappers.torch import Wrapper
from torch import Tensor

from tutelage.envs.batched.task.vec_task import VecTask


class SkrlVecTask(Wrapper):
    """A `VecTask` as a ``skrl.envs.wrappers.torch.Wrapper`` (skrl 2.1).

    Observations are ``obs``; `state`, for asymmetric critics, is ``states`` (choose both by the task's
    `obs_view` and `states_view`). Rewards, terminations and truncations are ``(num_envs, 1)``. Infos hold
    the task's extras; the reward terms and success rate of the episodes that ended are also in
    ``info["episode"]``, where skrl's trainers look for what they log. Attributes of the task are found
    through the wrapper. Tensors are copies, as skrl changes rewards in place.

    A finished environment begins its next episode within the same step. With ``time_limit_bootstrap``, skrl's
    PPO values a truncated episode by the observation that follows, which is the first of the next episode
    (as with Isaac Lab); the true last ones are in ``info["terminal_obs"]``.

    Args:
        task: the environments.

    Example::

        env = SkrlVecTask(StumpWalker(256))
        trainer = SequentialTrainer(env=env, agents=agent, cfg={"timesteps": 10_000, "headless": True})
    """

    def __init__(self, task: VecTask) -> None:
        super().__init__(task)
        self.vec_task = task
        self._begun = False

    def reset(self) -> tuple[Tensor, dict[str, Any]]:
        """Begin new episodes everywhere.

        skrl's trainers also call this when the only environment of a batch of one has ended; its next episode
        has then begun already and goes on.
        """
        if not self._begun:
            self.vec_task.reset()
        self._begun = False
        return self.vec_task.obs_buf.clone(), {}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Step all environments; see `skrl.envs.wrappers.torch.Wrapper.step`."""
        task = self.vec_task
        task.auto_reset = True  # another adaptor of the same task may have turned it off
        obs_dict, rewards, ends, extras = task.step(actions)
        self._begun = self.num_envs == 1 and bool(ends[0])
        info = {**extras, "episode": extras["log"]} if "log" in extras else dict(extras)
        return (
            obs_dict["obs"].clone(),
            rewards[:, None].clone(),
            task.terminated[:, None],
            task.truncated[:, None],
            info,
        )

    def state(self) -> Tensor:
        """Return the critic's view, ``(num_envs, num_states)``."""
        return self.vec_task.states_buf.clone()

    def render(self, *args: Any, **kwargs: Any) -> None:
        """Draw nothing: add cameras to the task to see it."""

    def close(self) -> None:
        """Free the simulator."""
        self.vec_task.close()

"""Building an unmodified SB3 algorithm over a taught environment, and training it in resumable stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from tutelage.students.sb3.config import StudentConfig, algorithm_class

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecEnv


def make_student(config: StudentConfig, venv: VecEnv, seed: int, total_steps: int) -> BaseAlgorithm:
    """Build the algorithm over `venv` (a taught environment), with `VecNormalize` around it if asked for.

    Schedules of learning rates and the like run over `total_steps`, however often training stops and resumes.
    Episodes proposed with ``trains=False`` are left out of its updates, see `leave_out_untrained`.

    Args:
        config: which algorithm, and its arguments.
        venv: the taught vector environment.
        seed: of the algorithm. SB3 draws from the global generators of torch, numpy and random.
        total_steps: environment steps of the whole training.

    Raises:
        ValueError: when the algorithm refuses its arguments or the environment's spaces.
    """
    from stable_baselines3.common.vec_env import VecNormalize

    from tutelage.students.sb3.training_mask import leave_out_untrained

    kwargs = dict(config.kwargs)
    if kwargs.get("optimize_memory_usage"):
        raise ValueError(
            "optimize_memory_usage=True cannot be resumed exactly; leave it out of the student's kwargs"
        )
    if "policy_kwargs" in kwargs:
        kwargs["policy_kwargs"] = _policy_kwargs(kwargs["policy_kwargs"])
    if isinstance(kwargs.get("train_freq"), list):  # JSON has no tuples
        kwargs["train_freq"] = tuple(kwargs["train_freq"])
    normalize_observations = config.normalize_observations and _normalizable(venv.observation_space)
    if normalize_observations or config.normalize_rewards:
        venv = VecNormalize(
            venv,
            norm_obs=normalize_observations,
            norm_reward=config.normalize_rewards,
            gamma=kwargs.get("gamma", 0.99),
        )
    try:
        policy = _policy_for(config.policy, venv.observation_space)
        model: BaseAlgorithm = algorithm_class(config.algorithm)(
            policy, venv, seed=seed, device=config.device, **kwargs
        )
    except (TypeError, AssertionError) as error:
        raise ValueError(f"student {config.algorithm!r} cannot be built: {error}") from None

    def progress(num_timesteps: int, _: int) -> None:
        model._current_progress_remaining = 1.0 - float(num_timesteps) / float(total_steps)

    model._update_current_progress_remaining = progress  # type: ignore[method-assign,assignment]
    leave_out_untrained(model)
    return model


def train_until(
    model: BaseAlgorithm, step: int, callback: BaseCallback | None = None, new_episodes: bool = True
) -> None:
    """Train until at least `step` environment steps in all.

    Args:
        model: the student.
        step: counted from the beginning of its training.
        callback: SB3's.
        new_episodes: begin new episodes in every environment. Where running episodes cannot be saved, every
            stage between two checkpoints must do so, in uninterrupted runs too, so that a resumed run has
            the same curve.
    """
    if new_episodes:
        model._last_obs = None  # makes `learn` reset the environments
    model.learn(step - model.num_timesteps, callback=callback, reset_num_timesteps=False)


def _policy_for(policy: str, space: spaces.Space[Any]) -> str:
    """The form of a named multi-layer policy that takes these observations."""
    from stable_baselines3.common.preprocessing import is_image_space

    if policy.startswith("Mlp") and isinstance(space, spaces.Dict):
        return policy.replace("Mlp", "MultiInput", 1)
    if policy.startswith("Mlp") and is_image_space(space):
        return policy.replace("Mlp", "Cnn", 1)
    return policy


def _normalizable(space: spaces.Space[Any]) -> bool:
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    return all(isinstance(part, spaces.Box) and part.dtype != np.uint8 for part in parts)


def _policy_kwargs(kwargs: Any) -> dict[str, Any]:
    import torch

    result = dict(kwargs)
    if isinstance(result.get("activation_fn"), str):
        name = result["activation_fn"]
        if not hasattr(torch.nn, name):
            raise ValueError(f"activation_fn {name!r} is no class of torch.nn; try 'Tanh' or 'ReLU'")
        result["activation_fn"] = getattr(torch.nn, name)
    return result

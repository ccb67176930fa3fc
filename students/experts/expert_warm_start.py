"""Training an expert further: PPO that begins as an expert, with its critic and its statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tutelage.students.sb3.config import StudentConfig
from tutelage.teachers.experts.mlp_expert import MLPExpert, NormalizedMLP

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

SEEN = 1_000_000  # observations that statistics count as made of: they, and so the policy, move slowly
UNCLIPPED = 1e6


def config_like(config: StudentConfig, expert: MLPExpert) -> StudentConfig:
    """A student's config with the networks of an expert, and all else as it was.

    Raises:
        ValueError: when the algorithm is not PPO.
    """
    if config.algorithm != "ppo":
        raise ValueError(f"start_from goes with the algorithm 'ppo', not {config.algorithm!r}")
    hidden, critic = expert.config.hidden, expert.config.critic_hidden or expert.config.hidden
    policy: Mapping[str, Any] = {
        **(config.kwargs.get("policy_kwargs") or {}),
        "net_arch": {"pi": list(hidden), "vf": list(critic)},
        "activation_fn": expert.config.activation,
    }
    return replace(config, kwargs={**config.kwargs, "policy_kwargs": policy}, normalize_observations=True)


def warm_start(model: BaseAlgorithm, expert: MLPExpert) -> None:
    """Give SB3's PPO, built with `config_like`, the weights and statistics of an expert.

    Its first actions are then the expert's, to the last bit that float32 keeps. The critic comes along where
    it sees what the actor sees, as SB3 has it (with the statistics of the actor); else a new one is learnt.
    Rewards go on being divided by the expert's scale.

    Args:
        model: over a `VecNormalize`.
        expert: copied, not changed.

    Raises:
        ValueError: when the model has no `VecNormalize`, or other sizes.
    """
    normalizer = model.get_vec_normalize_env()
    if normalizer is None or not normalizer.norm_obs:
        raise ValueError("an expert is trained further over normalised observations; see config_like")
    clip = expert.config.clip
    normalizer.clip_obs = UNCLIPPED if clip is None else clip
    observed: Any = normalizer.obs_rms
    scale = expert.actor.scale.cpu().numpy()
    observed.mean = expert.actor.mean.cpu().numpy().copy()
    observed.var = np.maximum(scale**2 - normalizer.epsilon, 0.0)
    observed.count = float(SEEN)
    if normalizer.norm_reward:
        rewarded: Any = normalizer.ret_rms
        rewarded.var = np.float64(max(expert.reward_scale**2 - normalizer.epsilon, 0.0))
        rewarded.count = float(SEEN)
    tensors = {**_layers(expert.actor, "policy_net", "action_net"), "log_std": expert.log_std}
    critic = expert.critic
    if critic is not None and expert.config.critic_view == expert.config.view:
        same = torch.equal(critic.mean, expert.actor.mean) and torch.equal(critic.scale, expert.actor.scale)
        if same:
            tensors |= _layers(critic, "value_net", "value_net")
    own = model.policy.state_dict()
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            found = tuple(own[name].shape) if name in own else "none"
            raise ValueError(f"the expert's {name} is {tuple(tensor.shape)}, the model's {found}")
        own[name].copy_(tensor)  # in place: these are the model's own parameters


def _layers(network: NormalizedMLP, branch: str, last: str) -> dict[str, Tensor]:
    """Weights by the names of SB3's ``ActorCriticPolicy``."""
    tensors = dict(network.layers.state_dict())
    final = max(int(name.partition(".")[0]) for name in tensors)
    named = {}
    for name, tensor in tensors.items():
        index, _, kind = name.partition(".")
        ours = int(index) == final
        named[f"{last}.{kind}" if ours else f"mlp_extractor.{branch}.{index}.{kind}"] = tensor
    return named

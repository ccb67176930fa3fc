"""PPO's formulas: its settings, the generalised advantage estimate, and the terms of its loss.

Used by `tutelage.students.distillation.machinery.actor_critic`, which rolls out and takes the gradient steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tutelage.students.vision.student_state import StudentOutput

RATES = (1e-5, 1e-2)  # between which the learning rate follows the KL divergence


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO, Schulman et al. 2017, "Proximal Policy Optimization Algorithms".

    Attributes:
        rollout_steps: steps of all environments in a round; of students with memory, also how far gradients
            go back in time.
        epochs: passes over them.
        gamma: discount; None: the expert's if there is one that tells, or else 0.99.
        lam: of the generalised advantage estimate.
        clip: how far the ratio of probabilities may be from 1 to still give a gradient.
        ratio_limit: the largest ratio that gives a gradient where the advantage is negative, which PPO does
            not limit: Ye et al. 2020, "Mastering Complex Control in MOBA Games with Deep Reinforcement
            Learning", equation 5. It matters where a term of imitation moves the policy far; None: none.
        value_loss: weight of the squared error of values, in units of the critic's `value_scale`.
        clip_values: count a value's error at least as large as if the value had moved by `clip` at most.
        entropy: weight of the entropy.
        desired_kl: where set, the learning rate does not fall with the budget, but follows the KL divergence
            of old and new policy, as rsl_rl's does: divided by 1.5 where that is above twice this,
            multiplied by it below half.

    Raises:
        ValueError: for a number out of range.
    """

    rollout_steps: int = 25
    epochs: int = 5
    gamma: float | None = None
    lam: float = 0.95
    clip: float = 0.2
    ratio_limit: float | None = None
    value_loss: float = 1.0
    clip_values: bool = False
    entropy: float = 0.0
    desired_kl: float | None = None

    def __post_init__(self) -> None:
        for name in ("rollout_steps", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("gamma", "lam"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {value}")
        if not self.clip > 0 or self.value_loss < 0 or self.entropy < 0:
            raise ValueError(
                "need clip > 0, value_loss >= 0 and entropy >= 0, not "
                f"{self.clip}, {self.value_loss}, {self.entropy}"
            )
        if self.ratio_limit is not None and not self.ratio_limit > 1 + self.clip:
            raise ValueError(f"ratio_limit must be above 1 + clip or None, not {self.ratio_limit}")
        if self.desired_kl is not None and not self.desired_kl > 0:
            raise ValueError(f"desired_kl must be above 0 or None, not {self.desired_kl}")


class Terms(NamedTuple):
    """Parts of the loss, and diagnostics of the update, of each sample, ``(...)``.

    Attributes:
        surrogate: the clipped one, negated, to be minimised.
        value: squared error in units of the critic's scale.
        entropy: of the policy.
        kl: KL(old policy || new policy).
        clipped: 1 where the ratio was outside of the clipping range.
    """

    surrogate: Tensor
    value: Tensor
    entropy: Tensor
    kl: Tensor
    clipped: Tensor


def gae(
    rewards: Tensor, values: Tensor, next_values: Tensor, ended: Tensor, gamma: float, lam: float
) -> Tensor:
    """Generalised advantage estimates, Schulman et al. 2016, equation 16, ``(T, n)``.

    ::

        delta_t = r_t + gamma V(s_{t+1}) - V(s_t)
        A_t     = delta_t + gamma lam A_{t+1}, where the episode goes on; delta_t, where it ended

    Args:
        rewards, values: ``(T, n)``.
        next_values: V(s_{t+1}) as it was before any reset; 0 after a termination.
        ended: bool, by termination or time limit.
        gamma, lam: discount, and that of the estimate.
    """
    deltas = rewards + gamma * next_values - values
    advantages = torch.empty_like(deltas)
    following = torch.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        following = deltas[t] + gamma * lam * torch.where(ended[t], 0.0, following)
        advantages[t] = following
    return advantages


def ppo_terms(
    output: StudentOutput, batch: Mapping[str, Tensor], ppo: PPOConfig, value_scale: Tensor
) -> Terms:
    """PPO's terms of each sample; equation 7 of the paper, and the squared error of values.

    ::

        surrogate = -min(r A, clip(r, 1 - clip, 1 + clip) A),    r = pi(a | s) / pi_old(a | s)
        value     = ((V - R) / scale)^2

    Where A < 0, the surrogate is at most ``-ratio_limit A``.

    Args:
        output: the student's answers.
        batch: ``actions``, ``means``, ``stds``, ``log_probs``, ``values``, ``advantages``, ``returns``.
        ppo: settings; `clip` is also that of values, in units of `value_scale`.
        value_scale: units of the error of values.
    """
    mean, std, value = output.mean, output.std, output.value
    assert std is not None
    assert value is not None
    clip = ppo.clip
    ratio = (log_prob(batch["actions"], mean, std) - batch["log_probs"]).exp()
    advantages = batch["advantages"]
    surrogate = -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    if ppo.ratio_limit is not None:
        limited = torch.minimum(surrogate, -ppo.ratio_limit * advantages)
        surrogate = torch.where(advantages < 0, limited, surrogate)
    errors = ((value - batch["returns"]) / value_scale).square()
    if ppo.clip_values:
        moved = ((value - batch["values"]) / value_scale).clamp(-clip, clip)
        near = (batch["values"] - batch["returns"]) / value_scale + moved
        errors = torch.maximum(errors, near.square())
    entropy = (std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)
    kl = gaussian_kl(mean, std, batch["means"], batch["stds"])
    return Terms(surrogate, errors, entropy, kl, ((ratio - 1).abs() > clip).to(ratio.dtype))


def log_prob(actions: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Logarithm of the density of independent normal actions, ``(..., a)`` to ``(...)``."""
    standard = (actions - mean) / std
    return (-0.5 * standard.square() - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def gaussian_kl(mean: Tensor, std: Tensor, target_mean: Tensor, target_std: Tensor) -> Tensor:
    """KL(expert || student) of normal distributions with independent actions, summed over actions.

    ``sum_j ln(s_j / e_j) + (e_j^2 + (m_j - t_j)^2) / (2 s_j^2) - 1/2``, s the student's deviation, e the
    expert's. Rusu et al. 2015, "Policy Distillation", use this direction, and found it better than regression
    and than the most likely action. On trajectories of the student it is the "on-policy distill" of Czarnecki
    et al. 2019, "Distilling Policy Distillation", up to the entropy of the expert, which has no gradient.
    """
    ratio = target_std / std
    distance = (mean - target_mean) / std
    return (0.5 * (ratio.square() + distance.square() - 1) - ratio.log()).sum(-1)


def adapted_rate(rate: float, kl: float, desired: float) -> float:
    """The learning rate after an update of this KL divergence; see `PPOConfig`. From 1e-5 to 0.01."""
    if kl > 2 * desired:
        return max(RATES[0], rate / 1.5)
    if 0 < kl < desired / 2:
        return min(RATES[1], rate * 1.5)
    return rate

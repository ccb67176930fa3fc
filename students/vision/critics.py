"""Critics of vision students, with normalisers of their inputs and of their values.

Reinforcement learning of a student needs the value of a state. The critic may see what the student does not,
and may be an expert's; values are always returns of the task's own rewards, so they can be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tutelage.envs.contract.names import unknown_name
from tutelage.students.torch_tools.running_moments import update_moments
from tutelage.teachers.experts.mlp_expert import ACTIVATIONS, NormalizedMLP

if TYPE_CHECKING:
    from tutelage.teachers.experts.mlp_expert import MLPExpert

FOLLOW = 0.05  # weight of the newest returns in their running mean and variance
LEAST_SCALE = 1e-2  # of returns that hardly differ


class Critic(nn.Module):
    """V(view) = value_mean + value_scale * layers((view - mean) / scale).

    Inputs are normalised by `observe`, which keeps mean and deviation of all that was ever seen. Outputs are
    normalised by `follow`: PopArt, van Hasselt et al. 2016, "Learning values across many orders of
    magnitude", section 2: where mean and scale of the returns change, the last layer is changed so that every
    value stays as it was. The loss of values is taken in units of `value_scale`. Without any call of these
    two, both are the identity.

    Args:
        inputs: size of what it sees.
        hidden: widths of hidden layers.
        activation: one of `tutelage.teachers.experts.mlp_expert.ACTIVATIONS`.
        clip: normalised inputs are clipped to [-clip, clip]; None: not at all.

    Attributes:
        network: normaliser of inputs, and layers.
        value_mean, value_scale: of returns, float32 scalars.

    Raises:
        ValueError: for an unknown activation.
    """

    value_mean: Tensor
    value_scale: Tensor
    seen: Tensor
    followed: Tensor

    def __init__(
        self, inputs: int, hidden: tuple[int, ...], activation: str = "ELU", clip: float | None = None
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(unknown_name("activation", activation, ACTIVATIONS))
        self.inputs, self.hidden, self.activation, self.clip = inputs, hidden, activation, clip
        self.network = NormalizedMLP(inputs, hidden, 1, activation, clip)
        self.register_buffer("value_mean", torch.zeros(()))
        self.register_buffer("value_scale", torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("followed", torch.zeros((), dtype=torch.int64))
        self.register_load_state_dict_pre_hook(_upgrade)

    @staticmethod
    def of_expert(expert: MLPExpert) -> Critic:
        """A copy of an expert's critic, with its normaliser and the scale of its rewards, to be trained.

        Raises:
            ValueError: when it has none.
        """
        config = expert.config
        if expert.critic is None:
            raise ValueError(
                "the expert has no critic; train one with train_expert, or load one that was saved with its "
                "critic (SB3's PPO, rsl_rl's PPO), or learn by asymmetric PPO, which needs none"
            )
        critic = Critic(config.num_states, config.critic_hidden, config.activation, config.clip)
        critic.network.load_state_dict(expert.critic.state_dict())
        critic.value_scale.fill_(expert.reward_scale)
        return critic

    def forward(self, view: Tensor) -> Tensor:
        """Return the expected returns, in the task's rewards, ``(n,)`` for ``(n, inputs)``."""
        values: Tensor = self.network(view)[:, 0]
        return self.value_mean + self.value_scale * values

    def observe(self, views: Tensor) -> None:
        """Update the mean and deviation of all inputs by some more, ``(n, inputs)``."""
        update_moments(self.network.mean, self.network.scale, self.seen, views)

    @torch.no_grad()
    def follow(self, returns: Tensor) -> None:
        """Let `value_mean` and `value_scale` follow returns of the task's rewards, any shape.

        With weight w = max(1 / k, 0.05) of the k-th call: ``m <- (1 - w) m + w mean(R)``, and likewise the
        second moment; ``scale = sqrt(second moment - m^2)``.
        """
        self.followed += 1
        weight = max(1 / int(self.followed), FOLLOW)
        mean = torch.lerp(self.value_mean, returns.mean(), weight)
        second = self.value_scale.square() + self.value_mean.square()
        second = torch.lerp(second, returns.square().mean(), weight)
        self.rescale(mean, (second - mean.square()).clamp(min=LEAST_SCALE**2).sqrt())

    @torch.no_grad()
    def rescale(self, mean: Tensor, scale: Tensor) -> None:
        """Change `value_mean` and `value_scale`, and the last layer so that no value changes.

        ``w <- w s / s'``, ``b <- (s b + m - m') / s'``
        """
        last = self.network.layers[-1]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(self.value_scale / scale)
        last.bias.copy_((self.value_scale * last.bias + self.value_mean - mean) / scale)
        self.value_mean.copy_(mean)
        self.value_scale.copy_(scale)


def _upgrade(module: nn.Module, tensors: dict[str, Any], prefix: str, *_: Any) -> None:
    """Read critics of older files: bare layers, without normalisers."""
    old = [
        name for name in tensors if name.startswith(prefix) and name[len(prefix) :].split(".")[0].isdigit()
    ]
    if not old:
        return
    for name in old:
        tensors[f"{prefix}network.layers.{name[len(prefix) :]}"] = tensors.pop(name)
    for name, buffer in module.named_buffers():
        tensors.setdefault(prefix + name, buffer)

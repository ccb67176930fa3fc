"""The policy that rsl_rl's PPO trains, and its settings: acts, saves and loads without rsl_rl."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutelage.envs.contract.names import unknown_name
from tutelage.envs.contract.state import StateError, atomic_file, write_json
from tutelage.students.sb3.checkpoint import untouched_generators

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "selu": nn.SELU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "swish": nn.SiLU,
}
"""Activation functions, as rsl_rl names them."""

WEIGHTS, DESCRIPTION = "policy.safetensors", "policy.json"


@dataclass(frozen=True)
class RslRlPPOConfig:
    """PPO (Schulman et al. 2017, arXiv:1707.06347) with rsl_rl's learning rate; JSON values only.

    Attributes:
        num_envs: environments stepped at once; the task's must be as many.
        seed: of networks and actions; tasks and starts have the task's own seed.
        actor_view, critic_view: views that they see; a critic may see what the robot cannot.
        actor_hidden, critic_hidden: widths of the hidden layers.
        activation: one of `ACTIVATIONS`.
        init_noise_std: standard deviation of the first actions; 1 spans the range of actions.
        normalize_observations: by running mean and standard deviation.
        steps_per_env: steps of each environment between updates.
        epochs, minibatches: passes over those steps, and parts of a pass.
        learning_rate: the first one.
        schedule: ``adaptive``: the learning rate falls by 1.5 where the policy changed by more than twice
            `desired_kl`, and rises where by less than half; between 1e-5 and 1e-2. ``fixed``: it stays.
        desired_kl: KL divergence that one minibatch step should cause.
        gamma, lam: discount, and lambda of the advantage estimation.
        clip: of the probability ratio, and of the change of values.
        entropy: weight of the entropy bonus.
        value_loss: weight of the value loss.
        max_grad_norm: gradients are scaled down to it.
        spread_starts: count the first episodes as if they had begun at random times, so that not all reach
            the time limit together.
    """

    num_envs: int = 256
    seed: int = 0
    actor_view: str = "policy"
    critic_view: str = "privileged"
    actor_hidden: tuple[int, ...] = (128, 128)
    critic_hidden: tuple[int, ...] = (128, 128)
    activation: Literal["elu", "selu", "relu", "tanh", "gelu", "swish"] = "elu"
    init_noise_std: float = 1.0
    normalize_observations: bool = True
    steps_per_env: int = 24
    epochs: int = 5
    minibatches: int = 4
    learning_rate: float = 1e-3
    schedule: Literal["adaptive", "fixed"] = "adaptive"
    desired_kl: float = 0.01
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    entropy: float = 0.0
    value_loss: float = 1.0
    max_grad_norm: float = 1.0
    spread_starts: bool = True


@dataclass(frozen=True)
class Progress:
    """Figures of one iteration of training.

    Attributes:
        steps: environment steps so far, of all environments.
        seconds: since training began.
        episodes: how many ended in this iteration.
        success, mean_return, mean_length: means over those; NaN where there were none.
        learning_rate, noise_std: now.
        losses: means over the update, by rsl_rl's names.
    """

    steps: int
    seconds: float
    episodes: int
    success: float
    mean_return: float
    mean_length: float
    learning_rate: float
    noise_std: float
    losses: dict[str, float]


class Network(nn.Module):
    """Layers behind an observation normaliser with fixed statistics."""

    mean: Tensor
    scale: Tensor

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int, activation: str) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(inputs, width), ACTIVATIONS[activation]()]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def forward(self, observations: Tensor) -> Tensor:
        """Outputs, ``(n, outputs)``."""
        result: Tensor = self.layers((observations - self.mean) / self.scale)
        return result


class RslRlPolicy(nn.Module):
    """A trained actor and its critic.

    Args:
        config: what it was trained with.
        num_obs, num_states: sizes of the actor's and the critic's view.
        num_actions: size of an action.

    Attributes:
        history: the training, where this has just been trained.
    """

    def __init__(self, config: RslRlPPOConfig, num_obs: int, num_states: int, num_actions: int) -> None:
        super().__init__()
        self.config = config
        self.sizes = {"num_obs": num_obs, "num_states": num_states, "num_actions": num_actions}
        with untouched_generators():  # the first weights are overwritten
            self.actor = Network(num_obs, config.actor_hidden, num_actions, config.activation)
            self.critic = Network(num_states, config.critic_hidden, 1, config.activation)
        self.noise_std = nn.Parameter(torch.ones(num_actions))
        self.history: list[Progress] = []

    @torch.no_grad()
    def act(self, obs_dict: Mapping[str, Tensor]) -> Tensor:
        """Return the deterministic actions, in [-1, 1], for a task's observations."""
        actions: Tensor = self.actor(obs_dict[self.config.actor_view])
        return actions.clamp(-1, 1)

    def distribution(self, obs_dict: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the normal distribution of actions, before clipping."""
        mean: Tensor = self.actor(obs_dict[self.config.actor_view])
        return mean, self.noise_std.expand_as(mean)

    def value(self, obs_dict: Mapping[str, Tensor]) -> Tensor:
        """The critic's estimate of the return, ``(n,)``."""
        values: Tensor = self.critic(obs_dict[self.config.critic_view])
        return values[:, 0]

    @torch.no_grad()
    def predict(
        self,
        observations: NDArray[Any],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.float32], None]:
        """Act as SB3's ``predict`` does, so that `tutelage.students.sb3.evaluation.evaluate` takes it.

        Args:
            observations: the actor's view, ``(n, num_obs)``.
            state, episode_start: ignored, as the policy has no memory.
            deterministic: must be True.
        """
        if not deterministic:
            raise ValueError("draw random actions from `distribution`, with a generator of your own")
        view = torch.as_tensor(observations, device=self.noise_std.device)
        return self.act({self.config.actor_view: view}).cpu().numpy(), None

    def get_vec_normalize_env(self) -> None:
        """None: this policy normalises its observations itself."""

    def save(self, folder: str | Path) -> None:
        """Write weights (safetensors) and description (JSON) into a folder, each file atomically."""
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}
        with atomic_file(Path(folder) / WEIGHTS) as part:
            save_file(tensors, part)
        write_json(Path(folder) / DESCRIPTION, {"config": asdict(self.config), **self.sizes})

    @staticmethod
    def load(folder: str | Path, device: str | torch.device = "cpu") -> RslRlPolicy:
        """Read the files of `save`; executes no code.

        Raises:
            FileNotFoundError: when there is no such file.
            StateError: when a file is truncated, foreign, or does not fit the other.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            description = json.loads((Path(folder) / DESCRIPTION).read_text())
            config = config_from_json(description.pop("config"))
            policy = RslRlPolicy(config, **description)
            policy.load_state_dict(load_file(Path(folder) / WEIGHTS))
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise StateError(f"{folder} holds no policy of this kind: {error}") from None
        return policy.to(device)


def config_from_json(values: Mapping[str, Any]) -> RslRlPPOConfig:
    """Make a config of JSON values; the defaults stand for what is missing.

    Raises:
        ValueError: when there is no such setting; suggests the nearest name.
    """
    known = [setting.name for setting in fields(RslRlPPOConfig)]
    for name in values:
        if name not in known:
            raise ValueError(unknown_name("setting of RslRlPPOConfig", name, known))
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    config = RslRlPPOConfig(**settings)
    check_config(config)
    return config


def check_config(config: RslRlPPOConfig) -> None:
    """Refuse settings that are unknown or out of range.

    Raises:
        ValueError: naming the setting.
    """
    if config.activation not in ACTIVATIONS:
        raise ValueError(unknown_name("activation", config.activation, ACTIVATIONS))
    if config.schedule not in ("adaptive", "fixed"):
        raise ValueError(f"unknown schedule {config.schedule!r} (known: adaptive, fixed)")
    if not config.actor_hidden or not config.critic_hidden:
        raise ValueError("networks need at least one hidden layer, e.g. actor_hidden=(128, 128)")
    if config.num_envs * config.steps_per_env < config.minibatches:
        raise ValueError(
            f"{config.num_envs} environments of {config.steps_per_env} steps do not make "
            f"{config.minibatches} minibatches; lower minibatches"
        )
    for name in ("epochs", "minibatches", "steps_per_env", "learning_rate", "desired_kl", "init_noise_std"):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, not {getattr(config, name)}")
    for name in ("gamma", "lam"):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} must be from 0 to 1, not {getattr(config, name)}")

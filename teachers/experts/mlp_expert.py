"""Experts, or privileged teachers: policies that see what a student cannot, and label its states.

An expert reads named views of a batched task (`VecTask.obs_dict`) and answers with a distribution of actions
and a value. Distillation asks it for labels; every answer is counted, as labels have a price. Experts come
from `tutelage.students.experts.expert_training`; here they act, check that they fit a task, and lie on disk.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tutelage.envs.contract.names import unknown_name
from tutelage.envs.contract.state import StateError, atomic_file, write_json

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask

ACTIVATIONS = ("Tanh", "ReLU", "ELU", "SELU", "GELU", "SiLU", "LeakyReLU")
"""Classes of `torch.nn` that the networks of an `MLPExpert` may have, with their default arguments."""

WEIGHTS, DESCRIPTION = "expert.safetensors", "expert.json"


class Advice(NamedTuple):
    """Answer of an expert about `n` observations.

    Attributes:
        mean: of the normal distribution of actions, before clipping, ``(n, num_actions)``.
        std: its standard deviation, ``(n, num_actions)``.
        value: estimated return in the units of the task's rewards, ``(n,)``, not in those of its
            training; None where it has no critic.
    """

    mean: Tensor
    std: Tensor
    value: Tensor | None


class Expert(Protocol):
    """A policy that answers batched queries."""

    @property
    def view(self) -> str:
        """Name in ``obs_dict`` of the view that its actions depend on."""
        ...

    @property
    def num_actions(self) -> int:
        """Size of an action."""
        ...

    @property
    def queries(self) -> int:
        """Observations answered so far."""
        ...

    def advise(self, obs_dict: Mapping[str, Tensor]) -> Advice:
        """Answer for every row, without gradients, and count them."""
        ...


@dataclass(frozen=True)
class ExpertConfig:
    """Inputs and sizes of an `MLPExpert`; JSON values only.

    Attributes:
        view, critic_view: views that actor and critic see; a `critic_view` of None means no critic.
        num_obs, num_states: sizes of these views.
        num_actions: size of an action.
        hidden, critic_hidden: widths of the hidden layers.
        activation: one of `ACTIVATIONS`.
        clip: normalised observations are clipped to [-clip, clip]; None: not at all.
    """

    view: str
    num_obs: int
    num_actions: int
    hidden: tuple[int, ...]
    critic_view: str | None = None
    num_states: int = 0
    critic_hidden: tuple[int, ...] = ()
    activation: str = "Tanh"
    clip: float | None = None


class NormalizedMLP(nn.Module):
    """Layers behind an observation normaliser: (observation - mean) / scale, clipped.

    Mean and scale are float64: SB3's are, and where an observation hardly varies, float32 loses its digits.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, inputs: int, hidden: tuple[int, ...], outputs: int, activation: str, clip: float | None
    ) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(inputs, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(inputs, dtype=torch.float64))
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(inputs, width), getattr(nn, activation)()]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def forward(self, observations: Tensor) -> Tensor:
        """Outputs, ``(n, outputs)``, with gradients with respect to the observations if they want them."""
        normal = (observations - self.mean) / self.scale
        if self.clip is not None:
            normal = normal.clamp(-self.clip, self.clip)
        result: Tensor = self.layers(normal.to(torch.float32))
        return result


class MLPExpert(nn.Module):
    """A trained policy of multi-layer perceptrons; acts exactly as the policy that it was made from.

    ::

        expert = train_expert("reach", seed=0)              # tutelage.students.experts.expert_training
        check_expert(expert, task)
        mean, std, value = expert.advise(task.obs_dict)
        obs_dict, *_ = task.step(expert.act(task.obs_dict))
        expert.save("runs/reach-expert")

    Parameters are frozen (``requires_grad`` is False). No random number is drawn to make or load one.

    Args:
        config: inputs and sizes.
        tensors: by the names of `state_dict`: ``actor.mean``, ``actor.scale``, ``actor.layers.0.weight``,
            ..., ``log_std``, and the same of ``critic`` where there is one.
        facts: how it came about, e.g. its task, environment steps, seconds and success; JSON values. Two
            say what its critic's numbers mean: ``reward_scale`` (1 if not given), by which rewards were
            divided in training, and ``gamma``, their discount.

    Attributes:
        queries: observations answered so far.

    Raises:
        ValueError: when tensors are missing, of another shape, or not finite, the activation is unknown, or
            ``reward_scale`` is not above 0.
    """

    def __init__(
        self, config: ExpertConfig, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if config.activation not in ACTIVATIONS:
            raise ValueError(unknown_name("activation", config.activation, ACTIVATIONS))
        if config.clip is not None and not config.clip > 0:
            raise ValueError(f"clip must be positive or None, not {config.clip}")
        self.config = config
        self.facts = dict(facts or {})
        if not (0 < self.reward_scale < math.inf):
            raise ValueError(f"reward_scale must be above 0, not {self.reward_scale}")
        self.queries = 0
        activation, clip = config.activation, config.clip
        with torch.device("meta"):  # shapes alone: nothing is drawn, and nothing allocated before they fit
            self.actor = NormalizedMLP(config.num_obs, config.hidden, config.num_actions, activation, clip)
            self.log_std = nn.Parameter(torch.zeros(config.num_actions))
            self.critic: NormalizedMLP | None = None
            if config.critic_view is not None:
                self.critic = NormalizedMLP(config.num_states, config.critic_hidden, 1, activation, clip)
        kinds = {name: tensor.dtype for name, tensor in self.state_dict().items()}
        # A copy, so that later training of the policy it was made from does not change the expert.
        copies = {name: t.detach().clone().to(kinds.get(name, t.dtype)) for name, t in tensors.items()}
        for name, tensor in copies.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} of the expert holds NaN or infinity; its training diverged")
        try:
            self.load_state_dict(copies, assign=True)
        except RuntimeError as error:
            problem = " ".join(str(error).split())
            raise ValueError(f"tensors do not fit the expert's sizes: {problem}") from None
        self.requires_grad_(False)

    @property
    def view(self) -> str:
        """Name of the view that the actor sees."""
        return self.config.view

    @property
    def num_actions(self) -> int:
        """Size of an action."""
        return self.config.num_actions

    @property
    def reward_scale(self) -> float:
        """Divisor of the rewards in training: the critic's outputs times it are returns of the task."""
        return float(self.facts.get("reward_scale", 1.0))

    @property
    def gamma(self) -> float | None:
        """Discount of the critic's returns; None where that is not known."""
        gamma = self.facts.get("gamma")
        return None if gamma is None else float(gamma)

    @property
    def view_sizes(self) -> dict[str, int]:
        """Size of every view that the expert reads."""
        sizes = {self.config.view: self.config.num_obs}
        if self.config.critic_view is not None:
            sizes[self.config.critic_view] = self.config.num_states
        return sizes

    @torch.no_grad()
    def advise(self, obs_dict: Mapping[str, Tensor]) -> Advice:
        """Answer for every row, and count them.

        Raises:
            ValueError: when a view is missing or of another size.
        """
        mean = self.actor(self._read(obs_dict, self.config.view))
        value = None
        if self.critic is not None and self.config.critic_view is not None:
            value = self.reward_scale * self.critic(self._read(obs_dict, self.config.critic_view))[:, 0]
        self.queries += len(mean)
        return Advice(mean, self.log_std.exp().expand_as(mean), value)

    @torch.no_grad()
    def act(self, obs_dict: Mapping[str, Tensor]) -> Tensor:
        """Return the deterministic actions, clipped to [-1, 1], ``(n, num_actions)``; counts as queries."""
        mean = self.actor(self._read(obs_dict, self.config.view))
        self.queries += len(mean)
        return mean.clamp(-1, 1)

    def save(self, folder: str | Path) -> None:
        """Write weights (safetensors) and description (JSON) into a folder, each file atomically.

        Raises:
            OSError: when the disk is full or not writable.
        """
        from safetensors.torch import save

        data = save({name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()})
        description = {
            "config": asdict(self.config),
            "facts": self.facts,
            "weights_sha256": hashlib.sha256(data).hexdigest(),  # of the file beside it, and undamaged
        }
        with atomic_file(Path(folder) / WEIGHTS) as part:
            part.write_bytes(data)
        write_json(Path(folder) / DESCRIPTION, description)

    @staticmethod
    def load(folder: str | Path, device: str | torch.device = "cpu") -> MLPExpert:
        """Read the files of `save`; executes no code.

        Raises:
            FileNotFoundError: when there is no such file.
            StateError: when a file is truncated, damaged, foreign, or does not belong to the other.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            description = json.loads((Path(folder) / DESCRIPTION).read_text())
            data = (Path(folder) / WEIGHTS).read_bytes()
            if hashlib.sha256(data).hexdigest() != description["weights_sha256"]:
                raise ValueError(f"{WEIGHTS} is damaged, or was saved with another {DESCRIPTION}")
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in description["config"].items()
            }
            expert = MLPExpert(ExpertConfig(**values), load(data), description["facts"])
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError, SafetensorError) as e:
            raise StateError(f"{folder} holds no expert that can be loaded: {e}") from None
        return expert.to(device)

    def _read(self, obs_dict: Mapping[str, Tensor], view: str) -> Tensor:
        return read_view(view, self.view_sizes[view], obs_dict, "the observations")


def read_view(view: str, size: int | None, obs_dict: Mapping[str, Tensor], where: str) -> Tensor:
    """A view that an expert reads; refuses observations without it, or of another size.

    Raises:
        ValueError: naming the view, `where` it was looked for, and the nearest one.
    """
    if view not in obs_dict:
        raise ValueError(
            f"the expert reads a view that {where} lack: {unknown_name('view', view, list(obs_dict))}"
        )
    observations = obs_dict[view]
    shape = tuple(observations.shape[1:])
    if size is not None and shape != (size,):
        raise ValueError(
            f"the expert reads ({size},) numbers in the view {view!r}, and {where} have {shape} there; was "
            "it trained on another task, or another version of this one?"
        )
    return observations


def check_expert(expert: Expert, task: VecTask) -> None:
    """Refuse an expert that does not fit a task, before anything is computed or counted.

    Experts that tell their `view_sizes`, as ours do, are checked for these too.

    Raises:
        ValueError: when a view is missing or of another size, or actions are.
    """
    name = type(task).__name__
    sizes: Mapping[str, int | None] = getattr(expert, "view_sizes", {expert.view: None})
    for view, size in sizes.items():
        read_view(view, size, task.obs_dict, f"the observations of {name}")
    if expert.num_actions != task.num_actions:
        raise ValueError(
            f"the expert's actions have {expert.num_actions} numbers, those of {name} {task.num_actions}; "
            "was it trained on another task?"
        )

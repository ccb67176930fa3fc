"""The config of a student: an SB3-style algorithm, its arguments, and how its environments are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.envs.contract.names import load_object, unknown_name

ALGORITHMS = {
    "ppo": "stable_baselines3:PPO",
    "sac": "stable_baselines3:SAC",
    "td3": "stable_baselines3:TD3",
    "a2c": "stable_baselines3:A2C",
    "ddpg": "stable_baselines3:DDPG",
    "dqn": "stable_baselines3:DQN",
    "recurrent-ppo": "sb3_contrib:RecurrentPPO",
    "tqc": "sb3_contrib:TQC",
    "trpo": "sb3_contrib:TRPO",
    "crossq": "sb3_contrib:CrossQ",
}
"""Short names of algorithms, and where their classes live (``module:Class``)."""


@dataclass(frozen=True)
class StudentConfig:
    """A student, fully described by JSON values.

    Attributes:
        algorithm: a short name of `ALGORITHMS`, or ``module:Class`` of any class with SB3's interface.
        policy: SB3's policy name, e.g. ``MlpPolicy``; becomes its ``MultiInput`` form for dict observations
            and its ``Cnn`` form for images.
        n_envs: environments stepped at once.
        kwargs: arguments of the algorithm's constructor. In ``policy_kwargs``, ``activation_fn`` may be the
            name of a `torch.nn` class, e.g. ``Tanh``.
        normalize_observations: put SB3's `VecNormalize` around the taught environment, for observations; left
            out where they are images or not real numbers.
        normalize_rewards: the same for rewards, with the ``gamma`` of `kwargs`.
        workers: step each environment in a process of its own (SB3's `SubprocVecEnv`), not all in this one.
        device: of the networks. Resuming is exact on ``cpu``.
    """

    algorithm: str = "ppo"
    policy: str = "MlpPolicy"
    n_envs: int = 8
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    normalize_observations: bool = False
    normalize_rewards: bool = False
    workers: bool = False
    device: str = "cpu"


def algorithm_class(name: str) -> Any:
    """Find the class of an algorithm by its short name or ``module:Class``.

    Raises:
        ValueError: when there is none; the message suggests the nearest short name.
    """
    if ":" not in name and name not in ALGORITHMS:
        raise ValueError(unknown_name("student", name, ALGORITHMS, "module:Class of your own"))
    return load_object(ALGORITHMS.get(name, name), "student")

"""Student presets for each environment, chosen to be good on 2 CPU cores: many environments, large batches.

Off-policy updates are slow on a CPU, so SAC and TD3 make few, large ones for many environment steps; PPO
gets by with small networks.
"""

from __future__ import annotations

from typing import Any

from tutelage.students.sb3.config import StudentConfig, algorithm_class

_PPO = {
    "n_steps": 512,
    "batch_size": 1024,
    "n_epochs": 10,
    "learning_rate": 3e-4,
    "policy_kwargs": {"net_arch": [64, 64], "activation_fn": "Tanh"},
}
_OFF_POLICY = {
    "learning_rate": 1e-3,
    "batch_size": 512,
    "buffer_size": 500_000,
    "learning_starts": 10_000,
    "train_freq": 4,  # steps of all environments
    "gradient_steps": 6,
    "policy_kwargs": {"net_arch": [256, 256]},
}


def _batched_ppo(n_envs: int, normalize_rewards: bool = True, **changes: Any) -> StudentConfig:
    """PPO for batched MuJoCo tasks: short roll-outs of many environments; `changes` go to its arguments."""
    policy = {"net_arch": [128, 128], "activation_fn": "ELU", "log_std_init": -0.5}
    kwargs: dict[str, Any] = {
        "n_steps": 32,
        "batch_size": 2048,
        "n_epochs": 5,
        "learning_rate": 1e-3,
        "gamma": 0.99,
        **changes,
        "policy_kwargs": {**policy, **changes.get("policy_kwargs", {})},
    }
    return StudentConfig(
        "ppo",
        n_envs=n_envs,
        kwargs=kwargs,
        normalize_observations=True,
        normalize_rewards=normalize_rewards,
    )


_ANY: dict[str, StudentConfig] = {
    "ppo": StudentConfig("ppo", n_envs=16, kwargs=_PPO, normalize_observations=True, normalize_rewards=True),
    "recurrent-ppo": StudentConfig(
        "recurrent-ppo",
        policy="MlpLstmPolicy",
        n_envs=16,
        kwargs={
            "n_steps": 256,
            "batch_size": 512,
            "n_epochs": 5,
            "learning_rate": 3e-4,
            "policy_kwargs": {"net_arch": [64], "lstm_hidden_size": 64},
        },
        normalize_observations=True,
        normalize_rewards=True,
    ),
    "sac": StudentConfig("sac", n_envs=16, kwargs=_OFF_POLICY),
    "td3": StudentConfig("td3", n_envs=16, kwargs=_OFF_POLICY),
}

_PRESETS: dict[tuple[str, str], StudentConfig] = {
    # Tuned on uniform tasks. A wider first distribution of actions (log_std_init -0.6 or 0) finds the gate of
    # the target by luck; without normalised rewards nothing is learnt.
    ("point-mass-gate", "ppo"): StudentConfig(
        "ppo",
        n_envs=64,
        kwargs={
            "n_steps": 64,
            "batch_size": 1024,
            "n_epochs": 8,
            "learning_rate": 1e-3,
            "gamma": 0.99,
            "gae_lambda": 0.98,
            "policy_kwargs": {"net_arch": [64, 64], "activation_fn": "Tanh", "log_std_init": -1.0},
        },
        normalize_rewards=True,
    ),
    # Short roll-outs and a high learning rate; lower rates, longer roll-outs and lambda 0.9 learnt later.
    ("stump-walker", "ppo"): _batched_ppo(
        256,
        n_steps=16,
        batch_size=1024,
        learning_rate=2e-3,
        policy_kwargs={"net_arch": [64, 64], "activation_fn": "Tanh", "log_std_init": -1.0},
    ),
    ("reach", "ppo"): _batched_ppo(
        128,
        n_steps=25,
        batch_size=800,
        learning_rate=2e-3,
        gamma=0.95,
        policy_kwargs={"net_arch": [64, 64], "log_std_init": -1.0},
    ),
    ("push-cube", "ppo"): _batched_ppo(256, policy_kwargs={"log_std_init": 0.0}),
    ("ball-balance", "ppo"): _batched_ppo(256),
    ("lift-object", "ppo"): _batched_ppo(256),
    ("quadruped-terrain", "ppo"): _batched_ppo(
        256,
        normalize_rewards=False,
        n_steps=24,
        batch_size=1536,
        learning_rate=5e-4,
        ent_coef=0.002,
        policy_kwargs={"log_std_init": -1.2},
    ),
    ("stump-tracks", "ppo"): StudentConfig(
        "ppo",
        n_envs=32,
        kwargs={**_PPO, "batch_size": 2048},
        normalize_observations=True,
        normalize_rewards=True,
    ),
    # TeachMyAgent's SAC: 400-300, batch 1000, replay 2 M, one update every 10 steps, fixed entropy weight.
    ("stump-tracks", "sac-paper"): StudentConfig(
        "sac",
        n_envs=1,
        kwargs={
            "learning_rate": 1e-3,
            "batch_size": 1000,
            "buffer_size": 2_000_000,
            "learning_starts": 10_000,
            "train_freq": 10,
            "gradient_steps": 1,
            "ent_coef": 0.005,
            "policy_kwargs": {"net_arch": [400, 300], "activation_fn": "ReLU"},
        },
    ),
}


def student_preset(env: str, name: str) -> StudentConfig:
    """The preset of a student in an environment; environments of one family share theirs.

    Args:
        env: environment name, e.g. ``stump-tracks/spider``.
        name: ``ppo``, ``sac``, ..., or ``module:Class``, which gets the algorithm's own defaults.

    Raises:
        ValueError: when there is no such student.
    """
    family = env.partition("/")[0]
    if (family, name) in _PRESETS:
        return _PRESETS[family, name]
    if name in _ANY:
        return _ANY[name]
    algorithm_class(name)  # raises where there is none
    return StudentConfig(name)

"""Student presets, chosen to be good on 2 CPU cores: many environments, large batches.

What suits a world stands in its recipe (`tutelage.envs.WorldRecipe.students`); here is what suits any.

Off-policy updates are slow on a CPU, so SAC and TD3 make few, large ones for many environment steps; PPO
gets by with small networks.
"""

from __future__ import annotations

from dataclasses import fields

from tutelage.envs.catalogue import world_recipe
from tutelage.envs.contract.names import unknown_name
from tutelage.envs.contract.recipe import WorldRecipe
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


def student_preset(env: str | WorldRecipe, name: str) -> StudentConfig:
    """The settings of a student in an environment: those of the environment's recipe, else the general ones.

    Args:
        env: the environment's name, e.g. ``stump-tracks/spider`` or ``module:Class``, or its recipe.
        name: ``ppo``, ``sac``, ..., or ``module:Class``, which gets the algorithm's own defaults.

    Raises:
        ValueError: when there is no such student or environment, or the recipe names fields that a
            `StudentConfig` does not have.
    """
    recipe = world_recipe(env) if isinstance(env, str) else env
    if name in recipe.students:
        settings = {"algorithm": name, **recipe.students[name]}
        known = [field.name for field in fields(StudentConfig)]
        for setting in settings:
            if setting not in known:
                raise ValueError(unknown_name("setting of a student in a recipe", setting, known))
        algorithm_class(settings["algorithm"])  # raises where there is none
        return StudentConfig(**settings)
    if name in _ANY:
        return _ANY[name]
    algorithm_class(name)
    return StudentConfig(name)

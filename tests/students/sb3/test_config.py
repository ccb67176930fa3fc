"""Naming and building students."""

import pytest
import stable_baselines3
import torch

from tutelage.envs.contract.recipe import WorldRecipe
from tutelage.envs.point_mass.point_mass_gate import PointMassGateVecEnv
from tutelage.students.sb3.config import ALGORITHMS, StudentConfig, algorithm_class
from tutelage.students.sb3.presets import student_preset
from tutelage.students.sb3.student import make_student


@pytest.mark.parametrize("name", ALGORITHMS)
def test_short_names_are_classes_with_sb3s_interface(name: str) -> None:
    assert issubclass(algorithm_class(name), stable_baselines3.common.base_class.BaseAlgorithm)


def test_unknown_students_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown student 'ppoo'; did you mean 'ppo'"):
        algorithm_class("ppoo")
    with pytest.raises(ValueError, match="cannot be imported"):
        algorithm_class("nowhere.at_all:Student")


def test_a_users_class_is_named_by_its_module() -> None:
    assert algorithm_class("stable_baselines3.ppo.ppo:PPO") is stable_baselines3.PPO
    assert student_preset("point-mass-gate", "stable_baselines3.ppo.ppo:PPO").algorithm.endswith(":PPO")


@pytest.mark.parametrize(
    "env", ["point-mass-gate", "stump-tracks", "stump-tracks/spider", WorldRecipe("any", "any")]
)
@pytest.mark.parametrize("name", ["ppo", "sac", "td3", "recurrent-ppo"])
def test_presets_build(env: str | WorldRecipe, name: str) -> None:
    config = student_preset(env, name)
    model = make_student(config, PointMassGateVecEnv(config.n_envs), seed=0, total_steps=1000)
    assert type(model) is algorithm_class(name)


def test_activations_are_named() -> None:
    config = StudentConfig("ppo", n_envs=2, kwargs={"policy_kwargs": {"activation_fn": "ELU"}})
    model = make_student(config, PointMassGateVecEnv(2), 0, 10)
    assert any(isinstance(module, torch.nn.ELU) for module in model.policy.modules())
    with pytest.raises(ValueError, match=r"activation_fn 'Tanhh' is no class of torch.nn"):
        make_student(
            StudentConfig("ppo", kwargs={"policy_kwargs": {"activation_fn": "Tanhh"}}),
            PointMassGateVecEnv(2),
            0,
            10,
        )


def test_what_cannot_work_is_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="optimize_memory_usage"):
        make_student(
            StudentConfig("sac", kwargs={"optimize_memory_usage": True}), PointMassGateVecEnv(2), 0, 10
        )
    with pytest.raises(ValueError, match=r"'ppo' cannot be built: .*no_such_argument"):
        make_student(StudentConfig("ppo", kwargs={"no_such_argument": 1}), PointMassGateVecEnv(2), 0, 10)
    with pytest.raises(ValueError, match="'dqn' cannot be built"):  # continuous actions
        make_student(StudentConfig("dqn"), PointMassGateVecEnv(2), 0, 10)

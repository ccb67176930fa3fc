"""Training an expert further: it begins as what it was, on the tasks that it is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize

from tutelage.envs.batched.adaptors.sb3 import SB3VecTask
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.contract.episodes import Episodes
from tutelage.students.experts.expert_training import expert_from_sb3, train_expert
from tutelage.students.experts.expert_warm_start import config_like, warm_start
from tutelage.students.sb3.config import StudentConfig
from tutelage.students.sb3.student import make_student
from tutelage.teachers import GeoCurriculum, GeoCurriculumConfig, Random
from tutelage.teachers.experts.mlp_expert import ExpertConfig, MLPExpert


def student(**changes: Any) -> StudentConfig:
    kwargs = {
        "n_steps": 12,
        "batch_size": 64,
        "n_epochs": 2,
        "learning_rate": 1e-3,
        "policy_kwargs": {"net_arch": [16], "activation_fn": "ELU", "log_std_init": -0.5},
    }
    return StudentConfig(
        n_envs=16, kwargs=kwargs | changes, normalize_observations=True, normalize_rewards=True
    )


@pytest.fixture(scope="module")
def expert(rail: type[VecTask]) -> MLPExpert:
    return train_expert(rail, seed=0, steps=3072, config=student())


def test_it_begins_as_the_expert(rail: type[VecTask], expert: MLPExpert) -> None:
    config = config_like(student(), expert)
    model = make_student(config, SB3VecTask(rail(16, threads=1)), seed=5, total_steps=192)
    warm_start(model, expert)
    same = expert_from_sb3(model)
    views = {"privileged": 3 * torch.randn(500, 3, generator=torch.Generator().manual_seed(0))}
    for ours, theirs in zip(same.advise(views), expert.advise(views), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    normalizer = model.get_vec_normalize_env()
    assert isinstance(normalizer, VecNormalize)
    assert normalizer.ret_rms.var + 1e-8 == pytest.approx(expert.reward_scale**2)
    # 16 first observations and 192 of steps are new, 208 of 1,000,208: the statistics move, but little
    model.learn(192)
    moved = (normalizer.obs_rms.mean - expert.actor.mean.numpy()) / expert.actor.scale.numpy()
    assert 0 < np.abs(moved).max() < 5 * 208 / 1_000_208


def test_networks_are_the_experts_whatever_the_preset_says(rail: type[VecTask], expert: MLPExpert) -> None:
    other = student(policy_kwargs={"net_arch": [8, 8], "activation_fn": "Tanh"})
    further = train_expert(rail, seed=1, steps=192, config=other, start_from=expert)
    assert further.config == expert.config


def test_an_expert_with_another_critic_gets_a_new_one(rail: type[VecTask], expert: MLPExpert) -> None:
    tensors = dict(expert.state_dict()) | {"critic.mean": expert.critic.mean + 1}  # type: ignore[union-attr]
    odd = MLPExpert(expert.config, tensors, expert.facts)
    model = make_student(
        config_like(student(), odd), SB3VecTask(rail(16, threads=1)), seed=5, total_steps=192
    )
    before = model.policy.value_net.weight.clone()  # type: ignore[union-attr]
    warm_start(model, odd)
    torch.testing.assert_close(model.policy.value_net.weight, before)  # type: ignore[union-attr]
    torch.testing.assert_close(
        model.policy.action_net.weight,  # type: ignore[union-attr]
        odd.actor.layers[-1].weight,
    )


def test_training_further_repeats_and_leaves_the_expert_alone(rail: type[VecTask], expert: MLPExpert) -> None:
    before = {name: tensor.clone() for name, tensor in expert.state_dict().items()}

    def train() -> MLPExpert:
        return train_expert(rail, seed=3, steps=384, config=student(), start_from=expert)

    first, again = train(), train()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert torch.equal(expert.state_dict()[name], before[name])
    assert not torch.equal(first.actor.layers[0].weight, expert.actor.layers[0].weight)


def test_a_built_task_teacher_proposes_and_observes(rail: type[VecTask], expert: MLPExpert) -> None:
    class Right(Random):
        """Tasks on the right alone."""

        seen = 0

        def propose(self, n: int) -> Any:
            return np.abs(super().propose(n))

        def observe(self, episodes: Episodes) -> None:
            assert (episodes.tasks > 0).all()
            self.seen += len(episodes)

    right = Right(rail.task_space, np.random.default_rng(0))
    train_expert(rail, seed=0, steps=384, config=student(), task_teacher=right, start_from=expert)
    assert right.seen == 384 // 12

    geo = GeoCurriculum(rail.task_space, np.random.default_rng(0), GeoCurriculumConfig(tasks=20, splits=(5,)))
    train_expert(rail, seed=0, steps=384, config=student(), task_teacher=geo)
    train_expert(rail, seed=0, steps=192, config=student(), task_teacher="geo-curriculum")


def test_what_does_not_fit_is_named(rail: type[VecTask], expert: MLPExpert) -> None:
    small = ExpertConfig("privileged", 2, 1, (4,))
    shapes = {
        "layers.0.weight": (4, 2),
        "layers.0.bias": (4,),
        "layers.2.weight": (1, 4),
        "layers.2.bias": (1,),
    }
    tensors = {f"actor.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    tensors |= {"actor.mean": torch.zeros(2), "actor.scale": torch.ones(2), "log_std": torch.zeros(1)}
    with pytest.raises(ValueError, match="was it trained on another task"):
        train_expert(rail, seed=0, steps=192, config=student(), start_from=MLPExpert(small, tensors))
    with pytest.raises(ValueError, match="start_from goes with method='sb3' only"):
        train_expert(rail, seed=0, steps=192, method="rsl_rl", start_from=expert)
    with pytest.raises(ValueError, match="algorithm 'ppo', not 'sac'"):
        config_like(replace(student(), algorithm="sac"), expert)
    plain = replace(student(), normalize_observations=False, normalize_rewards=False)
    model = make_student(plain, SB3VecTask(rail(16, threads=1)), seed=0, total_steps=1)
    with pytest.raises(ValueError, match="normalised observations"):
        warm_start(model, expert)

"""AACD: the expert's critic, its units and its normaliser judge a new student, fine-tuned or frozen."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.students.distillation.aacd import AACD, AACDConfig, distil
from tutelage.students.distillation.machinery.evaluation import evaluate_student
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.progress import Budget
from tutelage.students.ppo.formulas import PPOConfig
from tutelage.teachers.experts.mlp_expert import ExpertConfig, MLPExpert

LEARNING = LearningConfig(batch_size=96, learning_rate=3e-3, max_grad_norm=1.0, threads=1)
CONFIG = AACDConfig(Budget(frames=9_000), LEARNING, PPOConfig(rollout_steps=12, epochs=4))
SCALE, GAMMA = 0.5, 0.9


def expert(critic: bool = True, **facts: Any) -> MLPExpert:
    """Moves by the distance to the goal; thinks that a state is worth -2 times the distance, in rewards.

    Its critic says so in units of 0.5, of inputs that are divided by 0.4: relu(d) + relu(-d) = |d|.
    """
    config = ExpertConfig("privileged", 2, 1, (), activation="ReLU")
    tensors: dict[str, Tensor] = {
        "actor.mean": torch.zeros(2),
        "actor.scale": torch.ones(2),
        "actor.layers.0.weight": torch.tensor([[-1 / 0.3, 1 / 0.3]]),
        "actor.layers.0.bias": torch.zeros(1),
        "log_std": torch.full((1,), -1.0),
    }
    if critic:
        config = replace(config, critic_view="privileged", num_states=2, critic_hidden=(2,))
        tensors |= {
            "critic.mean": torch.zeros(2),
            "critic.scale": torch.full((2,), 0.4),
            "critic.layers.0.weight": torch.tensor([[-1.0, 1.0], [1.0, -1.0]]),
            "critic.layers.0.bias": torch.zeros(2),
            "critic.layers.2.weight": torch.full((1, 2), -2 * 0.4 / SCALE),
            "critic.layers.2.bias": torch.zeros(1),
        }
    # ReLU has no effect on the actor, which has no hidden layer
    return MLPExpert(config, tensors, {"reward_scale": SCALE, "gamma": GAMMA, **facts})


def made(slider: Any, new_student: Any, config: AACDConfig = CONFIG, n: int = 32, **student: Any) -> AACD:
    task = slider(num_envs=n)
    return AACD(task, expert(), new_student(task, **{"head": "gaussian", **student}), config, seed=0)


@pytest.mark.parametrize("student", [{}, {"critic_view": "policy", "critic_hidden": (3,)}, {"memory": 4}])
def test_the_critic_is_the_experts(student: dict[str, Any], slider: Any, new_student: Any) -> None:
    method = made(slider, new_student, **student)
    obs_dict = method.rolling.obs_dict
    found = method.roll_out()
    x, goal = obs_dict["privileged"].unbind(1)
    torch.testing.assert_close(found["values"][0], -2 * (x - goal).abs())
    assert found["values"].shape == (12, 32)
    assert method.gamma == GAMMA
    assert method.student.config.critic_view == "privileged"
    source = method.expert
    assert isinstance(source, MLPExpert)
    torch.testing.assert_close(source.advise(obs_dict).value, found["values"][0])


def test_value_targets_are_in_its_scale(slider: Any, new_student: Any) -> None:
    """What its layers are trained towards is the return of rewards divided by the expert's scale."""
    method = made(slider, new_student)
    critic = method.student.critic
    assert critic is not None
    found = method.roll_out()
    returns = found["rewards"] + GAMMA * found["next_values"]  # whatever they are
    batch = {name: values[0] for name, values in found.items()}
    batch |= {"returns": returns[0], "advantages": torch.zeros(32)}
    shown = {name: view[:32] for name, view in method.rolling.obs_dict.items()}
    output = method.student(shown, method.student.start(32))
    output = output._replace(value=critic(batch["judged"]))
    _, terms = method.losses(output, batch)
    raw = critic.network(batch["judged"])[:, 0]
    torch.testing.assert_close(terms.value, (raw - returns[0] / SCALE).square())


@pytest.mark.parametrize("freeze", [True, False])
def test_a_frozen_critic_stays(freeze: bool, slider: Any, new_student: Any) -> None:
    method = made(slider, new_student, replace(CONFIG, freeze_critic=freeze), memory=4)
    critic, source = method.student.critic, method.expert
    assert critic is not None
    assert isinstance(source, MLPExpert)
    before = {name: tensor.clone() for name, tensor in method.student.state_dict().items()}
    mine = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    for _ in range(2):
        method.round()
    for name, parameter in critic.named_parameters():
        assert (parameter.grad is None) == freeze
        assert torch.equal(parameter, before[f"critic.{name}"]) == freeze
    for name, buffer in critic.named_buffers():  # normalisers stay in both
        assert torch.equal(buffer, before[f"critic.{name}"])
    for part in (method.student.encoders, method.student.actor):
        assert all(parameter.grad is not None for parameter in part.parameters())
    assert not torch.equal(method.student.state_dict()["actor.0.weight"], before["actor.0.weight"])
    assert all(torch.equal(tensor, mine[name]) for name, tensor in source.state_dict().items())
    assert source.queries == method.counts.queries == 0


@pytest.mark.parametrize("freeze", [True, False])
def test_it_learns(freeze: bool, slider: Any, new_student: Any, better: Any) -> None:
    task, test = slider(), slider(seed=1)
    student = new_student(task, head="gaussian", init_std=0.6)
    before = evaluate_student(test, student, 128, seed=7)
    distil(task, expert(), student, replace(CONFIG, freeze_critic=freeze), 0)
    assert better(evaluate_student(test, student, 128, seed=7), before)


def test_experts_that_do_not_do(slider: Any, new_student: Any) -> None:
    task = slider(num_envs=2)

    class Other:
        view, num_actions, queries = "privileged", 1, 0

    for wrong, message in (
        (expert(critic=False), "the expert has no critic; train one with train_expert"),
        (Other(), "Other is none that it can take over: give an MLPExpert"),
        (expert(gamma=None), "does not tell the discount .* set gamma"),
    ):
        student = new_student(task, head="gaussian")
        with pytest.raises(ValueError, match=message):
            AACD(task, wrong, student, CONFIG, 0)  # type: ignore[arg-type]
        assert student.critic is None  # it is as it was
    with pytest.raises(ValueError, match="head='gaussian'"):
        AACD(task, expert(), new_student(task), CONFIG, 0)
    config = replace(CONFIG, ppo=replace(CONFIG.ppo, gamma=0.8))
    told = AACD(task, expert(gamma=None), new_student(task, head="gaussian"), config, 0)
    assert told.gamma == 0.8

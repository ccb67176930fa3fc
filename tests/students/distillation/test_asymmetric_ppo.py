"""Asymmetric PPO learns a tiny task from pictures and rewards, with either critic, and asks nobody."""

from typing import Any

import pytest

from tutelage.students.distillation.asymmetric_ppo import AsymmetricPPO, AsymmetricPPOConfig, distil
from tutelage.students.distillation.machinery.evaluation import evaluate_student
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.progress import Budget
from tutelage.students.ppo.formulas import PPOConfig

LEARNING = LearningConfig(batch_size=96, learning_rate=3e-3, max_grad_norm=1.0, threads=1)
PPO = PPOConfig(rollout_steps=12, epochs=4, gamma=0.9)


@pytest.mark.parametrize("critic_view", ["privileged", "student"])
def test_it_learns_from_pictures_and_rewards(
    critic_view: str, slider: Any, new_student: Any, better: Any
) -> None:
    task, test = slider(), slider(seed=1)
    student = new_student(task, head="gaussian", critic_view=critic_view, init_std=0.6)
    before = evaluate_student(test, student, 128, seed=7)
    reports: list[Any] = []
    config = AsymmetricPPOConfig(Budget(frames=9_000), LEARNING, PPO)
    result = distil(task, None, student, config, 0, reports.append)
    after = evaluate_student(test, student, 128, seed=7)
    assert better(after, before)
    assert after.returns.mean() > before.returns.mean() + 1
    assert result.queries == 0
    assert result.frames == 24 * 12 * 32  # whole rounds
    assert result.updates == 24 * 4 * 4


def test_normalisers_follow(slider: Any, expert: Any, new_student: Any) -> None:
    """The critic's scale becomes that of the returns, about 1 here, and its inputs' that of the state."""
    task = slider()
    student = new_student(task, head="gaussian", critic_view="privileged")
    method = AsymmetricPPO(task, expert, student, AsymmetricPPOConfig(Budget(frames=1), LEARNING, PPO), 0)
    for _ in range(5):
        method.round()
    assert student.critic is not None
    assert int(student.critic.seen) == 5 * 12 * 32
    assert int(student.critic.followed) == 5
    # x and goal are uniform in -0.8 to 0.8 at first: deviation 0.46
    assert ((student.critic.network.scale > 0.3) & (student.critic.network.scale < 1)).all()
    assert float(student.critic.value_mean) < -0.5  # rewards are distances, negated
    assert expert.queries == 0

"""DAgger with values: which state a return belongs to, what the critic learns, what the student does."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tutelage.students.distillation import Budget, LearningConfig, dagger, dagger_value, evaluate_student
from tutelage.students.distillation.dagger import DaggerConfig, mixture
from tutelage.students.distillation.dagger_value import DaggerValue, DaggerValueConfig, Steps

LEARNING = LearningConfig(batch_size=64, sequence_length=6, burn_in=0, threads=1, learning_rate=2e-3)
CONFIG = DaggerValueConfig(Budget(frames=9_000), LEARNING, rollout_steps=6, updates=8)
CRITIC = {"critic_view": "privileged", "critic_hidden": (32,)}
STEP = 0.3  # m that the slider moves for an action of 1


def silent(student: Any) -> Any:
    """Let its critic say 0 of everything."""
    with torch.no_grad():
        for parameter in student.critic.parameters():
            parameter.zero_()
    return student


def test_returns_belong_to_the_states_before_the_actions(slider: Any, expert: Any, new_student: Any) -> None:
    """The expert goes 0.3 m a step straight to the goal; rewards are minus the distance after the step."""
    task = slider(num_envs=16)
    config = replace(CONFIG, noise=0.0, gamma=0.5, lam=1.0)
    method = DaggerValue(task, expert, silent(new_student(task, **CRITIC)), config, seed=0)
    steps = method.visit(mixture(1.0, 0.0, method.generator))
    values, returns = method.targets(steps)
    assert values.abs().sum() == 0
    distance = (steps.views[..., 1] - steps.views[..., 0]).abs()
    for env in range(16):
        left = float(distance[0, env])
        rewards = []
        for step in range(6):
            assert float(distance[step, env]) == pytest.approx(left, abs=1e-5)  # the view is of before
            left = max(0.0, left - STEP)
            rewards.append(-left)
        for step in range(6):
            wanted = sum(0.5**k * reward for k, reward in enumerate(rewards[step:]))
            assert float(returns[step, env]) == pytest.approx(wanted, abs=1e-5)
    # and so in numbers: 0.75 m away there are 0.45, 0.15, 0 to go: -0.45 - 0.5 * 0.15
    steps = steps._replace(
        views=torch.tensor([[[0.0, 0.75]], [[0.3, 0.75]], [[0.6, 0.75]]]),
        next_views=torch.tensor([[[0.3, 0.75]], [[0.6, 0.75]], [[0.75, 0.75]]]),
        rewards=torch.tensor([[-0.45], [-0.15], [0.0]]),
        ended=torch.zeros(3, 1, dtype=torch.bool),
        terminated=torch.zeros(3, 1, dtype=torch.bool),
    )
    assert method.targets(steps)[1][:, 0].tolist() == pytest.approx([-0.525, -0.15, 0.0])


def test_a_time_limit_goes_on_from_the_last_state_of_its_own_episode(
    slider: Any, expert: Any, new_student: Any
) -> None:
    """Episodes last 6 steps; in the 4th of the second round they end, and others begin."""
    task = slider(num_envs=8)
    student = new_student(task, **CRITIC)
    method = DaggerValue(task, expert, student, replace(CONFIG, rollout_steps=4, gamma=0.9, lam=0.0), seed=0)
    drive = mixture(1.0, 0.0, method.generator)
    method.visit(drive)
    steps = method.visit(drive)
    assert steps.ended.all(1).tolist() == [False, True, False, False]
    assert not steps.terminated.any()
    assert not torch.equal(steps.views[2, :, 1], steps.next_views[1, :, 1])  # other goals
    torch.testing.assert_close(steps.views[3], steps.next_views[2])
    _, returns = method.targets(steps)
    assert student.critic is not None
    with torch.no_grad():
        wanted = steps.rewards[1] + 0.9 * student.critic(steps.next_views[1])
    torch.testing.assert_close(returns[1], wanted)
    # the reward of a step is that of the state it leads to
    torch.testing.assert_close(steps.rewards, -(steps.next_views[..., 0] - steps.next_views[..., 1]).abs())


def test_returns_by_hand(slider: Any, expert: Any, new_student: Any) -> None:
    """lambda 0.5, gamma 0.5; values are 2 x: the critic is a line."""
    task = slider(num_envs=1)
    student = new_student(task, critic_view="privileged", critic_hidden=())
    with torch.no_grad():
        for name, parameter in student.critic.named_parameters():
            parameter.copy_(torch.tensor([[2.0, 0.0]]) if "weight" in name else torch.zeros(1))
    method = DaggerValue(task, expert, student, replace(CONFIG, gamma=0.5, lam=0.5), seed=0)

    def views(*x: float) -> torch.Tensor:
        return torch.tensor([[[number, 0.3]] for number in x])

    def flags(*on: int) -> torch.Tensor:
        return torch.tensor([[bool(flag)] for flag in on])

    steps = Steps(
        views(1, 2, 3, 4),
        views(2, 3, 10, 5),
        torch.tensor([[1.0], [2.0], [3.0], [4.0]]),
        ended=flags(0, 0, 1, 1),
        terminated=flags(0, 0, 0, 1),
    )
    values, returns = method.targets(steps)
    assert values[:, 0].tolist() == [2, 4, 6, 8]
    last = 4.0  # terminated
    third = 3 + 0.5 * 20  # cut off at x = 10
    second = 2 + 0.5 * (0.5 * 6 + 0.5 * third)
    first = 1 + 0.5 * (0.5 * 4 + 0.5 * second)
    assert returns[:, 0].tolist() == pytest.approx([first, second, third, last])


def test_the_critic_learns_the_students_values_and_the_student_to_act(
    slider: Any, expert: Any, new_student: Any, better: Any
) -> None:
    task, test = slider(), slider(seed=1)
    student = new_student(task, **CRITIC)
    before = evaluate_student(test, student, 128, seed=7)
    method = DaggerValue(task, expert, student, replace(CONFIG, gamma=0.9), 0)
    explained: list[float] = []
    result = method.run(lambda progress: explained.append(method.diagnostics["explained_variance"]))
    assert better(evaluate_student(test, student, 128, seed=7), before)
    assert result.frames == result.queries == 47 * 192
    assert sum(explained[-10:]) / 10 > 0.4
    assert sum(explained[:3]) / 3 < 0.2
    # at the goal little more is lost; 1.2 m away, 0.9 m are still to go after the first step, then 0.6
    assert student.critic is not None
    with torch.no_grad():
        there, away = student.critic(torch.tensor([[0.3, 0.3], [-0.6, 0.6]])).tolist()
    assert there - away > 0.25


def test_students_learn_the_same_actions_as_by_dagger(slider: Any, expert: Any, new_student: Any) -> None:
    """One round of the expert alone: the value part changes no weight but the critic's."""
    found = []
    for method in (dagger, dagger_value):
        task = slider(num_envs=8)
        student = new_student(task, **CRITIC)
        first = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        shared = {"rollout_steps": 6, "updates": 3, "beta_rounds": 1}
        config = (DaggerConfig if method is dagger else DaggerValueConfig)(
            Budget(frames=48),
            LEARNING,
            **shared,  # type: ignore[arg-type]
        )
        method.distil(task, expert, student, config, 0)
        found.append(student.state_dict())
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]) != name.startswith("critic."), name
        assert torch.equal(tensor, first[name]) == name.startswith("critic."), name


def test_gaussian_students_draw_their_actions_where_asked(slider: Any, expert: Any, new_student: Any) -> None:
    errors = {}
    for stochastic in (True, False):
        task = slider(num_envs=32)
        student = new_student(task, head="gaussian", init_std=0.01, **CRITIC)
        with torch.no_grad():
            student.log_std.fill_(math.log(0.5))
            for parameter in student.actor[-1].parameters():
                parameter.zero_()  # the mean is 0
        method = DaggerValue(task, expert, student, replace(CONFIG, stochastic=stochastic), 0)
        steps = method.visit(mixture(0.0, 0.0, method.generator))
        moved = (steps.next_views - steps.views)[..., 0] / STEP
        errors[stochastic] = float(moved.std())
    assert errors[False] == 0
    # a normal number of deviation 0.5 that is clipped to [-1, 1]: 0.479
    assert errors[True] == pytest.approx(0.479, abs=0.06)


def test_a_run_goes_on_from_its_state(slider: Any, expert: Any, new_student: Any) -> None:
    """Two rounds and three, of which the first two come from a state."""

    def make() -> DaggerValue:
        task = slider(num_envs=8)
        config = replace(CONFIG, budget=Budget(frames=3 * 48), updates=2)
        return DaggerValue(task, expert, new_student(task, head="gaussian", **CRITIC), config, 0)

    whole = make()
    states: list[Any] = []
    whole.run(lambda progress: states.append(whole.state_dict()) if progress.frames == 2 * 48 else None)
    again = make()
    again.load_state_dict(states[0])
    assert again.rounds == 2
    again.run()
    weights = again.student.state_dict()
    for name, tensor in whole.student.state_dict().items():
        assert torch.equal(tensor, weights[name])


@pytest.mark.parametrize("critic", [None, "student"])
def test_students_without_such_a_critic_are_refused(
    critic: str | None, slider: Any, expert: Any, new_student: Any
) -> None:
    task = slider(num_envs=2)
    with pytest.raises(ValueError, match=r"make the student with VisionConfig\(critic_view='privileged'\)"):
        DaggerValue(task, expert, new_student(task, critic_view=critic), CONFIG, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.5}, "gamma must be from 0 to 1"),
        ({"lam": -0.1}, "lam must be from 0 to 1"),
        ({"value_epochs": 0}, "value_epochs must be at least 1"),
        ({"beta_end": 2.0}, "beta_end in"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_the_first_rounds_are_the_experts_and_all_others_the_students() -> None:
    assert [CONFIG.expert_share(i) for i in range(4)] == [1, 1, 0, 0]

"""Kickstarting: the divergence, its weight from round to round, its gate; and that it learns."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.students.distillation.kickstarting import Kickstarting, KickstartingConfig, distil
from tutelage.students.distillation.machinery.evaluation import evaluate_student
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.progress import Budget
from tutelage.students.ppo.formulas import PPOConfig
from tutelage.students.vision.student_state import StudentOutput
from tutelage.teachers.experts.expert_router import ExpertRouter
from tutelage.teachers.experts.mlp_expert import Advice, ExpertConfig, MLPExpert

LEARNING = LearningConfig(batch_size=96, learning_rate=3e-3, max_grad_norm=1.0, threads=1)
CONFIG = KickstartingConfig(Budget(frames=6_000), LEARNING, PPOConfig(rollout_steps=12, epochs=2, gamma=0.9))
RL = {"head": "gaussian", "critic_view": "privileged"}


def made(slider: Any, expert: Any, new_student: Any, n: int = 8, **changes: Any) -> Kickstarting:
    task = slider(num_envs=n)
    return Kickstarting(task, expert, new_student(task, **RL), replace(CONFIG, **changes), seed=0)


def output(mean: float, std: float) -> StudentOutput:
    return StudentOutput(torch.tensor([[mean]]), torch.tensor([[std]]), torch.zeros(1), None)  # type: ignore[arg-type]


def test_annealing() -> None:
    """Down to 20 % of lambda over the first half of the budget."""
    config = KickstartingConfig(weight=3.0, anneal=0.5, final_weight=0.2)
    assert [config.annealed(spent) for spent in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([1, 0.6, 0.2, 0.2])
    assert replace(config, anneal=0.0).annealed(0.9) == 1


def test_adaptive_weight(slider: Any, expert: Any, new_student: Any) -> None:
    method = made(slider, expert, new_student, n=2, weight=2.0, target_kl=0.3)
    weights = []
    for divergence in (0.46, 0.44, 0.21, 0.19, 0.19, 1.0):
        method.adapt(divergence)
        weights.append(method.weight)
    assert weights == [4, 4, 4, 2, 1, 2]
    method.weight = 1000.0
    method.adapt(9.0)
    assert method.weight == 1000
    method.weight = 1e-3
    method.adapt(0.0)
    assert method.weight == 1e-3
    still = made(slider, expert, new_student, n=2, weight=2.0)
    still.adapt(1e9)
    assert still.weight == 2


def test_term_by_hand(slider: Any, expert: Any, new_student: Any) -> None:
    """Expert N(1.5, 0.5), whose mean counts as 1; student N(0, 1)."""
    batch: Mapping[str, Tensor] = {
        "expert/mean": torch.tensor([[1.5]]),
        "expert/std": torch.tensor([[0.5]]),
        "expert/value": torch.tensor([2.0]),
        "values": torch.tensor([1.0]),
    }
    forward = torch.tensor(2.0).log() + (0.25 + 1) / 2 - 0.5
    backward = -torch.tensor(2.0).log() + (1 + 1) / (2 * 0.25) - 0.5
    method = made(slider, expert, new_student, n=2, weight=3.0)
    torch.testing.assert_close(method.added_losses(output(0.0, 1.0), batch), 3 * forward[None])
    other = made(slider, expert, new_student, n=2, weight=3.0, direction="student")
    torch.testing.assert_close(other.added_losses(output(0.0, 1.0), batch), 3 * backward[None])
    unclipped = made(slider, expert, new_student, n=2, learning=replace(LEARNING, clip_labels=False))
    wanted = torch.tensor(2.0).log() + (0.25 + 2.25) / 2 - 0.5
    torch.testing.assert_close(unclipped.added_losses(output(0.0, 1.0), batch), wanted[None])

    gated = made(slider, expert, new_student, n=2, weight=3.0, gate=True)
    torch.testing.assert_close(gated.added_losses(output(0.0, 1.0), batch), 3 * forward[None])
    better = {**batch, "values": torch.tensor([2.1])}  # the student's state is worth more than the expert's
    torch.testing.assert_close(gated.added_losses(output(0.0, 1.0), better), torch.zeros(1))
    method.round_weight = 0.0
    assert method.added_losses(output(0.0, 1.0), batch) is None


class Judging:
    """The expert with values, of -1 for all states."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.view, self.num_actions = inner, inner.view, inner.num_actions

    @property
    def queries(self) -> int:
        return int(self.inner.queries)

    def advise(self, obs_dict: Mapping[str, Tensor]) -> Advice:
        advice: Advice = self.inner.advise(obs_dict)
        return advice._replace(value=torch.full((len(advice.mean),), -1.0))


def test_rounds(slider: Any, expert: Any, new_student: Any) -> None:
    """Lambda falls with the budget; every state is asked about once, and the divergence is of the round."""
    method = made(slider, expert, new_student, budget=Budget(frames=480), anneal=1.0, weight=2.0)
    weights = []
    method.run(lambda _: weights.append(method.diagnostics["weight"]))
    # lambda is set after each roll-out of 96 frames
    assert weights == pytest.approx([2 * (1 - k / 5) for k in range(1, 6)])
    assert method.counts.queries == expert.queries == 480
    assert method.diagnostics["expert_kl"] > 0
    assert method.counts.history[0].action_error.shape == (1,)
    assert float(method.counts.history[0].action_error[0]) > 0


@pytest.mark.parametrize("stop", [2, 4])
def test_nobody_is_asked_once_the_weight_is_0(stop: int, slider: Any, expert: Any, new_student: Any) -> None:
    """Which is so for good; from a state before that, and from one after, a run goes on to the same numbers.

    Rounds of 96 frames, a fifth of the budget, begin at 0, 0.2, 0.4, 0.6 and 0.8 of it.
    """
    changes: dict[str, Any] = {"budget": Budget(frames=480), "anneal": 0.5, "weight": 2.0, "target_kl": 0.1}
    whole = made(slider, expert, new_student, **changes)
    states: list[Any] = []
    told: list[dict[str, float]] = []

    def look(_: Any) -> None:
        states.append(whole.state_dict())
        told.append(whole.diagnostics)

    result = whole.run(look)
    assert result.queries == expert.queries == 3 * 96
    assert [math.isnan(found["expert_kl"]) for found in told] == [False, False, False, True, True]
    assert [found["weight"] == 0 for found in told] == [False, False, True, True, True]
    assert result.history[-1].action_error.isnan().all()
    again = made(slider, expert, new_student, **changes)
    again.load_state_dict(states[stop - 1])
    assert again.run().queries == 3 * 96
    assert again.weight == whole.weight
    for name, tensor in whole.student.state_dict().items():
        assert torch.equal(again.student.state_dict()[name], tensor), name


def test_values_that_are_not_always_told(slider: Any, expert: Any, new_student: Any) -> None:
    """A router's are None in steps in which one of the experts that are asked has no critic."""

    class Sometimes(Judging):
        def advise(self, obs_dict: Mapping[str, Tensor]) -> Advice:
            advice = super().advise(obs_dict)
            return advice if self.inner.queries < 40 else advice._replace(value=None)

    method = made(slider, Sometimes(expert), new_student)
    assert "expert/value" not in method.roll_out()
    always = made(slider, Judging(expert), new_student)
    assert "expert/value" in always.roll_out()


def test_gate(slider: Any, expert: Any, new_student: Any) -> None:
    with pytest.raises(ValueError, match="this expert has no critic: set gate=False"):
        made(slider, expert, new_student, gate=True).round()
    method = made(slider, Judging(expert), new_student, gate=True)
    method.round()
    assert method.diagnostics["expert_kl"] > 0


def test_a_gate_of_an_expert_that_tells_that_it_has_no_critic(slider: Any, new_student: Any) -> None:
    """Is refused at once, and not when a round has begun; one expert of a router is enough."""

    def network(critic: bool) -> MLPExpert:
        config = ExpertConfig("privileged", 2, 1, (), "privileged" if critic else None, 2 if critic else 0)
        parts = {
            "mean": torch.zeros(2),
            "scale": torch.ones(2),
            "layers.0.weight": torch.zeros(1, 2),
            "layers.0.bias": torch.zeros(1),
        }
        names = ["actor", "critic"] if critic else ["actor"]
        tensors = {f"{who}.{name}": tensor for who in names for name, tensor in parts.items()}
        return MLPExpert(config, {**tensors, "log_std": torch.zeros(1)})

    def router(*critics: bool) -> ExpertRouter:
        experts = [network(critic) for critic in critics]
        return ExpertRouter(experts, lambda tasks: torch.arange(len(tasks)) % 2, lambda: torch.zeros(2, 1))

    for wrong in (network(False), router(True, False)):
        with pytest.raises(ValueError, match="this expert has no critic: set gate=False"):
            made(slider, wrong, new_student, n=2, gate=True)
        made(slider, wrong, new_student, n=2)
    for right in (network(True), router(True, True)):
        assert "expert/value" in made(slider, right, new_student, n=2, gate=True).roll_out()


def test_it_learns_and_resumes(slider: Any, expert: Any, new_student: Any, better: Any) -> None:
    task, test = slider(), slider(seed=1)
    student = new_student(task, **RL)
    before = evaluate_student(test, student, 128, seed=7)
    distil(task, expert, student, replace(CONFIG, target_kl=0.1), 0)
    after = evaluate_student(test, student, 128, seed=7)
    assert better(after, before)

    whole = made(slider, expert, new_student, target_kl=0.1)
    states: list[Any] = []
    whole.run(lambda _: states.append(whole.state_dict()) or len(states) < 2)  # type: ignore[func-returns-value]
    state = states[0]
    again = made(slider, expert, new_student, target_kl=0.1)
    again.load_state_dict(state)
    again.round()
    assert again.weight == whole.weight != CONFIG.weight
    for name, tensor in whole.student.state_dict().items():
        assert torch.equal(again.student.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "wrong",
    [{"weight": 0.0}, {"anneal": 1.5}, {"final_weight": -0.1}, {"target_kl": 0.0}, {"direction": "both"}],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KickstartingConfig(**wrong)

"""Distillation, then reinforcement learning: what is kept, who learns when, what holds the student back."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.students.distillation import Budget, LearningConfig, distil_then_rl, evaluate_student
from tutelage.students.distillation.distil_then_rl import DistilThenRL, DistilThenRLConfig, FineTuning
from tutelage.students.ppo.formulas import PPOConfig, gaussian_kl
from tutelage.students.vision.student_state import StudentOutput
from tutelage.students.vision.vision_student import VisionStudent

LEARNING = LearningConfig(
    loss="kl", batch_size=64, sequence_length=6, burn_in=0, threads=1, learning_rate=2e-3, shard_size=512
)
CONFIG = DistilThenRLConfig(
    Budget(frames=9_600),
    LEARNING,
    rollout_steps=6,
    updates=8,
    ppo=PPOConfig(rollout_steps=6, epochs=2, gamma=0.9),
    rl_batch_size=96,
    warmup_rounds=2,
)
STUDENT = {"head": "gaussian", "critic_view": "privileged", "critic_hidden": (32,)}


def weights(student: VisionStudent) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}


def test_weight_of_the_anchor_by_hand() -> None:
    config = replace(CONFIG, distil_share=0.6, anchor_weight=2.0, anchor_end=0.5)
    # the second part is from 0.6 to 1, the weight falls until its middle, 0.8
    assert [config.weight(spent) for spent in (0.6, 0.7, 0.8, 1.0)] == pytest.approx([2, 1, 0, 0])
    assert replace(config, anchor_end=1.0).weight(0.8) == pytest.approx(1.0)


def test_loss_of_the_anchor_by_hand(slider: Any, expert: Any, new_student: Any) -> None:
    task = slider(num_envs=2)
    tuning = FineTuning(task, expert, new_student(task, **STUDENT), replace(CONFIG, anchor_weight=0.5), 0)
    mean, std = torch.tensor([[0.2], [0.9]]), torch.tensor([[0.5], [0.5]])
    batch = {"expert/mean": torch.tensor([[0.1], [7.0]]), "expert/std": torch.tensor([[0.4], [0.4]])}
    found = tuning.added_losses(StudentOutput(mean, std, None, tuning.rolling.state), batch)
    assert found is not None
    label = torch.tensor([[0.1], [1.0]])  # clipped
    torch.testing.assert_close(found, 0.5 * gaussian_kl(mean, std, label, batch["expert/std"]))
    tuning.counts.frames = 9_600
    assert tuning.added_losses(StudentOutput(mean, std, None, tuning.rolling.state), batch) is None


@pytest.mark.parametrize("anchor", ["expert", "student", "none"])
def test_first_the_expert_then_rewards(anchor: Any, slider: Any, expert: Any, new_student: Any) -> None:
    task = slider(num_envs=8)
    student = new_student(task, **STUDENT)
    config = replace(CONFIG, budget=Budget(frames=8 * 48), anchor=anchor)
    method = DistilThenRL(task, expert, student, config, 0)
    tuned: list[bool] = []
    rates: list[float] = []
    kept: list[dict[str, Tensor]] = []

    def look(progress: Any) -> None:
        tuned.append(method.tuning is not None)
        rates.append(progress.learning_rate)
        kept.append(weights(student))

    critic = student.critic
    result = method.run(look)
    assert tuned == [False] * 4 + [True] * 4
    assert student.critic is critic
    assert result.frames == 8 * 48
    assert result.queries == expert.queries == (8 if anchor == "expert" else 4) * 48
    # 1 - 0.95 spent, of each part: after each of its four rounds
    falling = [1 - 0.95 * part / 4 for part in range(1, 5)]
    assert rates == pytest.approx([2e-3 * part for part in falling] + [3e-4 * part for part in falling])
    # two rounds of the critic alone, then all
    for before, after, who in ((3, 4, "critic"), (4, 5, "critic"), (5, 6, "")):
        for name, tensor in kept[after].items():
            changed = not torch.equal(tensor, kept[before][name])
            assert not changed or name.startswith(who), name
    for before, after, name in ((5, 6, "actor.0.weight"), (3, 4, "critic.network.layers.0.weight")):
        assert not torch.equal(kept[before][name], kept[after][name])


def test_rounding_does_not_raise_the_rate_while_the_critic_learns_alone(
    slider: Any, expert: Any, new_student: Any
) -> None:
    """Else a distilled student would meet the highest rate there is in its first step."""

    class Shaken(FineTuning):
        def update_normalizers(self, judged: Tensor | None, returns: Tensor) -> None:
            with torch.no_grad():  # as if the same frames gave other last bits, as they may on a GPU
                self.student.actor[-1].bias += 1e-3

    task = slider(num_envs=8)
    config = replace(CONFIG, ppo=replace(CONFIG.ppo, desired_kl=0.01), warmup_rounds=1)
    tuning = Shaken(task, expert, new_student(task, **STUDENT), config, 0)
    tuning.round()
    assert tuning.learner.learning_rate == 3e-4
    tuning.round()
    assert tuning.learner.learning_rate != 3e-4


@pytest.mark.parametrize("config", [{}, {"frames": 2}, {"memory": 8}])
def test_an_anchor_of_itself_agrees_as_long_as_nothing_is_learnt(
    config: dict[str, Any], slider: Any, expert: Any, new_student: Any
) -> None:
    task = slider(num_envs=6)
    student = new_student(task, precision="float32", **STUDENT, **config)
    settings = replace(CONFIG, anchor="student", ppo=replace(CONFIG.ppo, rollout_steps=4))
    tuning = FineTuning(task, expert, student, settings, 0)
    for _ in range(3):  # of 4 steps: episodes, of 6, end and begin within
        found = tuning.roll_out()
        torch.testing.assert_close(found["expert/mean"], found["means"], rtol=0, atol=1e-6)
        torch.testing.assert_close(found["expert/std"], found["stds"])
    with torch.no_grad():
        student.actor[-1].bias += 1.0
    again = tuning.roll_out()
    torch.testing.assert_close(again["means"] - again["expert/mean"], torch.ones(4, 6, 1), rtol=0, atol=1e-5)


def test_it_learns(slider: Any, expert: Any, new_student: Any, better: Any) -> None:
    task, test = slider(), slider(seed=1)
    student = new_student(task, **STUDENT)
    before = evaluate_student(test, student, 128, seed=7)
    result = distil_then_rl.distil(task, expert, student, CONFIG, 0)
    assert better(evaluate_student(test, student, 128, seed=7), before)
    assert result.frames == 50 * 192
    assert result.queries == 50 * 192


def test_rewards_alone_bring_a_distilled_student_on(slider: Any, new_student: Any) -> None:
    """The expert stays where it is: what is distilled fails, and what then learns from rewards fails less."""
    from tutelage.teachers.experts.mlp_expert import Advice

    class Still:
        view, num_actions, queries = "privileged", 1, 0

        def advise(self, obs_dict: Any) -> Advice:
            n = len(obs_dict["privileged"])
            return Advice(torch.zeros(n, 1), torch.full((n, 1), 0.5), None)

    task, test = slider(), slider(seed=1)
    student = new_student(task, **STUDENT)
    config = replace(
        CONFIG,
        budget=Budget(frames=12_000),
        distil_share=0.2,
        anchor="none",
        rl_learning_rate=2e-3,
        noise=0.5,
    )
    method = DistilThenRL(task, Still(), student, config, 0)
    returns: list[float] = []

    def look(progress: Any) -> None:
        if progress.frames == 13 * 192:
            returns.append(float(evaluate_student(test, student, 128, seed=7).returns.mean()))

    method.run(look)
    assert method.tuning is not None
    after = float(evaluate_student(test, student, 128, seed=7).returns.mean())
    assert after > returns[0] + 0.3


@pytest.mark.parametrize("anchor", ["expert", "student"])
@pytest.mark.parametrize("stop", [5, 7])
def test_nobody_is_asked_once_the_weight_is_0(
    anchor: Any, stop: int, slider: Any, expert: Any, new_student: Any
) -> None:
    """Four rounds of each part; the weight is 0 in the middle of the second, and a run goes on exactly."""

    def make() -> DistilThenRL:
        task = slider(num_envs=8)
        config = replace(CONFIG, budget=Budget(frames=8 * 48), anchor=anchor, anchor_end=0.5, warmup_rounds=1)
        return DistilThenRL(task, expert, new_student(task, memory=4, **STUDENT), config, 0)

    whole = make()
    states: list[Any] = []
    asked: list[int] = []
    heard: list[bool] = []

    def look(progress: Any) -> None:
        states.append(whole.state_dict())
        asked.append(progress.queries // 48)
        if whole.tuning is not None:
            heard.append(whole.tuning.anchored)

    whole.run(look)
    assert heard == [True, True, False, False]
    assert asked == ([1, 2, 3, 4, 5, 6, 6, 6] if anchor == "expert" else [1, 2, 3, 4, 4, 4, 4, 4])
    again = make()
    again.load_state_dict(states[stop - 1])
    assert again.run().queries == 48 * asked[-1]
    assert again.tuning is not None
    assert not again.tuning.anchored
    for name, tensor in weights(whole.student).items():
        assert torch.equal(tensor, weights(again.student)[name]), name


@pytest.mark.parametrize("anchor", ["expert", "student"])
@pytest.mark.parametrize("stop", [2, 5])
def test_a_run_goes_on_from_its_state(
    anchor: Any, stop: int, slider: Any, expert: Any, new_student: Any
) -> None:
    """From a state of the first part, and from one of the second."""

    def make() -> DistilThenRL:
        task = slider(num_envs=4)
        config = replace(CONFIG, budget=Budget(frames=7 * 20), updates=2, anchor=anchor, warmup_rounds=1)
        # Rounds of 5 steps end amid episodes, of 6.
        config = replace(config, rollout_steps=5, ppo=replace(CONFIG.ppo, rollout_steps=5))
        return DistilThenRL(task, expert, new_student(task, memory=4, **STUDENT), config, 0)

    whole = make()
    states: list[Any] = []
    whole.run(lambda progress: states.append(whole.state_dict()) if progress.frames == stop * 20 else None)
    again = make()
    again.load_state_dict(states[0])
    assert (again.tuning is not None) == (stop == 5)
    result = again.run()
    assert len(result.history) == 7
    for name, tensor in weights(whole.student).items():
        assert torch.equal(tensor, weights(again.student)[name]), name


def test_students_that_cannot_learn_from_rewards_are_refused(
    slider: Any, expert: Any, new_student: Any
) -> None:
    task = slider(num_envs=2)
    for config, message in (
        ({"critic_view": "privileged"}, "head='gaussian'"),
        ({"head": "gaussian"}, "needs a critic"),
        ({"head": "gaussian", "critic_view": "student"}, "a critic that sees a vector"),
    ):
        with pytest.raises(ValueError, match=message):
            DistilThenRL(task, expert, new_student(task, **config), CONFIG, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anchor": "teacher"}, "unknown anchor 'teacher'"),
        ({"distil_share": 1.0}, "distil_share must be between 0 and 1"),
        ({"warmup_rounds": -1}, "need warmup_rounds >= 0"),
        ({"anchor_end": 0.0}, "anchor_end in"),
        ({"updates": 0}, "updates must be at least 1"),
        ({"rl_learning_rate": 0.0}, "learning_rate must be above 0"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


@pytest.mark.gpu
def test_on_a_gpu(slider: Any, expert: Any, new_student: Any) -> None:
    task = slider(num_envs=8, device="cuda")
    student = new_student(task, memory=8, **STUDENT)
    config = replace(CONFIG, budget=Budget(frames=8 * 48), anchor="student")
    method = DistilThenRL(task, expert, student, config, 0)
    method.run()
    assert method.tuning is not None
    assert all(tensor.isfinite().all() for tensor in weights(student).values())

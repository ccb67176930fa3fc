"""Distillation of a tiny task: students learn, count what they cost, and are the same when repeated."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tutelage.students import distillation
from tutelage.students.distillation import (
    BehaviourCloningConfig,
    Budget,
    DaggerConfig,
    DistillationProgress,
    LearningConfig,
    OnPolicyConfig,
    evaluate_student,
)
from tutelage.students.distillation.behaviour_cloning import Disturbance
from tutelage.students.distillation.dagger_value import DaggerValueConfig
from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.learner import DEVIATION, LABEL, Learner
from tutelage.students.distillation.machinery.progress import RunCounts
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent

LEARNING = LearningConfig(batch_size=64, sequence_length=6, burn_in=0, threads=1, learning_rate=2e-3)
CONFIGS: dict[str, Any] = {
    "dagger": DaggerConfig(Budget(frames=9_000), LEARNING, rollout_steps=6, updates=8),
    "behaviour_cloning": BehaviourCloningConfig(
        Budget(frames=9_000), LEARNING, rollout_steps=6, updates=8, disturb="dart"
    ),
    "on_policy": OnPolicyConfig(Budget(frames=9_000), LEARNING, rollout_steps=6, epochs=4),
}


def distil(method: str, task: Any, expert: Any, student: Any, seed: int = 0, **changes: Any) -> Any:
    """Run a method; `changes` are of its config."""
    reports: list[DistillationProgress] = []
    config = replace(CONFIGS[method], **changes)
    result = getattr(distillation, method).distil(task, expert, student, config, seed, reports.append)
    return result, reports


@pytest.mark.parametrize("method", CONFIGS)
def test_a_distilled_student_beats_an_untrained_one(
    method: str, slider: Any, expert: Any, new_student: Any, better: Any
) -> None:
    task, test = slider(), slider(seed=1)
    student = new_student(task)
    before = evaluate_student(test, student, 128, seed=7)
    assert evaluate_student(test, expert, 128, seed=7).success == 1
    expert.queries = 0
    result, reports = distil(method, task, expert, student)
    after = evaluate_student(test, student, 128, seed=7)
    assert better(after, before)
    assert reports[-1].loss < reports[0].loss
    # whole rounds of 6 steps of 32 environments, until at least 9,000
    assert result.frames == result.queries == expert.queries == reports[-1].frames == 47 * 192
    assert result.updates == reports[-1].updates == 47 * 8  # on_policy: 2 parts of 3 steps, 4 times
    assert sum(report.episodes for report in reports) == result.frames // 6
    assert result.history == tuple(reports)


@pytest.mark.parametrize("method", CONFIGS)
@pytest.mark.parametrize("student_config", [{}, {"memory": 8}, {"frames": 2, "head": "gaussian"}])
def test_same_seed_same_student(
    method: str, student_config: dict[str, Any], slider: Any, expert: Any, new_student: Any
) -> None:
    found = []
    state = torch.random.get_rng_state()
    for seed in (0, 0, 1):
        task = slider(num_envs=8)
        student = new_student(task, **student_config)
        learning = replace(LEARNING, loss="kl", batch_size=12)
        _, reports = distil(method, task, expert, student, seed, budget=Budget(frames=100), learning=learning)
        found.append(
            (torch.cat([parameter.detach().flatten() for parameter in student.parameters()]), reports[-1])
        )
    assert torch.equal(found[0][0], found[1][0])
    same, other = found[0][1], found[1][1]
    assert (same.loss, same.success, same.frames) == (other.loss, other.success, other.frames)
    assert torch.equal(same.action_error, other.action_error)
    draws = method != "on_policy" or student_config.get("head") == "gaussian"
    assert torch.equal(found[0][0], found[2][0]) != draws
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "student_config",
    [{"frames": 3}, {"memory": 8}, {"images": ("front/rgb", "front/depth")}, {"vector": None}],
)
def test_students_of_all_kinds_are_trained(
    student_config: dict[str, Any], slider: Any, expert: Any, new_student: Any
) -> None:
    task = slider(num_envs=8, modalities=("rgb", "depth"))
    student = new_student(task, **student_config)
    before = [parameter.detach().clone() for parameter in student.parameters()]
    augmentation = distillation_augmentation()
    learning = replace(LEARNING, augmentation=augmentation)
    for method in CONFIGS:
        distil(method, task, expert, student, budget=Budget(frames=100), learning=learning)
    changed = [not torch.equal(*pair) for pair in zip(before, student.parameters(), strict=True)]
    assert all(changed)


def distillation_augmentation() -> Any:
    from tutelage.envs.batched.looks.image_augmentation import ImageAugmentation

    return ImageAugmentation(shift=2)


@pytest.mark.parametrize("method", [*CONFIGS, "dagger_value"])
def test_all_that_is_met_is_to_be_predicted(method: str, slider: Any, expert: Any, new_student: Any) -> None:
    """The normaliser has the mean of all frames, and the network gradients, whoever rolls out."""
    task = slider(num_envs=8)
    critic = {"critic_view": "privileged"} if method == "dagger_value" else {}
    student = new_student(task, predicts="privileged", **critic)
    before = [parameter.detach().clone() for parameter in student.predictor.parameters()]
    met: list[Tensor] = []
    observe = student.predictor.observe
    student.predictor.observe = lambda views: (met.append(views.clone()), observe(views))
    config = CONFIGS.get(method, DaggerValueConfig(Budget(frames=100), LEARNING, rollout_steps=6, updates=8))
    config = replace(config, budget=Budget(frames=100))
    result = getattr(distillation, method).distil(task, expert, student, config, 0)
    assert int(student.predictor.seen) == sum(map(len, met)) == result.frames
    torch.testing.assert_close(student.predictor.mean, torch.cat(met).mean(0))
    after = list(student.predictor.parameters())
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_steps_before_the_memory_is_filled_give_no_gradient(slider: Any, new_student: Any) -> None:
    task = slider(num_envs=2)
    student = new_student(task, memory=8)
    learner = Learner(student, replace(LEARNING, sequence_length=6, burn_in=2), torch.Generator())
    length, n = 6, 2
    label = torch.zeros(length, n, 1, requires_grad=True)
    batch = {
        "front/rgb": torch.zeros(length, n, 32, 32, 3, dtype=torch.uint8),
        "policy": torch.ones(length, n, 1),
        LABEL: label,
        DEVIATION: torch.ones(length, n, 1),
        # the first sequence begins within an episode, of which the next begins at step 4; the second with one
        "age": torch.tensor([[7, 0], [8, 1], [9, 2], [10, 3], [0, 4], [1, 5]], dtype=torch.int32),
    }
    learner.sequence_loss(batch).backward()
    assert label.grad is not None
    counted = label.grad[..., 0] != 0
    assert counted.T.tolist() == [[False, False, True, True, True, True], [True] * 6]


def test_memory_does_not_pass_from_one_episode_to_the_next(slider: Any, new_student: Any) -> None:
    task = slider(num_envs=2)
    learner = Learner(new_student(task, memory=8), LEARNING, torch.Generator())
    images = torch.zeros(2, 2, 32, 32, 3, dtype=torch.uint8)
    images[0, 0] = 255
    # the same last frame after two different ones
    batch = {
        "front/rgb": images,
        "policy": torch.zeros(2, 2, 1),
        LABEL: torch.zeros(2, 2, 1),
        DEVIATION: torch.ones(2, 2, 1),
    }

    def memories(ages: list[list[int]]) -> tuple[Tensor, Tensor]:
        _, state = learner.losses({**batch, "age": torch.tensor(ages)}, learner.student.start(2))
        return state.memory[0], state.memory[1]

    torch.testing.assert_close(*memories([[0, 0], [0, 0]]))
    one, other = memories([[0, 0], [1, 1]])
    assert (one - other).abs().max().item() > 1e-3


def test_beta_schedules() -> None:
    indicator = DaggerConfig(beta="indicator", beta_rounds=2, beta_end=0.1)
    assert [indicator.expert_share(i) for i in range(4)] == [1, 1, 0.1, 0.1]
    linear = DaggerConfig(beta="linear", beta_rounds=4, beta_end=0.0)
    assert [linear.expert_share(i) for i in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]
    exponential = DaggerConfig(beta="exponential", beta_rounds=2, beta_end=0.05)
    assert [exponential.expert_share(i) for i in range(3)] == pytest.approx([1, 0.1, 0.05])


def test_learning_rate_falls_linearly(slider: Any, new_student: Any) -> None:
    config = LearningConfig(learning_rate=0.01, final_learning_rate=0.1)
    learner = Learner(new_student(slider(num_envs=1)), config, torch.Generator())
    rates = []
    for spent in (0.0, 0.5, 1.0, 1.7):
        learner.decay(spent)
        rates.append(learner.learning_rate)
    assert rates == pytest.approx([0.01, 0.0055, 0.001, 0.001])


def test_dart_noise_has_the_shape_of_the_errors_and_the_size_asked_for() -> None:
    config = BehaviourCloningConfig(disturb="dart", noise=0.5)
    disturbance = Disturbance(config, torch.zeros(1, 2), torch.Generator().manual_seed(0))
    expert = torch.zeros(4, 2)
    errors = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [0.5, 1.0], [0.0, 0.0]])  # along (1, 2) alone
    disturbance(errors, expert)
    disturbance.adapt()
    covariance = disturbance.root @ disturbance.root.T
    # trace 2 * 0.5^2, direction (1, 2) / sqrt(5)
    wanted = 0.5 * torch.tensor([[0.2, 0.4], [0.4, 0.8]])
    torch.testing.assert_close(covariance, wanted, rtol=0, atol=1e-4)


def test_budget_is_spent_by_the_first_limit() -> None:
    assert Budget(frames=100).spent(50, 1e9) == 0.5
    assert Budget(seconds=10).spent(10**9, 2.5) == 0.25
    assert Budget(frames=100, seconds=10).spent(50, 9) == 0.9
    for wrong in ({}, {"frames": 0}, {"seconds": -1.0}):
        with pytest.raises(ValueError, match="a budget needs frames or seconds above 0"):
            Budget(**wrong)


def test_ledger_counts_by_hand() -> None:
    counts = RunCounts(Budget(frames=8), 2, torch.device("cpu"))
    yes, no = torch.tensor([True, True]), torch.tensor([True, False])
    counts.add_step(yes, no, torch.tensor([[0.1, 1.0], [0.3, 0.0]]))
    counts.add_step(~yes, yes, torch.tensor([[0.0, 0.0], [0.4, 1.0]]))
    counts.add_update(torch.tensor(2.0), 16)
    counts.add_update(torch.tensor(4.0), 16)
    assert counts.report(None, 0.5, 1e-3)
    (progress,) = counts.history
    assert (progress.frames, progress.queries, progress.updates) == (4, 4, 2)
    assert (progress.loss, progress.episodes, progress.success) == (3.0, 2, 0.5)
    assert progress.action_error.tolist() == pytest.approx([0.2, 0.5])
    counts.add_step(yes, yes, torch.zeros(2, 2))
    counts.add_step(yes, yes, torch.zeros(2, 2))
    assert not counts.report(None, 0.5, 1e-3)  # 8 frames are all
    counts.add_update(torch.tensor(float("nan")), 1)
    with pytest.raises(RuntimeError, match="loss became nan after 3 updates; lower the learning rate"):
        counts.report(None, 0.5, 1e-3)


def test_a_callback_stops(slider: Any, expert: Any, new_student: Any) -> None:
    task = slider(num_envs=4)
    config = replace(CONFIGS["dagger"], budget=Budget(frames=10**9))
    result = distillation.dagger.distil(task, expert, new_student(task), config, 0, lambda progress: False)
    assert result.frames == 6 * 4


def test_evaluation_is_of_the_same_episodes_however_many_environments(
    slider: Any, expert: Any, new_student: Any
) -> None:
    few, many = slider(num_envs=3, seed=5), slider(num_envs=16, seed=6)
    student = new_student(few, frames=2)
    one, other = (evaluate_student(task, student, 10, seed=3) for task in (few, many))
    np.testing.assert_array_equal(one.tasks, other.tasks)
    np.testing.assert_array_equal(one.successes, other.successes)
    np.testing.assert_allclose(one.returns, other.returns, rtol=1e-4, atol=1e-4)
    assert one.lengths.tolist() == [6] * 10
    assert evaluate_student(lambda: slider(num_envs=4), expert, 8, seed=3).success == 1
    with pytest.raises(ValueError, match="episodes must be at least 1"):
        evaluate_student(few, student, 0, seed=0)


def test_returns_of_an_evaluation_by_hand(slider: Any) -> None:
    from tutelage.students.distillation.machinery.evaluation import evaluate_student
    from tutelage.teachers.experts.mlp_expert import Advice

    class Still:
        view, num_actions, queries = "privileged", 1, 0

        def advise(self, obs_dict: Any) -> Advice:
            self.first = obs_dict["privileged"].clone()
            return Advice(torch.zeros(len(self.first), 1), torch.ones(len(self.first), 1), None)

    still = Still()
    found = evaluate_student(slider(num_envs=4), still, 4, seed=2)
    distance = (still.first[:, 0] - still.first[:, 1]).abs().double().numpy()
    np.testing.assert_allclose(found.returns, -6 * distance, rtol=1e-5)
    np.testing.assert_array_equal(found.successes, distance < 0.15)


def test_what_does_not_fit_is_refused(slider: Any, expert: Any, new_student: Any) -> None:
    task = slider(num_envs=2)
    student = new_student(task)
    config = CONFIGS["dagger"]
    distil_ = distillation.dagger.distil
    expert.view = "priviledged"
    with pytest.raises(ValueError, match="did you mean 'privileged'"):
        distil_(task, expert, student, config, 0)
    expert.view, expert.num_actions = "privileged", 2
    with pytest.raises(ValueError, match="the expert's actions have 2 numbers"):
        distil_(task, expert, student, config, 0)
    expert.num_actions = 1
    blind = slider(num_envs=2, modalities=("depth",))
    with pytest.raises(ValueError, match="a view that Slider does not show: unknown view 'front/rgb'"):
        distil_(blind, expert, student, config, 0)
    foresees = VisionStudent(
        VisionConfig(predicts="privilege"), {"front/rgb": (32, 32, 3), "policy": (1,), "privilege": (2,)}, 1
    )
    with pytest.raises(ValueError, match=r"predicts, .* that Slider does not show: .*mean 'privileged'"):
        distil_(task, expert, foresees, config, 0)
    with pytest.raises(ValueError, match="a ring of 1 frames holds no step of 2"):
        distil_(task, expert, student, replace(config, buffer_frames=1), 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LearningConfig(loss="mae"), "unknown loss 'mae'"),
        (lambda: LearningConfig(burn_in=16), "burn_in must be from 0 to sequence_length - 1 = 15"),
        (lambda: LearningConfig(learning_rate=0), "learning_rate must be above 0"),
        (lambda: LearningConfig(final_learning_rate=2), "a share from 0 to 1"),
        (lambda: DaggerConfig(beta="cosine"), "unknown beta schedule 'cosine'"),  # type: ignore[arg-type]
        (lambda: DaggerConfig(updates=0), "updates must be at least 1"),
        (lambda: DaggerConfig(beta_end=2), "beta_end in"),
        (lambda: BehaviourCloningConfig(disturb="darts"), "unknown disturbance 'darts'"),  # type: ignore[arg-type]
        (lambda: BehaviourCloningConfig(noise=-1), "noise must not be negative"),
        (lambda: OnPolicyConfig(epochs=0), "epochs must be at least 1"),
    ],
)
def test_bad_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_ring_fields_are_what_the_student_sees(slider: Any, new_student: Any) -> None:
    task = slider(num_envs=2)
    learner = Learner(new_student(task), LEARNING, torch.Generator())
    mean = torch.tensor([[3.0], [-0.2]])
    fields = learner.fields(task.obs_dict, mean, torch.ones(2, 1))
    assert set(fields) == {"front/rgb", "policy", LABEL, DEVIATION}
    assert fields[LABEL].flatten().tolist() == pytest.approx([1.0, -0.2])
    assert FrameBuffer(4, 2, fields, "cpu").steps == 2


@pytest.mark.gpu
@pytest.mark.parametrize("method", CONFIGS)
def test_on_a_gpu(method: str, slider: Any, expert: Any, new_student: Any) -> None:
    task = slider(num_envs=8, device="cuda")
    student = new_student(task, memory=8)
    result, reports = distil(method, task, expert, student, budget=Budget(frames=100))
    assert student.device.type == "cuda"
    assert result.frames == 3 * 48
    assert np.isfinite(reports[-1].loss)

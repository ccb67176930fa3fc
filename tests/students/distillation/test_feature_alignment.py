"""Feature alignment: what the loss is, what the mask keeps out of it, what stays frozen, what is learnt."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tutelage.envs.contract.state import StateError
from tutelage.students.distillation import Budget, LearningConfig, evaluate_student, feature_alignment
from tutelage.students.distillation.feature_alignment import (
    TRUST,
    VIEW,
    AlignmentLearner,
    FeatureAlignment,
    FeatureAlignmentConfig,
)
from tutelage.students.vision.aligned_student import AdaptedHead, AlignedStudent, Thought, load_vision_student
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent
from tutelage.teachers.experts.expert_router import ExpertRouter, box_rule
from tutelage.teachers.experts.mlp_expert import ExpertConfig, MLPExpert

LEARNING = LearningConfig(batch_size=64, sequence_length=6, burn_in=0, threads=1, learning_rate=2e-3)
CONFIG = FeatureAlignmentConfig(Budget(frames=9_000), LEARNING, rollout_steps=6, updates=8)
STEP = 0.3  # m that the slider moves for an action of 1


def pointing(towards: float = 1.0) -> MLPExpert:
    """d = (goal - x) / 0.3; features relu(d), relu(-d); action: their difference, times `towards`."""
    tensors = {
        "actor.mean": torch.zeros(2),
        "actor.scale": torch.ones(2),
        "actor.layers.0.weight": torch.tensor([[-1.0, 1.0], [1.0, -1.0]]) / STEP,
        "actor.layers.0.bias": torch.zeros(2),
        "actor.layers.2.weight": torch.tensor([[towards, -towards]]),
        "actor.layers.2.bias": torch.zeros(1),
        "log_std": torch.tensor([math.log(0.3)]),
    }
    return MLPExpert(ExpertConfig("privileged", 2, 1, (2,), activation="ReLU"), tensors)


@pytest.fixture
def aligned() -> Any:
    """Makes a student of a task: ``aligned(task, expert, seed=0, frames=2)``."""

    def make(task: Any, expert: MLPExpert | None = None, seed: int = 0, **config: Any) -> AlignedStudent:
        config = {"images": ("front/rgb",), "hidden": (64,), **config}
        return AlignedStudent.of_expert(VisionConfig(**config), task, expert or pointing(), 8, seed)

    return make


def test_before_training_it_is_the_expert_on_the_predicted_view(slider: Any, aligned: Any) -> None:
    expert = pointing()
    head = aligned(slider(num_envs=2), expert).actor
    raw = torch.randn(5, head.linear.in_features, generator=torch.Generator().manual_seed(0))
    with head.watching() as thoughts:
        mean = head(raw)
    (thought,) = thoughts
    torch.testing.assert_close(mean, expert.actor(thought.view).clamp(-1, 1))
    # adapters add nothing yet
    torch.testing.assert_close(thought.features[0], head.think(thought.view)[0].features[0])
    # what the expert makes of its view (x, goal) = (0.2, -0.1): d = -1
    own, action = head.think(torch.tensor([[0.2, -0.1]]))
    torch.testing.assert_close(own.features[0], torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(action, torch.tensor([[-1.0]]))
    assert not own.view.requires_grad


def test_an_expert_of_two_layers_with_a_normaliser() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "actor.layers.0.weight": (6, 3),
        "actor.layers.0.bias": (6,),
        "actor.layers.2.weight": (5, 6),
        "actor.layers.2.bias": (5,),
        "actor.layers.4.weight": (2, 5),
        "actor.layers.4.bias": (2,),
    }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tensors |= {"actor.mean": torch.arange(3.0), "actor.scale": torch.tensor([1.0, 2.0, 0.5])}
    expert = MLPExpert(ExpertConfig("v", 3, 2, (6, 5), clip=1.5), {**tensors, "log_std": torch.zeros(2)})
    head = AdaptedHead(4, expert.actor, (8,), 3)
    assert [adapter[0].in_features for adapter in head.adapters] == [6 + 4, 5 + 4]  # type: ignore[union-attr,index]
    view = torch.tensor([[0.5, 7.0, 1.9], [-3.0, 1.0, 2.0]])
    thought, action = head.think(view)
    # (0.5 - 0) / 1, (7 - 1) / 2 = 3 -> 1.5, (1.9 - 2) / 0.5; -3 -> -1.5, 0, 0
    torch.testing.assert_close(thought.view, torch.tensor([[0.5, 1.5, -0.2], [-1.5, 0.0, 0.0]]))
    assert [feature.shape for feature in thought.features] == [(2, 6), (2, 5)]
    torch.testing.assert_close(action, expert.actor(view))


def test_loss_by_hand(slider: Any, aligned: Any) -> None:
    config = replace(CONFIG, view_weight=2.0, feature_weights=(3.0,))
    student = aligned(slider(num_envs=1))
    learner = AlignmentLearner(student, config, torch.Generator())
    # Huber with beta 0.1: e^2 / 0.2 below 0.1, |e| - 0.05 above.
    view = torch.tensor([[0.2, -0.1], [0.2, -0.1]])
    made = Thought(torch.tensor([[0.25, -0.1]] * 2), (torch.tensor([[0.0, 0.5]] * 2),))
    found = learner.alignment_losses(student.actor, made, view, torch.tensor([1.0, 0.0]))
    seen = (0.05**2 / 0.2 + 0) / 2
    feature = (0 + 0.5 - 0.05) / 2  # the expert's are (0, 1)
    assert found.tolist() == pytest.approx([2 * seen + 3 * feature, 2 * seen])


def test_each_layer_has_its_weight_and_the_last_one_is_that_of_all_further(slider: Any, aligned: Any) -> None:
    learner = AlignmentLearner(
        aligned(slider(num_envs=1)), replace(CONFIG, feature_weights=(4.0, 2.0)), torch.Generator()
    )
    none = torch.zeros(1, 2)

    class Head:
        def think(self, view: Tensor) -> tuple[Thought, Tensor]:
            return Thought(none, (none, none, none)), none

    for layer, weight in enumerate((4.0, 2.0, 2.0)):
        features = tuple(none + (number == layer) for number in range(3))
        found = learner.alignment_losses(Head(), Thought(none, features), none, torch.ones(1))  # type: ignore[arg-type]
        assert found.item() == pytest.approx(weight * 0.95)  # Huber of 1


def test_no_feature_gradient_where_the_mask_is_zero(slider: Any, aligned: Any) -> None:
    student = aligned(slider(num_envs=1))
    learner = AlignmentLearner(student, CONFIG, torch.Generator())
    view = torch.tensor([[0.2, -0.1], [0.6, 0.3], [-0.4, 0.5]])
    feature = torch.full((3, 2), 0.5, requires_grad=True)
    predicted = torch.zeros(3, 2, requires_grad=True)
    trust = torch.tensor([0.0, 1.0, 0.0])
    learner.alignment_losses(student.actor, Thought(predicted, (feature,)), view, trust).sum().backward()
    assert feature.grad is not None
    assert predicted.grad is not None
    assert (feature.grad != 0).any(1).tolist() == [False, True, False]
    assert (predicted.grad != 0).any(1).tolist() == [True] * 3  # what is to be seen counts everywhere


@pytest.mark.parametrize("student_config", [{}, {"memory": 8}])
def test_where_the_mask_is_zero_only_actions_train_the_adapters(
    student_config: dict[str, Any], slider: Any, aligned: Any
) -> None:
    gradients = []
    for weight in (1.0, 100.0):
        task = slider(num_envs=4)
        method = FeatureAlignment(
            task,
            pointing(),
            aligned(task, **student_config),
            replace(CONFIG, feature_weights=(weight,)),
            seed=0,
            trust=lambda obs_dict, actions, labels: torch.zeros(len(actions)),
        )
        method.round()
        adapters = method.student.actor.get_submodule("adapters")
        gradients.append([p.grad.clone() for p in adapters.parameters() if p.grad is not None])
        assert any((gradient != 0).any() for gradient in gradients[-1])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_default_mask_is_agreement_with_the_label(slider: Any, aligned: Any) -> None:
    student = aligned(slider(num_envs=1))
    learner = AlignmentLearner(student, replace(CONFIG, tolerance=0.5), torch.Generator())
    obs_dict = {
        "front/rgb": torch.zeros(4, 32, 32, 3, dtype=torch.uint8),
        "policy": torch.zeros(4, 1),
        "privileged": torch.tensor([[0.0, 0.15], [0.0, 0.15], [0.0, 0.9], [0.0, 0.9]]),  # d = 0.5, 3
    }
    label = torch.tensor([[0.9], [-0.1], [5.0], [-5.0]])
    fields = learner.fields(obs_dict, label, torch.ones(4, 1))
    # |0.5 - 0.9|, |0.5 + 0.1|, and clipped: |1 - 1|, |1 + 1|
    assert fields[TRUST].tolist() == [1, 0, 1, 0]
    assert torch.equal(fields[VIEW], obs_dict["privileged"])


def test_means_are_clipped_and_can_come_back(slider: Any, aligned: Any) -> None:
    head = aligned(slider(num_envs=1)).actor
    raw = torch.zeros(1, head.linear.in_features)
    with torch.no_grad():
        head.predict[-1].weight.zero_()
        head.predict[-1].bias.copy_(torch.tensor([0.0, 0.9]))  # d = 3
    mean = head(raw)
    assert mean.item() == 1.0
    mean.sum().backward()
    assert head.predict[-1].bias.grad.tolist() == pytest.approx([-1 / STEP, 1 / STEP])


def test_it_learns_and_the_expert_stays_as_it_was(slider: Any, aligned: Any, better: Any) -> None:
    task, test = slider(), slider(seed=1)
    expert = pointing()
    student = aligned(task, expert)
    frozen = {name: tensor.clone() for name, tensor in expert.state_dict().items()}
    before = evaluate_student(test, student, 128, seed=7)
    result = feature_alignment.distil(task, expert, student, CONFIG, 0)
    after = evaluate_student(test, student, 128, seed=7)
    assert better(after, before)
    assert result.history[-1].loss < result.history[0].loss
    assert result.frames == result.queries == 47 * 192
    for name, tensor in expert.state_dict().items():
        assert torch.equal(tensor, frozen[name])
    inside = student.actor.expert.state_dict()
    for name, tensor in expert.actor.state_dict().items():
        assert torch.equal(inside[name], tensor)
    trained = dict(student.actor.named_parameters())
    assert {name for name in trained if not trained[name].requires_grad} == {
        f"expert.{n}" for n in inside
    } - {
        "expert.mean",
        "expert.scale",
    }


def test_a_wrong_head_is_corrected_where_the_labels_say_so(slider: Any, aligned: Any, better: Any) -> None:
    """The head flees the goal in one half of the tasks; the labels do not."""
    task, test = slider(), slider(seed=1)
    fleeing = pointing(towards=-1.0)
    labels = pointing()
    student = aligned(task, fleeing)
    result = feature_alignment.distil(task, labels, student, replace(CONFIG, budget=Budget(frames=12_000)), 0)
    assert better(evaluate_student(test, student, 128, seed=7), evaluate_student(test, fleeing, 128, seed=7))
    assert result.history[-1].action_error.item() < 0.25


def test_same_seed_same_student(slider: Any, aligned: Any) -> None:
    found = []
    state = torch.random.get_rng_state()
    for seed in (0, 0, 1):
        task = slider(num_envs=8)
        student = aligned(task, memory=8)
        feature_alignment.distil(task, pointing(), student, replace(CONFIG, budget=Budget(frames=100)), seed)
        found.append(torch.cat([p.detach().flatten() for p in student.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_run_goes_on_from_its_state(slider: Any, aligned: Any) -> None:
    def make() -> FeatureAlignment:
        task = slider(num_envs=8)
        config = replace(CONFIG, budget=Budget(frames=3 * 48), updates=2)
        return FeatureAlignment(task, pointing(), aligned(task), config, 0)

    whole = make()
    states: list[Any] = []
    whole.run(lambda progress: states.append(whole.state_dict()) if progress.frames == 2 * 48 else None)
    again = make()
    again.load_state_dict(states[0])
    again.run()
    weights = again.student.state_dict()
    for name, tensor in whole.student.state_dict().items():
        assert torch.equal(tensor, weights[name])


@pytest.mark.parametrize("config", [{}, {"frames": 2, "head": "gaussian"}, {"memory": 8}])
def test_saved_and_loaded_it_acts_the_same(
    config: dict[str, Any], slider: Any, aligned: Any, tmp_path: Path
) -> None:
    task = slider(num_envs=4)
    student = aligned(task, **config)
    with torch.no_grad():
        for parameter in student.actor.adapters.parameters():
            parameter.add_(0.1)
    student.save(tmp_path)
    for loaded in (AlignedStudent.load(tmp_path), load_vision_student(tmp_path)):
        assert isinstance(loaded, AlignedStudent)
        actions, _ = student.act(task.obs_dict, student.start(4))
        again, _ = loaded.act(task.obs_dict, loaded.start(4))
        assert torch.equal(actions, again)
    assert not any(p.requires_grad for p in loaded.actor.expert.parameters())
    (tmp_path / "expert_head.json").write_text('{"expert": {"view": "privileged"}, "bottleneck": 8}')
    with pytest.raises(StateError, match="holds no aligned student"):
        load_vision_student(tmp_path)
    plain = VisionStudent.of_task(VisionConfig(images=("front/rgb",), hidden=(64,)), task)
    plain.save(tmp_path / "plain")
    assert type(load_vision_student(tmp_path / "plain")) is VisionStudent


def test_either_kind_replaces_the_other_in_a_folder(slider: Any, aligned: Any, tmp_path: Path) -> None:
    task = slider(num_envs=2)
    plain = VisionStudent.of_task(VisionConfig(images=("front/rgb",), hidden=(64,)), task)
    for student in (aligned(task), plain, aligned(task), plain):
        student.save(tmp_path)
        loaded = load_vision_student(tmp_path)
        assert type(loaded) is type(student)
        for name, tensor in student.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
    for name in ("student.safetensors", "student.json"):
        (tmp_path / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"no student at {tmp_path}: it has no {name}; name the"):
            load_vision_student(tmp_path)


def test_exported_it_acts_the_same(slider: Any, aligned: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from tutelage.students.vision.onnx_export import export_onnx, run_onnx

    task = slider(num_envs=4)
    student = aligned(task, precision="float32")
    assert export_onnx(student, tmp_path / "student.onnx") < 1e-3
    inputs = {name: task.obs_dict[name].numpy() for name in ("front/rgb", "policy")}
    actions, _ = student.act(task.obs_dict, student.start(4))
    np.testing.assert_allclose(run_onnx(tmp_path / "student.onnx", inputs)[0], actions.numpy(), atol=1e-3)


def test_several_experts_where_one_is_the_head(slider: Any, aligned: Any) -> None:
    """The head's expert covers goals on the right; the other expert goes the other way, on the left."""
    task = slider(num_envs=16)
    right, left = pointing(), pointing(towards=-1.0)
    rule = box_rule(task.task_space, [{"goal": (0.0, 0.8)}, {"goal": (-0.8, 0.0)}])
    router = ExpertRouter([right, left], rule, lambda: task.tasks)
    method = FeatureAlignment(task, router, aligned(task, right), replace(CONFIG, tolerance=1e-3), seed=0)
    trusts: list[Tensor] = []
    fields = method.learner.fields

    def spy(obs_dict: Any, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
        found = fields(obs_dict, mean, std)
        at_goal = (obs_dict["privileged"][:, 0] - obs_dict["privileged"][:, 1]).abs() < 1e-3
        trusts.append(found[TRUST][~at_goal] - (task.tasks[:, 0] >= 0)[~at_goal].float())
        return found

    method.learner.fields = spy  # type: ignore[method-assign]
    method.round()
    assert torch.cat(trusts).abs().sum() == 0
    assert sum(len(trust) for trust in trusts) > 80
    assert router.queries == 6 * 16


def test_what_does_not_fit_is_refused(slider: Any, aligned: Any, new_student: Any) -> None:
    task = slider(num_envs=2)
    with pytest.raises(ValueError, match=r"an AlignedStudent, not a VisionStudent; make one by"):
        FeatureAlignment(task, pointing(), new_student(task), CONFIG, 0)
    student = aligned(task)
    student.expert_config = replace(student.expert_config, view="priviledged")
    with pytest.raises(ValueError, match="did you mean 'privileged'"):
        FeatureAlignment(task, pointing(), student, CONFIG, 0)
    linear = MLPExpert(
        ExpertConfig("privileged", 2, 1, ()),
        {
            "actor.mean": torch.zeros(2),
            "actor.scale": torch.ones(2),
            "actor.layers.0.weight": torch.ones(1, 2),
            "actor.layers.0.bias": torch.zeros(1),
            "log_std": torch.zeros(1),
        },
    )
    with pytest.raises(ValueError, match="no hidden layers whose features could be aligned"):
        aligned(task, linear)
    with pytest.raises(ValueError, match="bottleneck must be at least 1"):
        AlignedStudent.of_expert(VisionConfig(), task, pointing(), bottleneck=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"view_weight": -1.0}, "all >= 0"),
        ({"feature_weights": ()}, "at least one of feature_weights"),
        ({"updates": 0}, "updates must be at least 1"),
        ({"learning": replace(LEARNING, clip_labels=False)}, "needs clip_labels=True"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


@pytest.mark.gpu
def test_on_a_gpu(slider: Any, aligned: Any) -> None:
    task = slider(num_envs=8, device="cuda")
    expert = pointing().to("cuda")
    student = aligned(task, expert, memory=8)
    result = feature_alignment.distil(task, expert, student, replace(CONFIG, budget=Budget(frames=100)), 0)
    assert student.device.type == "cuda"
    assert np.isfinite(result.history[-1].loss)

"""Predicting a privileged view beside the actions: numbers by hand, and what it changes and leaves alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.learner import Learner, LearningConfig
from tutelage.students.torch_tools.running_moments import DEVIATION_FLOOR, update_moments
from tutelage.students.vision.predictor import Predictor
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent

SHAPES = {"front/rgb": (16, 16, 3), "policy": (5,), "privileged": (3,)}


def views(n: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "front/rgb": torch.randint(0, 256, (n, 16, 16, 3), dtype=torch.uint8, generator=generator),
        "policy": torch.randn(n, 5, generator=generator),
        "privileged": 2 + 3 * torch.randn(n, 3, generator=generator),
    }


def test_moments_in_parts_are_those_of_all() -> None:
    mean, scale, seen = torch.zeros(3), torch.ones(3), torch.zeros((), dtype=torch.int64)
    everything = views(50)["privileged"]
    for part in everything.split([7, 1, 42]):
        update_moments(mean, scale, seen, part)
    assert int(seen) == 50
    torch.testing.assert_close(mean, everything.mean(0))
    torch.testing.assert_close(scale, everything.std(0, correction=0) + DEVIATION_FLOOR)


def test_losses_by_hand() -> None:
    """Views 1 and 5: mean 3, deviation 2 + 0.01. Of 5: 2 / 2.01 = 0.995; of 103: 49.75, which counts as 5."""
    predictor = Predictor("privileged", 4, 1)
    predictor.observe(torch.tensor([[1.0], [5.0]]))
    predicted = torch.tensor([[0.0], [1.0]])
    losses = predictor.losses(predicted, torch.tensor([[5.0], [103.0]]))
    assert losses.tolist() == pytest.approx([(2 / 2.01) ** 2, (5 - 1) ** 2])


def test_the_loss_has_a_part_of_the_prediction() -> None:
    """L = imitation + 0.1 prediction; without the weight, or the view, imitation alone."""
    student = VisionStudent(VisionConfig(predicts="privileged"), SHAPES, 2)
    plain = VisionStudent(VisionConfig(), SHAPES, 2)
    plain.load_state_dict(student.state_dict(), strict=False)
    shown = views(8)
    student.observe(shown)
    plain.observe(shown)  # has nothing to observe with

    def losses(made: VisionStudent, **settings: float) -> Tensor:
        learner = Learner(made, replace(LearningConfig(), **settings), torch.Generator().manual_seed(0))  # type: ignore[arg-type]
        labels = torch.zeros(8, 2)
        return learner.losses(learner.fields(shown, labels, torch.ones(8, 2)), None)[0]

    assert student.predictor is not None
    output = student(shown, student.start(8))
    assert output.predicted is not None
    prediction = student.predictor.losses(output.predicted, shown["privileged"])
    torch.testing.assert_close(losses(student), losses(plain) + 0.1 * prediction)
    torch.testing.assert_close(losses(student, prediction=0.0), losses(plain))
    unseen = {name: view for name, view in shown.items() if name != "privileged"}
    assert student(unseen, student.start(8)).predicted is None
    torch.testing.assert_close(student(unseen, student.start(8)).mean, output.mean)


def test_a_student_with_memory_predicts_each_step() -> None:
    student = VisionStudent(VisionConfig(predicts="privileged", memory=6), SHAPES, 2)
    shown = {name: view.unflatten(0, (4, 3)) for name, view in views(12).items()}
    output = student.forward_sequence(shown, student.start(3))
    assert output.predicted is not None
    assert output.predicted.shape == (4, 3, 3)
    first = student({name: view[0] for name, view in shown.items()}, student.start(3))
    torch.testing.assert_close(output.predicted[0], first.predicted)


def test_what_is_to_be_known_of_a_picture_is_learnt() -> None:
    """Labels that say nothing; a view that is the place of a bright square: its error falls to a tenth."""
    generator = torch.Generator().manual_seed(0)
    place = torch.randint(0, 12, (256, 2), generator=generator)
    pictures = torch.zeros(256, 16, 16, 3, dtype=torch.uint8)
    for picture, (row, column) in zip(pictures, place.tolist(), strict=True):
        picture[row : row + 4, column : column + 4] = 255
    shapes = {"front/rgb": (16, 16, 3), "policy": (1,), "privileged": (2,)}
    student = VisionStudent(VisionConfig(predicts="privileged"), shapes, 1)
    shown = {"front/rgb": pictures, "policy": torch.zeros(256, 1), "privileged": place.float()}
    student.observe(shown)
    learner = Learner(student, LearningConfig(shard_size=64), generator)
    fields = learner.fields(shown, torch.zeros(256, 1), torch.ones(256, 1))
    buffer = FrameBuffer(256, 256, fields, torch.device("cpu"))
    buffer.add(fields, torch.ones(256, dtype=torch.bool))

    def error() -> float:
        assert student.predictor is not None
        with torch.no_grad():
            predicted = student(shown, student.start(256)).predicted
        return float(student.predictor.losses(predicted, shown["privileged"]).mean())

    before = error()
    assert before == pytest.approx(1.0, abs=0.2)  # of what is normalised
    for _ in range(150):
        learner.update(buffer)
    assert error() < 0.1 * before


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="prediction must not be negative, but is -1"):
        LearningConfig(prediction=-1.0)
    with pytest.raises(ValueError, match=r"'privileged' must be a vector, but has shape \(2, 2\)"):
        VisionStudent(VisionConfig(predicts="privileged"), {**SHAPES, "privileged": (2, 2)}, 2)
    with pytest.raises(ValueError, match="did you mean 'privileged'"):
        VisionStudent(VisionConfig(predicts="privilegd"), SHAPES, 2)

"""The benchmark of vision students names its cases, and counts images."""

import json

import pytest
import torch

from tutelage.experiments.bench import distill as module
from tutelage.experiments.bench.distill import CASES, bench_distill
from tutelage.students.vision.vision_student import VisionConfig

SMALL = {
    "plain": VisionConfig(),
    "plain-augmented": VisionConfig(),
    "gru": VisionConfig(memory=4),
    "stack2": VisionConfig(frames=2),
}


def test_cases_are_those_that_are_reported() -> None:
    assert set(CASES) == {
        *("fast-encoder", "fast-encoder-augmented", "fast-encoder-gru", "fast-encoder-stack3"),
        *("fast-encoder-distilled-augmented", "fine-encoder", "fine-encoder-distilled-augmented"),
        *("nature-cnn", "impala"),
    }
    assert next(iter(CASES)) == "nature-cnn"


def test_a_small_measurement() -> None:
    threads = torch.get_num_threads()
    found = list(bench_distill(runs=1, batch=32, updates=1, threads=1, cases=SMALL))
    assert torch.get_num_threads() == threads
    metrics = ["trained_images_per_s", "inferred_images_per_s"]
    assert [(m.case, m.metric) for m in found] == [(name, metric) for name in SMALL for metric in metrics]
    assert "batch 32" in found[0].note
    assert found[0].note.endswith("1 thread")
    for measurement in found:
        values = json.loads(measurement.to_json())
        assert values["value"] > 0
        assert values["unit"] == "images/s"


def test_rates_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 8, 5 times: 40 images in 2 s and 4 s of training, and in 1 s and 0.5 s of acting."""
    # first calls of 2 cases with 2 metrics; then case by case
    seconds = iter([0.0] * 4 + [2.0, 1.0, 4.0, 0.5])
    monkeypatch.setattr(module, "_seconds", lambda *_: next(seconds))
    cases = {"a": VisionConfig(), "b": VisionConfig()}
    found = list(bench_distill(runs=1, batch=8, updates=5, threads=1, cases=cases))
    assert [m.value for m in found] == [20.0, 40.0, 10.0, 80.0]
    assert [m.ratio for m in found] == [1.0, 1.0, 0.5, 2.0]


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    found = list(bench_distill("cuda", runs=1, batch=32, updates=1, cases=SMALL))
    assert all(m.value > 0 for m in found)

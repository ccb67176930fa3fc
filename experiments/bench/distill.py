"""Benchmark of vision students: images a second that they are trained on, and that they act on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from tutelage.envs.batched.looks.image_augmentation import ImageAugmentation
from tutelage.experiments.bench.measurement import Measurement
from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.learner import Learner, LearningConfig
from tutelage.students.torch_tools.threads import available_cores, torch_threads
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent

CASES: dict[str, VisionConfig] = {
    "nature-cnn": VisionConfig(encoder="nature"),
    "fast-encoder": VisionConfig(),
    "fast-encoder-gru": VisionConfig(memory=128),
    "fast-encoder-stack3": VisionConfig(frames=3),
    "fast-encoder-augmented": VisionConfig(),
    "fast-encoder-distilled-augmented": VisionConfig(opponents=True, predicts="privileged"),
    "fine-encoder": VisionConfig(encoder="fine"),
    "fine-encoder-distilled-augmented": VisionConfig(encoder="fine", opponents=True, predicts="privileged"),
    "impala": VisionConfig(encoder="impala"),
}
"""What is measured; ratios are to the first."""

SEQUENCE = 16
"""Steps of a sequence that students with memory learn from."""

AUGMENTED = "-augmented"
"""Ends the names of cases whose images are augmented as those of `tutelage distill` are."""

STORED = SEQUENCE
"""Steps in the ring that minibatches are drawn from."""

SHAPES = {"front/rgb": (64, 64, 3), "policy": (15,), "privileged": (21,)}
NUM_ACTIONS = 4


def bench_distill(
    device: str = "cpu",
    runs: int = 5,
    batch: int = 256,
    updates: int = 8,
    threads: int = 0,
    cases: Mapping[str, VisionConfig] = CASES,
) -> Iterator[Measurement]:
    """Measure students of 64 x 64 RGB and a vector, as `Reach` shows them.

    Training: what distillation does (`Learner.update`): draw a
    minibatch of the ring of frames, forward, Huber loss, backward, Adam; of students with memory, on
    sequences of `SEQUENCE` steps. Of cases that are called distilled, all as `tutelage distill` has it by
    default. Acting: all environments at once, on one thread. A stack of frames counts
    as one image. Every run measures each case in turn, so that a busy machine slows all of them alike.

    Args:
        device: ``cpu`` or ``cuda``.
        runs: how often; medians are reported.
        batch: images in an update, and environments that act.
        updates: timed together.
        threads: of the CPU that learn side by side; 0 for all cores that this process may use.
        cases: students by name.

    Yields:
        For each case ``trained_images_per_s`` and ``inferred_images_per_s``; `ratio` is to the first case.
    """
    students = {name: VisionStudent(config, SHAPES, NUM_ACTIONS).to(device) for name, config in cases.items()}
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for name, student in students.items():
        calls[name, "trained_images_per_s"] = _training(student, batch, threads, name.endswith(AUGMENTED))
        calls[name, "inferred_images_per_s"] = _acting(student, batch)
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    with torch_threads(1):
        for call in calls.values():
            _seconds(call, 2, device)  # the first calls compile and allocate
        for _ in range(runs):
            for key, call in calls.items():
                rates[key].append(batch * updates / _seconds(call, updates, device))

    first = next(iter(students))
    learning = min(threads or available_cores(), available_cores())
    for (name, metric), values in rates.items():
        kind = "bfloat16" if students[name].computes_bfloat16 else "float32"
        value = statistics.median(values)
        count = learning if metric == "trained_images_per_s" else 1
        where = device if device != "cpu" else f"{count} thread{'s' * (count > 1)}"
        yield Measurement(
            case=name,
            metric=metric,
            value=value,
            unit="images/s",
            ratio=value / statistics.median(rates[first, metric]),
            note=f"to {first}; {runs} runs from {min(values):,.0f} to {max(values):,.0f}; "
            f"batch {batch}, {kind}, {where}",
        )


def _training(student: VisionStudent, batch: int, threads: int, augmented: bool) -> Callable[[], object]:
    """One gradient step on `batch` images, whole sequences of students with memory."""
    config = LearningConfig(
        batch_size=batch,
        sequence_length=min(SEQUENCE, batch),
        augmentation=ImageAugmentation.unseen_looks() if augmented else None,
        threads=threads,
    )
    learner = Learner(student, config, _generator(student))
    buffer = None
    for _ in range(STORED):
        inputs = _inputs(student, batch)
        labels = torch.rand(batch, NUM_ACTIONS, generator=learner.generator, device=student.device) * 2 - 1
        fields = learner.fields(inputs, labels, torch.ones_like(labels))
        buffer = buffer or FrameBuffer(STORED * batch, batch, fields, student.device)
        buffer.add(fields, torch.zeros(batch, dtype=torch.bool, device=student.device))
    assert buffer is not None
    return partial(learner.update, buffer)


def _acting(student: VisionStudent, batch: int) -> Callable[[], None]:
    """One step of `batch` environments, each with its own stack of frames and memory."""
    inputs = _inputs(student, batch)
    state = student.start(batch)

    def act() -> None:
        nonlocal state
        _, state = student.act(inputs, state)

    return act


def _inputs(student: VisionStudent, n: int) -> dict[str, Tensor]:
    generator, device = _generator(student), student.device
    size = (n, *SHAPES["front/rgb"])
    return {
        "front/rgb": torch.randint(0, 256, size, generator=generator, dtype=torch.uint8, device=device),
        **{
            view: torch.randn(n, *SHAPES[view], generator=generator, device=device)
            for view in ("policy", "privileged")
        },
    }


def _generator(student: VisionStudent) -> torch.Generator:
    return torch.Generator(student.device).manual_seed(0)


def _seconds(call: Callable[[], object], times: int, device: str) -> float:
    """Seconds that so many calls take, until a GPU has done them."""
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(times):
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin

"""Benchmark of vision students: images a second that they are trained on, and that they act on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.experiments.measurement import Measurement
from tutelage.students.threads import available_cores, torch_threads
from tutelage.students.vision_student import VisionConfig, VisionStudent

CASES: dict[str, VisionConfig] = {
    "nature-cnn": VisionConfig(encoder="nature"),
    "fast-encoder": VisionConfig(),
    "fast-encoder-gru": VisionConfig(memory=128),
    "fast-encoder-stack3": VisionConfig(frames=3),
    "impala": VisionConfig(encoder="impala"),
}
"""What is measured; ratios are to the first."""

SEQUENCE = 16
"""Steps of a sequence that students with memory learn from."""

SHAPES = {"front/rgb": (64, 64, 3), "policy": (15,)}
NUM_ACTIONS = 4


def bench_distill(
    device: str = "cpu",
    runs: int = 5,
    batch: int = 256,
    updates: int = 8,
    threads: int = 1,
    cases: Mapping[str, VisionConfig] = CASES,
) -> Iterator[Measurement]:
    """Measure students of 64 x 64 RGB and a vector, as `Reach` shows them.

    Training: forward, Huber loss, backward, Adam on a batch that is at hand; of students with memory, on
    sequences of `SEQUENCE` steps. Acting: all environments at once. A stack of frames counts as one image.
    Every run measures each case in turn, so that a busy machine slows all of them alike.

    Args:
        device: ``cpu`` or ``cuda``.
        runs: how often; medians are reported.
        batch: images in an update, and environments that act.
        updates: timed together.
        threads: of the CPU; 0 for all cores that this process may use.
        cases: students by name.

    Yields:
        For each case ``trained_images_per_s`` and ``inferred_images_per_s``; `ratio` is to the first case.
    """
    students = {name: VisionStudent(config, SHAPES, NUM_ACTIONS).to(device) for name, config in cases.items()}
    calls = {
        (name, metric): make(student, batch)
        for name, student in students.items()
        for metric, make in (("trained_images_per_s", _training), ("inferred_images_per_s", _acting))
    }
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    with torch_threads(threads):
        for call in calls.values():
            _seconds(call, 2, device)  # the first calls compile and allocate
        for _ in range(runs):
            for key, call in calls.items():
                rates[key].append(batch * updates / _seconds(call, updates, device))

    first = next(iter(students))
    where = device if device != "cpu" else f"{min(threads or available_cores(), available_cores())} threads"
    for (name, metric), values in rates.items():
        kind = "bfloat16" if students[name].computes_bfloat16 else "float32"
        value = statistics.median(values)
        yield Measurement(
            case=name,
            metric=metric,
            value=value,
            unit="images/s",
            ratio=value / statistics.median(rates[first, metric]),
            note=f"to {first}; {runs} runs from {min(values):,.0f} to {max(values):,.0f}; "
            f"batch {batch}, {kind}, {where}",
        )


def _training(student: VisionStudent, batch: int) -> Callable[[], None]:
    """One gradient step on `batch` images, whole sequences of students with memory."""
    recurrent = student.config.memory > 0
    lead = (SEQUENCE, batch // SEQUENCE) if recurrent else (batch,)
    inputs = _inputs(student, lead, stacked=True)
    label = torch.rand(*lead, NUM_ACTIONS, generator=_generator(student), device=student.device) * 2 - 1
    optimizer = torch.optim.Adam(student.parameters(), 1e-4, fused=True)
    state = student.start(lead[-1])

    def update() -> None:
        heads = student.forward_sequence(inputs, state) if recurrent else student(inputs, state)
        loss = F.smooth_l1_loss(heads.mean, label, beta=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return update


def _acting(student: VisionStudent, batch: int) -> Callable[[], None]:
    """One step of `batch` environments, each with its own stack of frames and memory."""
    inputs = _inputs(student, (batch,), stacked=False)
    state = student.start(batch)

    def act() -> None:
        nonlocal state
        _, state = student.act(inputs, state)

    return act


def _inputs(student: VisionStudent, lead: tuple[int, ...], stacked: bool) -> dict[str, Tensor]:
    generator, device = _generator(student), student.device
    stack = (student.config.frames,) if stacked and student.config.frames > 1 else ()
    size = (*lead, *stack, *SHAPES["front/rgb"])
    return {
        "front/rgb": torch.randint(0, 256, size, generator=generator, dtype=torch.uint8, device=device),
        "policy": torch.randn(*lead, *SHAPES["policy"], generator=generator, device=device),
    }


def _generator(student: VisionStudent) -> torch.Generator:
    return torch.Generator(student.device).manual_seed(0)


def _seconds(call: Callable[[], None], times: int, device: str) -> float:
    """Seconds that so many calls take, until a GPU has done them."""
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(times):
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin

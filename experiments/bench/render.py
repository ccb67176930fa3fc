"""Benchmark of the cameras: images a second alone, and environment steps a second with an image in each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tutelage.experiments.bench.measurement import Measurement
from tutelage.experiments.bench.sim import free_gpu_memory

if TYPE_CHECKING:
    from tutelage.envs.batched.cameras.camera_config import Modality
    from tutelage.envs.batched.task.vec_task import VecTask

GPU_SIZES = (256, 1024, 4096, 16_384)
WARP_CPU_SIZES = (16, 64)


@dataclass(frozen=True)
class RenderCase:
    """One case of the benchmark.

    Attributes:
        task: name of a batched task; its camera ``front`` is rendered.
        modalities: what the camera takes in one go; together they count as one image.
        whole_steps: measure environment steps with an image each, resets included, instead of images alone.
        size: width and height in pixels.
    """

    task: str
    modalities: tuple[Modality, ...] = ("rgb",)
    whole_steps: bool = False
    size: int = 64

    @property
    def name(self) -> str:
        """The case as reports call it, e.g. ``reach-rgb-64``."""
        env = "-env" if self.whole_steps else ""
        return f"{self.task}{env}-{'-'.join(self.modalities)}-{self.size}"


CASES = (
    RenderCase("reach"),
    RenderCase("reach", ("depth",)),
    RenderCase("reach", ("rgb", "depth", "segmentation")),
    RenderCase("push-cube"),
    RenderCase("reach", whole_steps=True),
)


def bench_render(
    device: str = "cpu",
    num_envs: int = 256,
    runs: int = 5,
    threads: int = 0,
    cases: Sequence[RenderCase] = CASES,
) -> Iterator[Measurement]:
    """Measure images and environment steps with images.

    Args:
        device: ``cpu``; or ``cuda``, where `num_envs` is ignored and each of `GPU_SIZES` is run; or
            ``warp-cpu``, the GPU's code on the CPU with `WARP_CPU_SIZES`, to see that it works.
        num_envs: environments at once.
        runs: repetitions; medians are reported.
        threads: of the CPU; 0: all that this process may use.
        cases: what to measure.

    Yields:
        For each case ``images_per_s``, or ``env_steps_per_s`` where whole steps are measured. On a GPU for
        each number of environments, with ``memory_per_env``: what the task, its simulator and its cameras
        take together.
    """
    for case in cases:
        if device != "cpu":
            if device == "cuda":  # kernels and the driver's own memory are no task's
                measure_render(case, 1, device=device, runs=1, steps=1)
            for size in GPU_SIZES if device == "cuda" else WARP_CPU_SIZES:
                yield from measure_render(case, size, device=device, runs=runs)
        else:
            yield from measure_render(case, num_envs, runs=runs, threads=threads)


def measure_render(
    case: RenderCase, num_envs: int, *, device: str = "cpu", runs: int = 5, threads: int = 0, steps: int = 10
) -> list[Measurement]:
    """Measure one case at one number of environments.

    Before each repetition of images alone the environments take a step of random actions, so that no two
    repetitions render the same; that is not timed.

    Args:
        case: what to measure.
        num_envs: environments at once.
        device: ``cpu``, ``cuda`` or ``warp-cpu``.
        runs: repetitions.
        threads: of the CPU; 0: all.
        steps: renderings or environment steps in a repetition.
    """
    from tutelage.envs.batched.cameras.camera_config import CameraConfig
    from tutelage.envs.batched.worlds.catalogue import make_vec_task

    on_gpu = device == "cuda"
    free = free_gpu_memory() if on_gpu else 0
    camera = CameraConfig("front", case.size, case.size, case.modalities)
    task = make_vec_task(
        case.task,
        num_envs,
        device="cuda" if on_gpu else "cpu",
        backend="batch" if device == "cpu" else "warp",
        cameras=[camera],
        threads=threads,
    )
    task.step(task.zero_actions())
    used = free - free_gpu_memory() if on_gpu else 0
    actions = _random_actions(task, steps)
    rates = []
    for run in range(runs):
        if case.whole_steps:
            seconds = _seconds(lambda i: task.step(actions[i]), steps, on_gpu)
        else:
            task.step(actions[run % steps])
            seconds = _seconds(lambda _: _render(task), steps, on_gpu)
        rates.append(num_envs * steps / seconds)
    task.close()

    name = case.name if device == "cpu" else f"{case.name}-{device}-{num_envs}"
    metric, unit = ("env_steps_per_s", "steps/s") if case.whole_steps else ("images_per_s", "images/s")
    note = f"{runs} runs from {min(rates):,.0f} to {max(rates):,.0f}; {num_envs} environments"
    if threads:
        note += f", {threads} threads"
    measured = [Measurement(name, metric, statistics.median(rates), unit, note=note)]
    if on_gpu:
        measured.append(Measurement(name, "memory_per_env", used / num_envs / 1024, "KiB"))
    return measured


def _render(task: VecTask) -> None:
    if task.cameras is None:
        raise RuntimeError(f"{type(task).__name__} was made without cameras")
    task.cameras.render()


def _random_actions(task: VecTask, steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(steps, task.num_envs, task.num_actions, generator=generator) * 2 - 1
    return list(drawn.to(task.device))


def _seconds(call: Callable[[int], Any], times: int, on_gpu: bool) -> float:
    """Seconds that so many calls take, until the GPU has done them."""
    if on_gpu:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for i in range(times):
        call(i)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - begin

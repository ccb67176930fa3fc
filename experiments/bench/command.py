"""`tutelage bench`: measured speeds and scores, as a table or as JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tutelage.envs.contract.packages import need_package

if TYPE_CHECKING:
    from tutelage.experiments.bench.measurement import Measurement

BENCH_EXTRA = "pip install 'tutelage[bench]'"


@dataclass(frozen=True)
class BenchConfig:
    """Measure: teachers (cost and toy score of each task teacher), loop (what a task teacher costs a training
    loop), envs (StumpTracks against Gymnasium's BipedalWalker-v3), sim (steps of the batched MuJoCo tasks,
    beside the physics alone and beside Gymnasium), render (their images), distill (images trained)."""

    what: Annotated[Literal["teachers", "loop", "envs", "sim", "render", "distill"], tyro.conf.Positional]
    """Which benchmark."""
    device: Literal["cpu", "cuda", "warp-cpu"] = "cpu"
    """Of sim, render and distill: CPU, NVIDIA GPU, or the GPU's code on the CPU (slow: a check)."""
    json: bool = False
    """Print one JSON object a line instead of a table."""
    quick: bool = False
    """Fewer repetitions, for a first look."""

    def run(self) -> int:
        """Measure and print; return the exit status."""
        bench(self)
        return 0


def bench(config: BenchConfig) -> None:
    """Run a benchmark and print it; one thread of numerics on any machine."""
    import os

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from tutelage.experiments.bench.measurement import print_measurements

    print_measurements(measurements(config), config.json)


def measurements(config: BenchConfig) -> Iterator[Measurement]:
    """Yield the measurements of a benchmark as they are made.

    Raises:
        SimulatorError: when a GPU is asked for and there is none; the message names the cure.
        ValueError: when the package that a GPU needs is missing.
        MissingPackageError: when one is missing that a benchmark compares with.
    """
    if config.device == "cuda" and config.what in ("sim", "render", "distill"):
        _need_gpu()
    if config.what == "teachers":
        from tutelage.experiments.bench.teachers import bench_teachers

        return bench_teachers(seeds=2 if config.quick else 5)
    if config.what == "loop":
        from tutelage.experiments.bench.loop import bench_loop

        return bench_loop(runs=2 if config.quick else 7)
    if config.what == "envs":
        from tutelage.experiments.bench.envs import bench_envs

        need_package("pygame", "Gymnasium's BipedalWalker", BENCH_EXTRA)
        return bench_envs(runs=2 if config.quick else 5)
    if config.what == "sim":
        from tutelage.experiments.bench.sim import bench_sim

        need_package("imageio", "Gymnasium's Hopper", BENCH_EXTRA)
        return bench_sim(config.device, runs=2 if config.quick else 5)
    if config.what == "distill":
        from tutelage.experiments.bench.distill import bench_distill

        if config.device == "warp-cpu":
            raise ValueError("distill trains networks: choose --device cpu or cuda")
        return bench_distill(config.device, runs=2 if config.quick else 5)
    from tutelage.experiments.bench.render import bench_render

    return bench_render(config.device, runs=2 if config.quick else 5)


def _need_gpu() -> None:
    import torch

    try:
        from tutelage.envs.batched.simulators.warp_model import usable_device
    except ImportError as error:
        raise ValueError(f"a GPU needs mujoco_warp ({error}): pip install 'tutelage[warp]'") from error
    usable_device(torch.device("cuda"))

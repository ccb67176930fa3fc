"""The benchmark of the simulations names its cases and measures what it says."""

from __future__ import annotations

import itertools

import pytest

from tutelage.experiments import bench_sim as module
from tutelage.experiments.bench_sim import bench_sim


def test_cases_and_ratios(monkeypatch):
    monkeypatch.setattr(module, "TASKS", ("stump-walker",))
    found = {(m.case, m.metric): m for m in bench_sim(num_envs=8, runs=1, steps=3)}
    assert list(found) == [
        ("stump-walker", "env_steps_per_s"),
        ("stump-walker", "relative_to_physics"),
        ("stump-walker", "raw_relative_to_mujoco_batch"),
        *itertools.product(
            [
                f"{name}{suffix}-vs-gymnasium-{other}"
                for name in ("hopper", "walker2d")
                for suffix in ("", "-rk4")
                for other in ("sync", "async")
            ],
            ["env_steps_per_s"],
        ),
    ]
    assert 0 < found["stump-walker", "relative_to_physics"].value < 1  # a share of the same seconds
    for (case, _), measurement in found.items():
        assert measurement.value > 0
        assert (measurement.ratio is not None) == ("gymnasium" in case)


@pytest.mark.xdist_group("warp")
def test_the_gpus_code_on_the_cpu(monkeypatch):
    monkeypatch.setattr(module, "TASKS", ("reach",))
    monkeypatch.setattr(module, "WARP_CPU_SIZES", (2,))
    speed, share = bench_sim("warp-cpu", runs=1, steps=2)
    assert (speed.case, speed.metric) == ("reach-warp-cpu-2", "env_steps_per_s")
    assert speed.value > 0
    assert share.metric == "relative_to_physics"


@pytest.mark.gpu
def test_gpu_sizes_and_memory(monkeypatch):
    monkeypatch.setattr(module, "TASKS", ("reach",))
    monkeypatch.setattr(module, "GPU_SIZES", (16,))
    assert [m.metric for m in bench_sim("cuda", runs=1, steps=2)] == [
        "env_steps_per_s",
        "relative_to_physics",
        "memory_per_env",
    ]

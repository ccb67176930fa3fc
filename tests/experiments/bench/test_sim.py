"""The benchmark of the simulations names its cases and measures what it says."""

from __future__ import annotations

import gc
import itertools
import weakref
from types import SimpleNamespace

import pytest
import torch

from tutelage.experiments.bench import sim as module
from tutelage.experiments.bench.sim import bench_sim


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
    for (case, _), measurement in found.items():
        assert measurement.value > 0
        assert (measurement.ratio is not None) == ("gymnasium" in case)


class FakeTask:
    """A task that says when it is alive; a step takes 4 s by its clock, of which the simulator takes 3 s."""

    num_actions, decimation, device = 1, 2, torch.device("cpu")

    def __init__(self, num_envs: int, seconds: list[float]) -> None:
        self.num_envs, self.seconds = num_envs, seconds
        self.sim = SimpleNamespace(step=self.simulate)  # a cycle, as real tasks have them

    def simulate(self, substeps: int) -> None:
        assert substeps == self.decimation
        self.seconds[0] += 3.0

    def step(self, actions: torch.Tensor) -> None:
        assert actions.shape == (self.num_envs, 1)
        self.seconds[0] += 1.0
        self.sim.step(self.decimation)

    def zero_actions(self) -> torch.Tensor:
        return torch.zeros(self.num_envs, 1)

    def reset(self) -> None:
        pass

    check = close = reset


def fake_clock(monkeypatch) -> list[float]:
    seconds = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: seconds[0])
    return seconds


def test_the_share_of_physics_by_hand(monkeypatch):
    task = FakeTask(2, fake_clock(monkeypatch))
    rate, share = module._rate_and_share(task, [torch.zeros(2, 1)] * 5)
    assert rate == pytest.approx(1 / 4)
    assert share == pytest.approx(3 / 4)
    assert task.sim.step == task.simulate  # as it was


def test_memory_is_that_of_one_task_alone(monkeypatch):
    """10 KiB an environment, the first task ever 1 MB more; others must be gone, though they are cycles."""
    seconds, alive, made = fake_clock(monkeypatch), weakref.WeakSet(), []

    def make(name, num_envs, **options):
        assert options == {"device": "cuda", "backend": "warp"}
        gc.collect()  # it may come at any time: nothing of an earlier task may be left for it
        alive.add(task := FakeTask(num_envs, seconds))
        made.append(num_envs)
        return task

    def mem_get_info():
        used = sum(task.num_envs * 10 * 1024 for task in alive) + 10**6 * bool(made)
        return 10**9 - used, 10**9

    monkeypatch.setattr("tutelage.envs.batched.worlds.catalogue.make_vec_task", make)
    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(module, "GPU_SIZES", (4, 8, 2))
    found = list(bench_sim("cuda", runs=2, steps=3))
    memory = {m.case: m.value for m in found if m.metric == "memory_per_env"}
    assert memory == {f"{name}-cuda-{n}": 10.0 for name in module.TASKS for n in (4, 8, 2)}
    assert len(found) == 3 * len(memory)
    # 4 s a whole step, 3 s of physics
    speed, ratio, _ = found[:3]
    assert speed.value == pytest.approx(4 / 4)
    assert ratio.value == pytest.approx(3 / 4)


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

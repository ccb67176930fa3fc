"""The camera benchmark names its cases, counts every image once, and measures what it says."""

import json

import pytest

from tutelage.experiments.bench import render as module
from tutelage.experiments.bench.render import CASES, RenderCase, bench_render, measure_render


def test_cases_are_those_that_are_reported():
    assert [case.name for case in CASES] == [
        "reach-rgb-64",
        "reach-depth-64",
        "reach-rgb-depth-segmentation-64",
        "push-cube-rgb-64",
        "reach-env-rgb-64",
    ]


def test_a_small_measurement():
    cases = (RenderCase("reach", ("depth",), size=8), RenderCase("reach", whole_steps=True, size=8))
    images, steps = bench_render(num_envs=4, runs=2, threads=1, cases=cases)
    assert (images.case, images.metric, images.unit) == ("reach-depth-8", "images_per_s", "images/s")
    assert (steps.case, steps.metric, steps.unit) == ("reach-env-rgb-8", "env_steps_per_s", "steps/s")
    assert "4 environments, 1 threads" in images.note
    assert json.loads(images.to_json())["value"] > 0


def test_rates_by_hand(monkeypatch):
    # 4 environments, 10 times in each run, in 2, 4 and 8 seconds: 20, 10 and 5 images a second.
    seconds = iter([2.0, 4.0, 8.0])
    monkeypatch.setattr(module, "_seconds", lambda *_: next(seconds))
    (found,) = measure_render(RenderCase("reach", size=4), 4, runs=3, threads=1, steps=10)
    assert found.value == pytest.approx(10.0)
    assert "from 5 to 20" in found.note


@pytest.mark.xdist_group("warp")
def test_the_gpus_code_on_the_cpu(monkeypatch):
    monkeypatch.setattr(module, "WARP_CPU_SIZES", (2,))
    (found,) = bench_render("warp-cpu", runs=1, cases=(RenderCase("reach", ("depth",), size=8),))
    assert (found.case, found.metric) == ("reach-depth-8-warp-cpu-2", "images_per_s")
    assert found.value > 0


@pytest.mark.gpu
def test_gpu_sizes_and_memory(monkeypatch):
    monkeypatch.setattr(module, "GPU_SIZES", (16, 32))
    found = list(bench_render("cuda", runs=1, cases=(RenderCase("reach"),)))
    assert [(m.case, m.metric) for m in found] == [
        ("reach-rgb-64-cuda-16", "images_per_s"),
        ("reach-rgb-64-cuda-16", "memory_per_env"),
        ("reach-rgb-64-cuda-32", "images_per_s"),
        ("reach-rgb-64-cuda-32", "memory_per_env"),
    ]
    assert all(m.value > 0 for m in found)

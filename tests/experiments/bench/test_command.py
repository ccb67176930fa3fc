"""What `tutelage bench` prints; the speeds themselves are not tested."""

import json
from typing import Any

import pytest
import torch

from tutelage.envs.batched.simulators.simulator import SimulatorError
from tutelage.experiments.bench.command import BenchConfig, measurements
from tutelage.experiments.bench.loop import bench_loop
from tutelage.experiments.bench.measurement import Measurement, print_measurements


def test_json_lines_have_the_promised_fields(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        Measurement("alp-gmm", "us_per_episode", 40.0, "us"),
        Measurement("x", "y", 0.0, "", 0.0, "against z"),
    ]
    print_measurements(iter(lines), as_json=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"case": "alp-gmm", "metric": "us_per_episode", "value": 40.0, "unit": "us"}
    assert second == {"case": "x", "metric": "y", "value": 0.0, "unit": "", "ratio": 0.0, "note": "against z"}
    print_measurements(lines, as_json=False)
    assert "us_per_episode" in capsys.readouterr().out


def test_the_loop_is_measured_with_and_without_task_teachers() -> None:
    measured = list(bench_loop(runs=1, steps=400))
    relative = [m for m in measured if m.metric == "relative_speed"]
    assert [m.case for m in relative] == ["cartpole-x4", "point-mass-gate/random-actions", "point-mass-gate"]
    assert all(m.value > 0 and m.ratio == m.value for m in relative)
    assert len({(m.case, m.metric) for m in measured}) == len(measured)


@pytest.mark.parametrize("what", ["sim", "render", "distill"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_message_with_the_cure(what: Any) -> None:
    with pytest.raises(SimulatorError, match=r"pip install|driver"):
        measurements(BenchConfig(what=what, device="cuda"))

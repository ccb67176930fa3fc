"""The README's example of an environment of one's own runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_example_of_batched_tasks_runs() -> None:
    section = README.read_text(encoding="utf-8").split("## Batched MuJoCo\n")[1].split("\n## ")[0]
    code = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0]
    check = "\nassert obs_dict['front/rgb'].shape == (4, 64, 64, 3) and extras['time_outs'].shape == (4,)"
    short = code.replace("num_envs=256", "num_envs=4") + check
    run = subprocess.run([sys.executable, "-c", short], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_example_of_your_own_environment_runs() -> None:
    section = README.read_text(encoding="utf-8").split("## Your own environment\n")[1].split("\n## ")[0]
    code = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0]
    assert code.count("learn(100_000)") == 1
    short = code.replace("learn(100_000)", "learn(512)")
    run = subprocess.run([sys.executable, "-c", short], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr

"""The README begins with what a newcomer types, and its example runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_it_begins_with_the_two_commands() -> None:
    first = README.read_text(encoding="utf-8").split("\n# tutelage\n")[0]
    commands = [line.partition("#")[0].strip() for line in first.strip("`\n").splitlines()]
    assert [line for line in commands if line.strip("`")] == ["make benchmark", "make test"]


def test_it_is_about_two_hundred_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 220


def test_the_example_of_your_own_environment_runs() -> None:
    section = README.read_text(encoding="utf-8").split("### Bring your own\n")[1].split("\n## ")[0]
    code = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0]
    assert code.count("learn(100_000)") == 1
    short = code.replace("learn(100_000)", "learn(512)")
    run = subprocess.run([sys.executable, "-c", short], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr

"""Ask pip whether tutelage can be installed from wheels on every Python that it names; needs the network.

::

    python tests/check_resolution.py              # `make resolve`
    python tests/check_resolution.py 3.14 rsl-rl  # one version, one extra

Nothing is installed. Markers of our own requirements are evaluated for the Python in question; pip evaluates
those of packages that they need in turn for the Python that runs it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def requirements(project: dict[str, Any], python: str, extra: str | None) -> list[str]:
    """What an installation needs, without markers: those that hold for a Python version are taken.

    Args:
        project: the table ``[project]`` of pyproject.toml.
        python: as ``3.14``.
        extra: of the project; the extras that it names of itself are followed. None: the dependencies alone.
    """
    lines = list(project["dependencies"])
    waiting = [extra] if extra else []
    while waiting:
        for line in project["optional-dependencies"][waiting.pop()]:
            if Requirement(line).name == project["name"]:
                waiting += Requirement(line).extras
            else:
                lines.append(line)
    parsed = [Requirement(line) for line in lines]
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    return [
        f"{found.name}{found.specifier}" if not found.extras else str(found).split(";")[0].strip()
        for found in parsed
        if found.marker is None or found.marker.evaluate(environment)
    ]


def pip_fault(python: str, packages: list[str]) -> str | None:
    """The reason for which pip finds no wheels for a version of Python; None: it finds all."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--dry-run", "--ignore-installed", "--quiet", "--only-binary=:all:"]
        command = [sys.executable, "-m", "pip", "install", *options, "--python-version", python]
        run = subprocess.run(
            [*command, "--target", folder, *packages], capture_output=True, text=True, check=False
        )
    errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
    return None if run.returncode == 0 else " ".join(errors) or run.stderr.strip()


def main(pythons: list[str], extras: list[str | None], project: dict[str, Any]) -> int:
    """Print a line for each version and extra; return the exit status."""
    faults = 0
    for python in pythons:
        for extra in extras:
            packages = requirements(project, python, extra)
            fault = pip_fault(python, packages)
            faults += fault is not None
            name = f"{project['name']}[{extra}]" if extra else project["name"]
            print(f"Python {python}  {name:16} {len(packages):3} requirements  {fault or 'ok'}", flush=True)
    return min(faults, 1)


if __name__ == "__main__":
    table = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    named = [found[1] for line in table["classifiers"] if (found := re.search(r":: (3\.\d+)$", line))]
    chosen = [argument for argument in sys.argv[1:] if re.fullmatch(r"3\.\d+", argument)]
    extra_names = [argument for argument in sys.argv[1:] if argument not in chosen]
    sys.exit(main(chosen or named, [*extra_names] or [None, "dev"], table))

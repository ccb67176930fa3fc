"""What all tests share."""

from __future__ import annotations

import subprocess
import sys

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Compile kernels before test processes start, which then find the same ones on disk."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        subprocess.run([sys.executable, "-m", "tutelage.students.vision.warm_up"], check=True)

"""What all tests share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tutelage.envs.contract.packages import MissingPackageError


def pytest_configure(config: pytest.Config) -> None:
    """Compile kernels before test processes start, which then find the same ones on disk."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        subprocess.run([sys.executable, "-m", "tutelage.students.vision.warm_up"], check=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Skip what needs a package without wheels for this Python."""
    try:
        return (yield)
    except MissingPackageError as error:
        pytest.skip(str(error))

"""`python -m tutelage.experiments.bench`."""

import sys

from tutelage.experiments.bench.command import BenchConfig
from tutelage.experiments.command import run_as_module

sys.exit(run_as_module(BenchConfig))

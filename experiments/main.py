"""The command line: `tutelage compare`, `report`, `watch`, `views`, `distill`, `data`, ..., `bench`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import tyro

from tutelage.experiments.bench.command import BenchConfig
from tutelage.experiments.command import run_command
from tutelage.experiments.compare import CompareConfig
from tutelage.experiments.data import DataConfig
from tutelage.experiments.distill import DistillConfig
from tutelage.experiments.report import ReportConfig
from tutelage.experiments.specialists import SpecialistsConfig
from tutelage.experiments.views import ViewsConfig
from tutelage.experiments.watch import WatchConfig

Command = (
    Annotated[CompareConfig, tyro.conf.subcommand("compare")]
    | Annotated[ReportConfig, tyro.conf.subcommand("report")]
    | Annotated[WatchConfig, tyro.conf.subcommand("watch")]
    | Annotated[DistillConfig, tyro.conf.subcommand("distill")]
    | Annotated[DataConfig, tyro.conf.subcommand("data")]
    | Annotated[SpecialistsConfig, tyro.conf.subcommand("specialists")]
    | Annotated[ViewsConfig, tyro.conf.subcommand("views")]
    | Annotated[BenchConfig, tyro.conf.subcommand("bench")]
)


def main() -> None:
    """Run the command that was typed; errors that the user can mend are one line."""
    sys.path.insert(0, os.getcwd())  # a user's own module:name lies where the command is typed
    command = tyro.cli(
        Command,
        prog="tutelage",
        description="Reinforcement-learning agents, taught: compare task teachers, distil privileged"
        " teachers into vision students, report, watch, look, measure.",
    )
    sys.exit(run_command(command))


if __name__ == "__main__":
    main()

"""The command line: `tutelage compare`, `report`, `watch`, `views`, `distill`, `data`, ..., `bench`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import tyro

from tutelage.experiments.bench import BenchConfig
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
    sys.exit(run(command))


def run(
    command: CompareConfig
    | DistillConfig
    | DataConfig
    | SpecialistsConfig
    | ReportConfig
    | WatchConfig
    | ViewsConfig
    | BenchConfig,
) -> int:
    """Dispatch to the subcommand; return the exit status."""
    try:
        if isinstance(command, CompareConfig):
            from tutelage.experiments.compare import compare

            return 1 if compare(command) else 0
        if isinstance(command, DistillConfig):
            from tutelage.experiments.distill import distill

            return distill(command)
        if isinstance(command, DataConfig):
            from tutelage.experiments.data import data

            return data(command)
        if isinstance(command, SpecialistsConfig):
            from tutelage.experiments.specialists import specialists

            return specialists(command)
        if isinstance(command, ReportConfig):
            from tutelage.experiments.report import report

            print(report(command))
        elif isinstance(command, WatchConfig):
            from tutelage.experiments.watch import watch

            return watch(command)
        elif isinstance(command, ViewsConfig):
            from tutelage.experiments.views import views

            print(views(command))
        else:
            from tutelage.experiments.bench import bench

            bench(command)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        print(f"tutelage: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    main()

"""What every command of `tutelage` is, and how it ends: a frozen dataclass that runs to an exit status."""

from __future__ import annotations

import os
import sys
from typing import Any, Protocol

import tyro


class Command(Protocol):
    """A command: its fields are its options, its docstring is its ``--help``."""

    def run(self) -> int:
        """Do what was asked for; return the exit status."""
        ...


def run_command(command: Command) -> int:
    """Run a command; an error that the user can mend is one line, and exit status 2."""
    try:
        return command.run()
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        print(f"tutelage: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def run_as_module(kind: type[Any]) -> int:
    """Run a command as ``python -m tutelage.experiments.<name>`` does: as ``tutelage <name>``."""
    sys.path.insert(0, os.getcwd())  # a user's own module:name lies where the command is typed
    name = kind.__name__.removesuffix("Config").lower()
    return run_command(tyro.cli(kind, prog=f"tutelage {name}"))

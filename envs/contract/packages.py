"""Packages that only parts of tutelage need: what is said where one is missing."""

from __future__ import annotations

from importlib.util import find_spec


class MissingPackageError(ImportError, RuntimeError):
    """A package that only some parts need is not installed; the message says who needs it, and the cure."""


def need_package(module: str, who: str, cure: str) -> None:
    """Make sure that a package is there, without importing it.

    Args:
        module: that it is imported by, e.g. ``Box2D``.
        who: what needs it, e.g. ``StumpTracks``.
        cure: how to get it, or what to use instead.

    Raises:
        MissingPackageError: when it is not installed.
    """
    if find_spec(module) is None:
        raise MissingPackageError(f"{who} needs {module}: {cure}")

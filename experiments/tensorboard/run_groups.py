"""Which runs of a folder differ in their seed alone: by a pattern over folder names, or by what is usual."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from tutelage.experiments.tensorboard.grid_log import GRID_FOLDER

MOST_RUNS = 2000
"""Runs of a folder beyond so many are left out."""

_USUAL = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # seed-3, seed3, ant_seed=3, s3, ant-s3
        r"(?P<before>(?:.*[-_. ])?)seed[-_= ]?(?P<seed>\d+)(?P<after>(?:[-_. ].*)?)",
        r"(?P<before>(?:.*[-_. ])?)s[-_=]?(?P<seed>\d+)",
        # CleanRL: Ant-v4__ppo__3__1700000000
        r"(?P<before>.+__)(?P<seed>\d+)__\d{9,}",
        # dates: rsl_rl, with the name of the run behind; skrl, with that of the agent; torch, with the host
        r"(?P<seed>\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?P<after>(?:_.*)?)",
        r"(?P<seed>\d\d-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6})(?P<after>(?:_.*)?)",
        r"(?P<seed>[a-z]{3}\d\d_\d\d-\d\d-\d\d)(?P<after>(?:_.*)?)",
        # Stable-Baselines3: PPO_3; and mere numbers
        r"(?P<before>.+_)(?P<seed>\d+)",
        r"(?P<seed>\d+)",
    )
]


def event_folders(folder: Path, without: Path | None = None) -> list[str]:
    """Folders with event files, relative to `folder`, in order; symbolic links are not followed.

    Args:
        folder: where to look; ``"."`` is itself.
        without: a folder that is left out with all that is in it.
    """
    found: list[str] = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if Path(place, name) != without)
        if any("tfevents" in name and not os.path.islink(os.path.join(place, name)) for name in files):
            found.append(os.path.relpath(place, folder))
            if len(found) >= MOST_RUNS:
                break
    return sorted(found)


def compile_groups(pattern: str) -> re.Pattern[str]:
    """A regular expression of run folders, from a pattern such as ``{group}_{seed}`` or ``*/{env}/s{seed}``.

    ``{seed}`` is what seeds differ in; every other name in braces goes into the name of the group. ``*`` is
    anything within one folder's name and ``**`` anything; what they match distinguishes nothing. Names in
    braces match within one folder's name too, but for ``{group}``, which matches across several.

    Raises:
        ValueError: when the pattern has no ``{seed}``, or a name is no identifier or is there twice.

    Example:
        >>> compile_groups("{group}_{seed}").fullmatch("logs/PPO_2").groupdict()
        {'group': 'logs/PPO', 'seed': '2'}
    """
    parts, names = [], []
    for piece in re.split(r"(\{[^{}]*\}|\*\*|\*)", pattern.strip("/")):
        if piece.startswith("{") and piece.endswith("}"):
            name = piece[1:-1]
            if not name.isidentifier() or name in names:
                raise ValueError(
                    f"--groups {pattern}: {piece} must be a name, there once, such as {{group}} or {{seed}}"
                )
            names.append(name)
            parts.append(f"(?P<{name}>{'.+' if name == 'group' else '[^/]+'})")
        else:
            parts.append({"**": ".*", "*": "[^/]*"}.get(piece, re.escape(piece)))
    if "seed" not in names:
        raise ValueError(
            f"--groups {pattern} does not say where the seed is; write {{seed}} there, as in "
            "'{group}_{seed}'"
        )
    return re.compile("".join(parts), re.DOTALL)


def group_runs(
    runs: Iterable[str], pattern: re.Pattern[str] | None, otherwise: str = "all"
) -> dict[str, tuple[str, int]]:
    """Run folder -> its group and its seed, by group and seed; a seed that is no number, as a date, is 0.

    Args:
        runs: folders, relative, with ``/``.
        pattern: see `compile_groups`; runs that do not match belong to no group. None takes what is usual
            (``seed-3``, ``s3``, ``PPO_3``, dates in front as rsl_rl, skrl and torch write them).
        otherwise: name of the group where nothing but the seed names a run.

    Example:
        >>> group_runs(["ppo/seed-1", "ppo/seed-0", "eval"], None)
        {'ppo/seed-0': ('ppo', 0), 'ppo/seed-1': ('ppo', 1)}
    """
    found: list[tuple[str, int, str]] = []
    for run in runs:
        named = _usual_group(run) if pattern is None else _pattern_group(run, pattern)
        if named is not None:
            group, seed = named
            number = int(seed) if re.fullmatch("[0-9]{1,18}", seed) else 0
            found.append((_folder_name(group) or otherwise, number, run))
    return {run: (group, seed) for group, seed, run in sorted(found)}


def _pattern_group(run: str, pattern: re.Pattern[str]) -> tuple[str, str] | None:
    match = pattern.fullmatch(run)
    if match is None:
        return None
    names = match.groupdict()
    seed = names.pop("seed")
    return "/".join(names.values()), seed


def _usual_group(run: str) -> tuple[str, str] | None:
    """The surest sign of a seed counts, and of those the last folder that has it."""
    parts = run.split("/")
    for usual in _USUAL:
        for index in reversed(range(len(parts))):
            if match := usual.fullmatch(parts[index]):
                named = match.groupdict(default="")
                rest = named.get("before", "").rstrip("-_. ") + named.get("after", "")
                return "/".join([*parts[:index], rest.strip("-_. "), *parts[index + 1 :]]), named["seed"]
    return None


def _folder_name(group: str) -> str:
    """A group's name as a folder below another, never above it."""
    return "/".join(part for part in group.split("/") if part not in ("", ".", "..", GRID_FOLDER))

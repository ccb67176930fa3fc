"""Task spaces in files: what a folder says of a space, read without importing any code that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tutelage.envs.contract.tasks import Axis, BoxTasks, DiscreteTasks, TaskSpace


@dataclass(frozen=True)
class DescribedTasks:
    """A task space as far as a file describes it: enough to draw on its axes, not to draw tasks from.

    Attributes:
        kind: what its tasks are.
        axes: what they lie on; none for levels.
    """

    kind: str
    axes: tuple[Axis, ...] = ()


def task_space_to_json(space: TaskSpace) -> dict[str, Any]:
    """Describe a task space for a file: its own `to_json`, and its axes where those would not be known."""
    described = {"kind": space.kind, **space.to_json()}
    described.pop("axes", None)
    try:
        known = task_space_from_json(described).axes
    except (KeyError, TypeError, ValueError, AttributeError):  # says that it is a box, but not which
        known = ()
    if known != space.axes:
        described["axes"] = [asdict(axis) for axis in space.axes]
    return described


def task_space_from_json(description: Mapping[str, Any]) -> BoxTasks | DiscreteTasks | DescribedTasks:
    """Make the task space that `to_json` or `task_space_to_json` described.

    Boxes and discrete sets are made again; of any other kind, kind and axes are known.

    Raises:
        KeyError: when the kind, or what describes a space of it, is missing.
        ValueError, TypeError: when an axis makes no sense, or something is of another type.

    Example:
        >>> task_space_from_json({"kind": "maze", "size": 13})
        DescribedTasks(kind='maze', axes=())
    """
    kind = str(description["kind"])
    if "axes" in description:
        return DescribedTasks(kind, tuple(map(_axis, description["axes"])))
    if kind == "box":
        return BoxTasks({name: (lo, hi) for name, (lo, hi) in description["bounds"].items()})
    return DiscreteTasks(description["names"]) if kind == "discrete" else DescribedTasks(kind)


def _axis(values: Mapping[str, Any]) -> Axis:
    return Axis(
        str(values["name"]), float(values["low"]), float(values["high"]), bool(values.get("whole", False))
    )

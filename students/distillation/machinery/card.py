"""What a method of distillation needs: its card, which its class carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class MethodCard:
    """What commands need to know of a method; its class attribute ``card``.

    Attributes:
        title: the method's name in tables and reports.
        expert: what it has of the expert: ``labels``, its ``critic``, or ``nothing``. The expert's training
            is charged to methods that have anything of it.
        gaussian: whether it draws actions, so that the student's head must be Gaussian.
        critic: what the student's critic sees: all that the task knows (``privileged``), what its actor sees
            (``student``), or what the expert's critic sees (``expert``); None for no critic.
        aligned: whether the student ends in the expert's own layers (`AlignedStudent`).
        predicts: whether the student also learns to predict what the expert knows, unless the user says
            otherwise.
        augments: whether images are augmented unless the user says otherwise.
        sharded: whether its gradient steps are cut into shards that threads work at, so that no result
            depends on how many; others learn with one thread.
        settings: fields of its config that differ from the defaults.
    """

    title: str
    expert: Literal["labels", "critic", "nothing"] = "labels"
    gaussian: bool = False
    critic: Literal["privileged", "student", "expert"] | None = None
    aligned: bool = False
    predicts: bool = False
    augments: bool = True
    sharded: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

"""The numbers behind `tutelage distill`: presets, and what suits each task where it differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tutelage.students.vision.vision_config import Encoder

MODALITIES: dict[str, tuple[str, ...]] = {"rgb": ("rgb",), "depth": ("depth",), "rgbd": ("rgb", "depth")}
"""What the student sees, and the pictures that this is of."""


@dataclass(frozen=True)
class Preset:
    """How much is done.

    Attributes:
        scale: frames, in those of ``quick``.
        seeds: how many.
        evaluations: on the way.
        episodes: of an evaluation at the end.
    """

    scale: int
    seeds: int
    evaluations: int
    episodes: int


PRESETS = {
    "quick": Preset(scale=1, seeds=1, evaluations=4, episodes=256),
    "standard": Preset(scale=8, seeds=5, evaluations=10, episodes=256),
    "paper": Preset(scale=64, seeds=10, evaluations=20, episodes=1024),
}
"""quick: minutes on two CPU cores; standard: a workstation's night; paper: a GPU, and 10 seeds."""

QUICK_FRAMES = {"reach": 80_000, "ball-balance": 64_000}
"""Frames of a student's training in the preset ``quick``; others take `DEFAULT_FRAMES`."""

DEFAULT_FRAMES = 400_000

CAMERAS = dict.fromkeys(("reach", "push-cube", "lift-object"), ("front", "wrist"))
"""Cameras of students of tasks where the default one alone is not enough.

`front` is turned by up to 4 degrees: what it sees moves by about as much as Reach's goal is large. `wrist`,
fixed to the hand, shows how to go on from there.
"""

ENCODERS: dict[str, Encoder] = {"reach": "fast"}
"""Encoders of students of tasks that need no `fine` one, which takes two fifths longer."""

LOOKS = {"ball-balance": "mild"}
"""How much looks differ in training, where not as ``strong``: a ball four pixels wide, of any colour on any
texture, is not found in the frames of `quick`.
"""

STACKS = {"ball-balance": 3}
"""Frames that a student sees at once, where one alone does not show what matters."""

ON_THE_WAY = 128
"""Episodes, at most, of an evaluation in training, and environments, at most, of any evaluation."""


def default_encoder(task: str) -> Encoder:
    """The encoder of a task's students."""
    return ENCODERS.get(task, "fine")


def default_looks(task: str) -> str:
    """How much looks differ in training."""
    return LOOKS.get(task, "strong")


def default_stack(task: str, memory: int) -> int:
    """Frames that a task's students see at once, given the units of their memory."""
    return 1 if memory else STACKS.get(task, 1)


def held_out_objects(task: str) -> dict[str, Any]:
    """Options that make environments with objects that no training shows; empty where a task has none."""
    if task == "lift-object":
        from tutelage.envs.batched.worlds.object_families import HELD_OUT_FAMILIES

        return {"families": HELD_OUT_FAMILIES}
    return {}


def test_sets(task: str, looks: str) -> dict[str, tuple[str, bool]]:
    """The test sets of a task: name -> looks, and whether objects are held out; the first is the main one.

    That is of held-out looks; or of those of the training, where these have none but the model's colours, or
    shades of them.

    Args:
        task: its name.
        looks: of the training.
    """
    if looks != "strong":
        sets = {
            "training looks": (looks, False),
            "held-out objects": (looks, True),
            "held-out looks": ("held-out", False),
        }
    else:
        sets = {
            "held-out looks": ("held-out", False),
            "held-out objects": ("held-out", True),
            "training looks": (looks, False),
            "looks beyond": ("beyond", False),
        }
    has_objects = bool(held_out_objects(task))
    return {name: kind for name, kind in sets.items() if has_objects or name != "held-out objects"}


def main_looks(task: str, looks: str) -> str:
    """Looks of the main test set."""
    return next(iter(test_sets(task, looks).values()))[0]


def on_the_way(task: str, looks: str) -> tuple[str, ...]:
    """Names of the test sets that are evaluated while a student learns, the main one first."""
    main, *others = test_sets(task, looks)
    return (main, *(name for name in others if name == "held-out objects"))

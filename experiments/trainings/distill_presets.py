"""The numbers behind `tutelage distill`: presets, and the test sets of a task.

What suits a task where it differs from others stands in its recipe (`tutelage.envs.WorldRecipe`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.envs.batched.worlds.catalogue import vec_task_recipe

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

ON_THE_WAY = 128
"""Episodes, at most, of an evaluation in training, and environments, at most, of any evaluation."""


def test_sets(task: str, looks: str) -> dict[str, tuple[str, bool]]:
    """The test sets of a task: name -> looks, and whether objects are held out; the first is the main one.

    That is of held-out looks; or of those of the training, where these have none but the model's colours, or
    shades of them.

    Args:
        task: its name, or ``module:Class``.
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
    has_objects = bool(vec_task_recipe(task).held_out)
    return {name: kind for name, kind in sets.items() if has_objects or name != "held-out objects"}


def main_looks(task: str, looks: str) -> str:
    """Looks of the main test set."""
    return next(iter(test_sets(task, looks).values()))[0]


def on_the_way(task: str, looks: str) -> tuple[str, ...]:
    """Names of the test sets that are evaluated while a student learns, the main one first."""
    main, *others = test_sets(task, looks)
    return (main, *(name for name in others if name == "held-out objects"))

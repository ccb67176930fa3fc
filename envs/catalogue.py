"""The worlds that can be named: one line each here, everything else is in the world's own file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.envs.batched.worlds.catalogue import VEC_TASKS, is_vec_task
from tutelage.envs.contract.names import load_object, unknown_name
from tutelage.envs.contract.recipe import WorldRecipe, recipe_of

WORLDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "point-mass-gate": ("tutelage.envs.point_mass.point_mass_gate:PointMassGate", {}),
    "point-mass-gate/friction": (
        "tutelage.envs.point_mass.point_mass_gate:PointMassGate",
        {"friction": True},
    ),
    "stump-tracks": ("tutelage.envs.stumps.stump_tracks:StumpTracks", {"body": "classic_bipedal"}),
    "stump-tracks/small-bipedal": (
        "tutelage.envs.stumps.stump_tracks:StumpTracks",
        {"body": "small_bipedal"},
    ),
    "stump-tracks/spider": ("tutelage.envs.stumps.stump_tracks:StumpTracks", {"body": "spider"}),
    "stump-tracks/old-classic-bipedal": (
        "tutelage.envs.stumps.stump_tracks:StumpTracks",
        {"body": "old_classic_bipedal"},
    ),
    "hexagon-tracks": ("tutelage.envs.stumps.stump_tracks:HexagonTracks", {}),
    **{name: (path, {}) for name, path in VEC_TASKS.items()},
}
"""Name -> ``module:Class``, and options of its constructor."""

USERS_OWN = WorldRecipe(summary="your own", mastered="info['success'] at the end of the episode")
"""The recipe of a user's Gymnasium environment that carries none."""


def find_world(name: str) -> tuple[Any, Mapping[str, Any]]:
    """The class of a world, or a user's factory of Gymnasium environments, and options to call it with.

    Args:
        name: one of `WORLDS`, or ``module:name``.

    Raises:
        ValueError: when there is none; suggests the nearest name.
    """
    if ":" not in name and name not in WORLDS:
        raise ValueError(unknown_name("environment", name, WORLDS, "module:name of your own"))
    path, options = WORLDS.get(name, (name, {}))
    return load_object(path, "environment"), options


def world_recipe(name: str) -> WorldRecipe:
    """The recipe of a world by its name.

    A user's Gymnasium environment needs none: without, all fields have their defaults. A batched task does.

    Raises:
        ValueError: when there is no such world, or it is a batched task without a recipe.
    """
    world, _ = find_world(name)
    if is_vec_task(world) or hasattr(world, "recipe"):
        return recipe_of(world, name)
    return USERS_OWN

"""Saving and restoring the running episodes of a `VecTask`, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.contract.state import StateDict, StateError

if TYPE_CHECKING:
    from tutelage.envs.batched.task.task_definition import TaskDefinition

# Model fields from which MuJoCo derives constants that are not saved with them.
_DECIDE_CONSTANTS = {"body_mass", "body_inertia", "body_ipos", "body_iquat", "dof_armature", "geom_size"}


def save_task(task: TaskDefinition) -> StateDict:
    """Whose state it is, physics, model fields, buffers, random streams, and the last views with noise."""
    return {
        "class": type(task).__name__,
        "task_parameters": list(task.task_space.names),
        "physics": _array(task.sim.save()),
        "model": {name: _array(task.sim.read_model(name)) for name in task.sim.model_fields},
        "buffers": {name: _array(buffer) for name, buffer in task.buffers.items()},
        "keys": _array(task.streams.keys),
        "positions": _array(task.streams.positions),
        "term_sums": {name: _array(sums) for name, sums in task.log.sums.items()},
        "noisy_views": {name: _array(task.views[name]) for name in task.view_noise},
        "num_diverged": int(task.num_diverged),
    }


def load_task(task: TaskDefinition, state: StateDict) -> None:
    """Continue the episodes of `save_task`, but for the views, which follow from them.

    Raises:
        StateError: when the state is of another task, model or number of environments, or damaged; nothing
            has been changed then.
    """
    _check(task, state)

    def tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(values)).to(task.device)

    for name, values in state["model"].items():
        task.sim.write_model(name, tensor(values))
    if _DECIDE_CONSTANTS & set(state["model"]):
        task.sim.set_constants()
    for name, values in state["buffers"].items():
        task.buffers[name].copy_(tensor(values))
    task.log.restore({name: tensor(sums) for name, sums in state["term_sums"].items()})
    task.num_diverged.fill_(state["num_diverged"])
    task.sim.restore(tensor(state["physics"]))
    task.sim.take_diverged()
    task.streams.keys.copy_(tensor(state["keys"]))
    task.streams.positions.copy_(tensor(state["positions"]))


def _check(task: TaskDefinition, state: StateDict) -> None:
    """Compare a state with the one that the task would save now, entry by entry."""
    own = save_task(task)
    own["term_sums"] = {}  # they come with the first step
    _compare(list(own), state, "the state")
    for name, what in (("class", "of the task"), ("task_parameters", "with the task parameters")):
        if state[name] != own[name]:
            raise StateError(f"the state is {what} {state[name]}; these environments are {own[name]}")
    if isinstance(state["keys"], np.ndarray) and state["keys"].shape != own["keys"].shape:
        raise StateError(
            f"the state is of {state['keys'].size} environments; expected {task.num_envs} of {own['class']}"
        )
    hints = {
        "model": "; make them with the same model fields and visuals",
        "noisy_views": "; make them with the same view_noise",
        "physics": "; the model or the simulator is another",
    }
    for name, part in own.items():
        if isinstance(part, Mapping):
            if name == "term_sums" and isinstance(state[name], Mapping):
                part = {term: np.zeros(task.num_envs, np.float32) for term in state[name]}
            _compare(list(part), state[name], f"{name!r} of the state", hints.get(name, ""))
            for entry, values in part.items():
                _compare_arrays(values, state[name][entry], f"{name}/{entry}", "")
        elif isinstance(part, np.ndarray):
            _compare_arrays(part, state[name], name, hints.get(name, ""))
    if not isinstance(state["num_diverged"], int) or state["num_diverged"] < 0:
        raise StateError(f"'num_diverged' of the state is {state['num_diverged']!r}, not a count")


def _compare(names: list[str], found: Any, where: str, hint: str = "") -> None:
    if not isinstance(found, Mapping):
        raise StateError(f"{where} is a {type(found).__name__}, not the dict of a saved task")
    missing, foreign = sorted(set(names) - set(found)), sorted(set(found) - set(names))
    if missing or foreign:
        faults = [
            f"{what} {', '.join(map(repr, names))}"
            for what, names in (("lacks", missing), ("has unknown", foreign))
            if names
        ]
        raise StateError(f"{where} {' and '.join(faults)}{hint}")


def _compare_arrays(own: NDArray[Any], found: Any, where: str, hint: str) -> None:
    if not isinstance(found, np.ndarray):
        raise StateError(f"{where!r} of the state is a {type(found).__name__}, not an array")
    if (found.shape, found.dtype) != (own.shape, own.dtype):
        raise StateError(
            f"{where!r} of the state is {found.dtype} of shape {found.shape}, not {own.dtype} of shape "
            f"{own.shape}{hint}"
        )


def _array(tensor: Tensor) -> NDArray[Any]:
    """A copy: tensors may be live views of the simulator's memory."""
    return np.array(tensor.cpu().numpy())

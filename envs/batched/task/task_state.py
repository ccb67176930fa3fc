"""Saving and restoring running episodes of a `VecTask`, bit for bit: those of all environments, or of some.

A state is one dict whose arrays have the saved environments as their first axis. The state of a whole task
is the state of all its environments, and a few counts beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.batched.task.observed_episodes import UNOBSERVED
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.contract.state import StateDict, StateError

if TYPE_CHECKING:
    from tutelage.envs.batched.task.task_episodes import TaskEpisodes

# Model fields from which MuJoCo derives constants that are not saved with them.
_DECIDE_CONSTANTS = {"body_mass", "body_inertia", "body_ipos", "body_iquat", "dof_armature", "geom_size"}

_HINTS = {
    "model": "; make them with the same model fields and visuals",
    "noisy_views": "; make them with the same view_noise",
    "physics": "; the model or the simulator is another",
}


def save_rows(task: TaskEpisodes, rows: Rows) -> StateDict:
    """Whose state it is, physics, model fields, buffers, random streams, and the last views with noise."""
    task.observed.settle()

    def saved(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        return {name: rows.take(tensor).cpu().numpy() for name, tensor in tensors.items()}

    return {
        **_identity(task),
        "physics": task.sim.save(rows).cpu().numpy(),
        **{part: saved(tensors) for part, tensors in _parts(task).items()},
        **saved(_streams(task)),
    }


def save_task(task: TaskEpisodes) -> StateDict:
    """The state of all environments, with what is counted over all of them."""
    return {
        **save_rows(task, Rows.all(task.num_envs, task.device)),
        "num_diverged": int(task.num_diverged),
        "steps": task._steps,
        "proposals": task.num_proposed,
    }


def load_rows(task: TaskEpisodes, ids: NDArray[np.int64], state: StateDict) -> tuple[Rows, dict[str, Tensor]]:
    """Continue the episodes of `save_rows` in environments `ids`, but for the views, which follow from them.

    Returns:
        Those environments, and their saved views with noise.

    Raises:
        StateError: when the state is of another task, model or number of environments, or damaged; nothing
            has been changed then.
    """
    state = _with_later_buffers(task, state)
    _check_rows(task, state, len(ids), [])
    return _load(task, ids, state)


def load_task(task: TaskEpisodes, state: StateDict) -> tuple[Rows, dict[str, Tensor]]:
    """Continue the episodes of `save_task`, as `load_rows` does, and its counts; raises StateError."""
    if isinstance(state, Mapping):
        state = {"steps": 0, "proposals": 0, **_with_later_buffers(task, state)}
    counts = ["num_diverged", "steps", "proposals"]
    _check_rows(task, state, task.num_envs, counts)
    for name in counts:
        if not isinstance(state[name], int) or state[name] < 0:
            raise StateError(f"{name!r} of the state is {state[name]!r}, not a count")
    task.log.forget()
    task.num_diverged.fill_(state["num_diverged"])
    task._steps, task.num_proposed = state["steps"], state["proposals"]
    return _load(task, np.arange(task.num_envs), state)


def _load(task: TaskEpisodes, ids: NDArray[np.int64], state: StateDict) -> tuple[Rows, dict[str, Tensor]]:
    order = np.argsort(ids)
    rows = Rows.at(ids[order], task.num_envs, task.device)

    def tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values[order]).to(task.device)

    def tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        return {name: tensor(values) for name, values in arrays.items()}

    for name, values in tensors(state["model"]).items():
        task.sim.write_model(name, values, rows)
    if _DECIDE_CONSTANTS & set(state["model"]):
        task.sim.set_constants(rows)
    task.observed.settle()
    task._set_ends(task.reset_buf.clone())
    for name, values in tensors(state["buffers"]).items():
        rows.put(task.buffers[name], values)
    task.log.restore(rows, tensors(state["term_sums"]))
    task.sim.restore(tensor(state["physics"]), rows)
    for name, stream in _streams(task).items():
        rows.put(stream, tensor(state[name]))
    return rows, tensors(state["noisy_views"])


def _identity(task: TaskEpisodes) -> dict[str, Any]:
    return {"class": type(task).__name__, "task_parameters": list(task.task_space.names)}


def _parts(task: TaskEpisodes) -> dict[str, Mapping[str, Tensor]]:
    """Tensors of all environments that are saved by row, beside physics and streams."""
    return {
        "model": {name: task.sim.read_model(name) for name in task.sim.model_fields},
        "buffers": task.buffers,
        "term_sums": task.log.sums,
        "noisy_views": {name: task.views[name] for name in task.view_noise},
    }


def _streams(task: TaskEpisodes) -> dict[str, Tensor]:
    return {"keys": task.streams.keys, "positions": task.streams.positions}


def _with_later_buffers(task: TaskEpisodes, state: Any) -> Any:
    """A state with the buffers that earlier versions did not save, if it is one at all."""
    if not isinstance(state, Mapping):
        return state
    buffers, keys = state.get("buffers"), state.get("keys")
    if not (isinstance(buffers, Mapping) and isinstance(keys, np.ndarray)):
        return state
    defaults = {
        "horizon_buf": np.int64(task.max_episode_length),
        "observed_return": np.float64(0),
        "observed_steps": np.int64(UNOBSERVED),
        "proposal_id": np.int64(-1),
        "episode_started": np.int64(-1),
    }
    return {**state, "buffers": {n: np.full(len(keys), v) for n, v in defaults.items()} | dict(buffers)}


def _check_rows(task: TaskEpisodes, state: StateDict, n: int, counts: list[str]) -> None:
    """Compare a state, entry by entry, with what the task would save of `n` environments now."""
    parts, identity, streams = _parts(task), _identity(task), _streams(task)
    own = {*identity, "physics", *parts, *streams, *counts}
    _compare_names(own, state, "the state", _other_call(own, state))
    for name, what in (("class", "of the task"), ("task_parameters", "with the task parameters")):
        if state[name] != identity[name]:
            raise StateError(f"the state is {what} {state[name]}; these environments are {identity[name]}")
    if isinstance(state["keys"], np.ndarray) and len(state["keys"].shape) == 1 and len(state["keys"]) != n:
        raise StateError(
            f"the state is of {state['keys'].size} environments; expected {n} of {identity['class']}"
        )
    for part, tensors in parts.items():
        if part == "term_sums" and isinstance(state[part], Mapping):  # they come with the first step
            tensors = dict.fromkeys(state[part], task.rew_buf)
        _compare_names(set(tensors), state[part], f"{part!r} of the state", _HINTS.get(part, ""))
        for name, tensor in tensors.items():
            shape = (n, *tensor.shape[1:])
            _compare_array(shape, _numpy_dtype(tensor), state[part][name], f"{part}/{name}", "")
    physics = (n, task.sim.state_size)
    _compare_array(physics, np.dtype(np.float64), state["physics"], "physics", _HINTS["physics"])
    for name, tensor in streams.items():
        _compare_array((n,), _numpy_dtype(tensor), state[name], name, "")


def _other_call(own: set[str], state: Any) -> str:
    """What to call instead, where a state of all environments is taken for one of rows or the reverse."""
    if not isinstance(state, Mapping) or own ^ set(state) not in (
        {"num_diverged"},
        {"num_diverged", "steps", "proposals"},
    ):
        return ""
    saved, loads = (
        ("state_dict", "load_state_dict") if "num_diverged" in state else ("save_rows", "restore_rows")
    )
    return f"; what {saved} returned is for {loads}"


def _compare_names(names: set[str], found: Any, where: str, hint: str) -> None:
    if not isinstance(found, Mapping):
        raise StateError(f"{where} is a {type(found).__name__}, not the dict of a saved task")
    missing, foreign = sorted(names - set(found)), sorted(set(found) - names)
    if missing or foreign:
        faults = [
            f"{what} {', '.join(map(repr, names))}"
            for what, names in (("lacks", missing), ("has unknown", foreign))
            if names
        ]
        raise StateError(f"{where} {' and '.join(faults)}{hint}")


def _compare_array(shape: tuple[int, ...], dtype: np.dtype[Any], found: Any, where: str, hint: str) -> None:
    if not isinstance(found, np.ndarray):
        raise StateError(f"{where!r} of the state is a {type(found).__name__}, not an array")
    if (found.shape, found.dtype) != (shape, dtype):
        raise StateError(
            f"{where!r} of the state is {found.dtype} of shape {found.shape}, not {dtype} of shape "
            f"{shape}{hint}"
        )


def _numpy_dtype(tensor: Tensor) -> np.dtype[Any]:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype

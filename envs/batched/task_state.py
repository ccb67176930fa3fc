"""Saving and restoring the running episodes of a `VecTask`, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.state import StateDict, StateError

if TYPE_CHECKING:
    from tutelage.envs.batched.vec_task import VecTask

# Model fields from which MuJoCo derives constants that are not saved with them.
_DECIDE_CONSTANTS = {"body_mass", "body_inertia", "body_ipos", "body_iquat", "dof_armature", "geom_size"}


def save_task(task: VecTask) -> StateDict:
    """Physics, model fields, buffers, random streams, and what noise has made of the last views."""
    return {
        "physics": _array(task.sim.save()),
        "model": {name: _array(task.sim.read_model(name)) for name in task.sim.model_fields},
        "buffers": {name: _array(buffer) for name, buffer in task.buffers.items()},
        "keys": _array(task.streams.keys),
        "positions": _array(task.streams.positions),
        "term_sums": {name: _array(sums) for name, sums in task.log.sums.items()},
        "noisy_views": {name: _array(task.views[name]) for name in task.view_noise},
        "num_diverged": int(task.num_diverged),
    }


def load_task(task: VecTask, state: StateDict) -> None:
    """Continue the episodes of `save_task`, but for the views, which follow from them.

    Raises:
        StateError: when the state is of another task, model or number of environments.
    """
    if set(state["buffers"]) != set(task.buffers) or len(state["keys"]) != task.num_envs:
        raise StateError(
            f"the state is of {len(state['keys'])} environments of another kind; expected "
            f"{task.num_envs} of {type(task).__name__}"
        )
    if set(state["noisy_views"]) != set(task.view_noise):
        raise StateError(
            f"the state has noise on the views {sorted(state['noisy_views'])}, these environments on "
            f"{sorted(task.view_noise)}; make them with the same view_noise"
        )

    def tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(values)).to(task.device)

    for name, values in state["model"].items():
        task.sim.write_model(name, tensor(values))
    if _DECIDE_CONSTANTS & set(state["model"]):
        task.sim.set_constants()
    for name, values in state["buffers"].items():
        task.buffers[name].copy_(tensor(values))
    task.log.sums = {name: tensor(sums) for name, sums in state["term_sums"].items()}
    task.num_diverged.fill_(state["num_diverged"])
    try:
        task.sim.restore(tensor(state["physics"]))
    except ValueError as error:
        raise StateError(f"the state is of another model: {error}") from None
    task.sim.take_diverged()
    task.streams.keys.copy_(tensor(state["keys"]))
    task.streams.positions.copy_(tensor(state["positions"]))


def _array(tensor: Tensor) -> NDArray[Any]:
    """A copy: tensors may be live views of the simulator's memory."""
    return np.array(tensor.cpu().numpy())

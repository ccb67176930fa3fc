"""MuJoCo on CPU threads: ``mujoco.batch`` behind the simulator protocol."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
import torch
from mujoco import batch as mujoco_batch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.batched.rows import Rows
from tutelage.envs.batched.simulator import STATE_FIELDS, SimulatorError, settle_threads

_VELOCITY, _NOTHING = int(mujoco.mjtStage.mjSTAGE_VEL), int(mujoco.mjtStage.mjSTAGE_NONE)
_DIVERGED = [
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
]
_COUNT = 1  # of (last info, number) in mujoco.batch's warnings


class BatchSimulator:
    """`num_envs` simulations of one model on CPU threads, float64 inside, float32 outside.

    Results do not depend on the number of threads, bit for bit. A simulation that diverges is put back to the
    model's initial state by MuJoCo itself and shows in `take_diverged`.

    Args:
        model: what to simulate; it is not changed.
        num_envs: how many simulations.
        model_fields: fields of ``MjModel`` of which every environment gets values of its own; options as
            ``opt.gravity``.
        threads: 0: all CPUs that this process may use.

    Attributes:
        batch: the `mujoco.batch.Batch`, for what the protocol does not offer (rays, Jacobians).

    Raises:
        SimulatorError: when a model field cannot differ between environments.
    """

    def __init__(
        self, model: mujoco.MjModel, num_envs: int, model_fields: Sequence[str] = (), threads: int = 0
    ) -> None:
        settle_threads()
        self.model = model
        self.num_envs = num_envs
        self.device = torch.device("cpu")
        self.model_fields = tuple(dict.fromkeys(model_fields))
        self.batch = mujoco_batch.Batch(model, num_envs, threads)
        try:
            self._fields = {name: self.batch.expand(name) for name in self.model_fields}
        except (AttributeError, ValueError) as error:
            raise SimulatorError(f"a field cannot differ between environments: {error}") from None
        self._live: dict[str, NDArray[np.generic]] = {}
        self._copies: dict[str, Tensor] = {}
        self._fresh: set[str] = set()
        self._warned = self.batch.warning[:, _DIVERGED, _COUNT].copy()
        self.forward()

    def read(self, name: str) -> Tensor:
        """A field of ``MjData``; see `Simulator.read`."""
        if name not in self._copies:
            self._bind(name)
        if name not in self._fresh:
            np.copyto(self._copies[name].numpy(), self._live[name], casting="same_kind")
            self._fresh.add(name)
        return self._copies[name]

    def write(self, name: str, values: Tensor, rows: Rows | None = None) -> None:
        """Set a state field; see `Simulator.write`."""
        if name not in self._live:
            if name not in STATE_FIELDS:
                raise AttributeError(f"{name!r} is derived; what can be written is {', '.join(STATE_FIELDS)}")
            self._bind(name)
        self._put(self._live[name], values, rows)
        self._fresh.discard(name)

    def read_model(self, name: str) -> Tensor:
        """One of `model_fields`, as a copy."""
        return torch.from_numpy(self._field(name)).to(torch.float32)

    def write_model(self, name: str, values: Tensor, rows: Rows | None = None) -> None:
        """Set one of `model_fields`; see `Simulator.write_model`."""
        self._put(self._field(name), values, rows)

    def set_constants(self, rows: Rows | None = None) -> None:
        """Recompute derived constants (``mj_setConst``)."""
        self.batch.set_const(_ids(rows))

    def reset(self, rows: Rows) -> None:
        """Bring back the model's initial state in these environments."""
        self.batch.reset(_ids(rows), stage=_NOTHING)
        self._fresh.clear()

    def forward(self, rows: Rows | None = None) -> None:
        """Bring derived fields up to date."""
        self.batch.forward(_ids(rows), stage=_VELOCITY)
        self._fresh.clear()

    def step(self, substeps: int) -> None:
        """Advance all environments."""
        self.batch.step(nstep=substeps, stage=_VELOCITY)
        self._fresh.clear()

    def take_diverged(self) -> Tensor:
        """Which environments MuJoCo found diverged since the last call."""
        now = self.batch.warning[:, _DIVERGED, _COUNT]
        diverged = (now != self._warned).any(axis=1)
        self._warned[:] = now
        return torch.from_numpy(diverged)

    def save(self, rows: Rows | None = None) -> Tensor:
        """The integration state of environments, float64."""
        state = torch.from_numpy(self.batch.state)
        return state.clone() if rows is None else state[rows.indices]

    def restore(self, states: Tensor, rows: Rows | None = None) -> None:
        """Continue from saved states.

        Raises:
            ValueError: when they are of another model or number of environments.
        """
        n = self.num_envs if rows is None else rows.n
        if states.shape != (n, self.batch.nstate):
            raise ValueError(f"states have shape {tuple(states.shape)}, not {(n, self.batch.nstate)}")
        self._put(self.batch.state, states, rows)
        self.forward(rows)

    def check(self) -> None:
        """Nothing to warn of: MuJoCo on the CPU makes room for contacts as they come."""

    def close(self) -> None:
        """Threads end with the object."""

    def _bind(self, name: str) -> None:
        self._live[name] = live = self.batch.bind(name)
        if name not in STATE_FIELDS:  # derived fields bound just now are zero until the next call
            self.batch.forward(stage=_VELOCITY)
        kind = torch.float32 if live.dtype.kind == "f" else torch.int32
        self._copies[name] = torch.empty(live.shape, dtype=kind)

    def _field(self, name: str) -> NDArray[np.generic]:
        if name not in self._fields:
            raise AttributeError(
                f"{name!r} is shared by all environments; name it in model_fields "
                f"(now: {', '.join(self.model_fields) or 'none'})"
            )
        return self._fields[name]

    @staticmethod
    def _put(target: NDArray[np.generic], values: Tensor, rows: Rows | None) -> None:
        new = values.numpy()
        if rows is None:
            target[:] = new
        elif rows.masked:
            target[rows.mask.numpy()] = new[rows.mask.numpy()]
        else:
            target[rows.indices.numpy()] = new


def _ids(rows: Rows | None) -> NDArray[np.int32] | None:
    if rows is None:
        return None
    if rows.masked:
        return np.flatnonzero(rows.mask.numpy()).astype(np.int32)
    return rows.indices.numpy().astype(np.int32)

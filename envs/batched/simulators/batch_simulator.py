"""MuJoCo on CPU threads: ``mujoco.batch`` behind the simulator protocol."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from mujoco import batch as mujoco_batch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.envs.batched.simulators.field_checks import (
    cannot_read,
    cannot_write,
    check_values,
    no_model_field,
)
from tutelage.envs.batched.simulators.simulator import (
    DERIVED_FIELDS,
    STATE_FIELDS,
    SimulatorError,
    force_fields,
    prepare_model,
    settle_threads,
)
from tutelage.envs.batched.task.rows import Rows

_VELOCITY, _NOTHING = int(mujoco.mjtStage.mjSTAGE_VEL), int(mujoco.mjtStage.mjSTAGE_NONE)
_DIVERGED = [
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
    int(mujoco.mjtWarning.mjWARN_BADCTRL),
]
_POSES = {
    "geom": {"geom_pos", "geom_quat"},
    "site": {"site_pos", "site_quat"},
    "body": {"body_ipos", "body_iquat"},
}
_COUNT = 1  # of (last info, number) in mujoco.batch's warnings

Array = NDArray[np.generic]


@dataclass
class _Field:
    """A field of ``MjData``: MuJoCo's memory, our float32 copy of it, and that as a tensor."""

    live: Array
    copy: Array
    tensor: Tensor


class BatchSimulator:
    """`num_envs` simulations of one model on CPU threads, float64 inside, float32 outside.

    Results do not depend on the number of threads, bit for bit. A simulation that diverges is put back to the
    model's initial state by MuJoCo itself within its next step, and shows in `take_diverged`; MuJoCo's own
    warnings of it (to the console, and into a file in the working directory) are kept back.

    Not to be used from several Python threads at once.

    Args:
        model: what to simulate; it is copied.
        num_envs: how many simulations.
        model_fields: fields of ``MjModel`` of which every environment gets values of its own; options as
            ``opt.gravity``.
        threads: 0: all CPUs that this process may use.

    Attributes:
        batch: the `mujoco.batch.Batch`, for what the protocol does not offer (rays, Jacobians). After
            writing to it, or calling it, call `forward`.

    Raises:
        SimulatorError: when a model field cannot differ between environments, or MuJoCo refuses the model;
            in later calls: when MuJoCo fails in some environments, which are named.
    """

    def __init__(
        self, model: mujoco.MjModel, num_envs: int, model_fields: Sequence[str] = (), threads: int = 0
    ) -> None:
        settle_threads()
        self.model_fields = tuple(dict.fromkeys(model_fields))
        self.model = prepare_model(model, self.model_fields)
        self.num_envs = num_envs
        self.device = torch.device("cpu")
        try:
            self.batch = mujoco_batch.Batch(self.model, num_envs, threads or _usable_cpus())
            self._model_fields = {name: self.batch.expand(name) for name in self.model_fields}
            self._same_frames = [
                self.batch.expand(f"{kind}_sameframe")
                for kind, pose in _POSES.items()
                if pose & set(self.model_fields)
            ]
        except (AttributeError, ValueError) as error:
            raise SimulatorError(f"mujoco.batch cannot simulate this: {error}") from None
        self._forget_same_frames()
        self._motion = [self.batch.bind("qpos"), self.batch.bind("qvel")]
        self._diverged = np.zeros(num_envs, dtype=bool)
        self._fields: dict[str, _Field] = {}
        self._fresh: set[str] = set()
        self._stepped = False  # whether forces in MuJoCo's memory are those of the last step
        acceleration = np.repeat(model.sensor_needstage == mujoco.mjtStage.mjSTAGE_ACC, model.sensor_dim)
        self._kept_sensors = np.flatnonzero(~acceleration) if acceleration.any() else None
        self._forces = force_fields(model) + (() if self._kept_sensors is None else ("sensordata",))
        self._readable = (*STATE_FIELDS, *DERIVED_FIELDS, *force_fields(model))
        for name in self._forces:  # all of them now, as `mujoco.batch` fills a field from its binding on
            self._bind(name)
        self._state_sizes = [self.batch.nstate, *(self._fields[n].tensor[0].numel() for n in self._forces)]
        self.state_size = sum(self._state_sizes)
        self.forward()

    def read(self, name: str) -> Tensor:
        """A field of ``MjData``; see `Simulator.read`."""
        field = self._fields.get(name)
        if field is None:
            if name not in self._readable:
                raise cannot_read(name, self._readable)
            field = self._bind(name)
            if name not in STATE_FIELDS:  # zero until the next call
                self.forward()
        if name not in self._fresh:
            self._refresh(name, field)
        return field.tensor

    def write(self, name: str, values: Tensor, rows: Rows | None = None) -> None:
        """Set a state field; see `Simulator.write`."""
        field = self._fields.get(name)
        if field is None or name not in STATE_FIELDS:
            if name not in STATE_FIELDS:
                raise cannot_write(name)
            field = self._bind(name)
        check_values(name, values, rows, field.live.shape, "cpu")
        _put(field.live, values, rows)
        self._fresh.discard(name)

    def read_model(self, name: str) -> Tensor:
        """One of `model_fields`, as a copy."""
        if name not in self._model_fields:
            raise no_model_field(name, self.model_fields)
        return torch.from_numpy(self._model_fields[name]).to(torch.float32)

    def write_model(self, name: str, values: Tensor, rows: Rows | None = None) -> None:
        """Set one of `model_fields`; see `Simulator.write_model`."""
        if name not in self._model_fields:
            raise no_model_field(name, self.model_fields)
        field = self._model_fields[name]
        check_values(name, values, rows, field.shape, "cpu")
        _put(field, values, rows)

    def set_constants(self, rows: Rows | None = None) -> None:
        """Recompute derived constants (``mj_setConst``)."""
        self._call(lambda: self.batch.set_const(_ids(rows)))
        self._forget_same_frames()

    def reset(self, rows: Rows) -> None:
        """Bring back the model's initial state in these environments."""
        ids = _ids(rows)
        self._call(lambda: self.batch.reset(ids, stage=_NOTHING))
        for name in self._forces:
            self._fields[name].copy[ids] = 0

    def forward(self, rows: Rows | None = None) -> None:
        """Bring derived fields up to date."""
        self._call(lambda: self.batch.forward(_ids(rows), stage=_VELOCITY))

    def step(self, substeps: int) -> None:
        """Advance all environments."""
        self._call(lambda: self.batch.step(nstep=substeps, stage=_VELOCITY), keep_forces=False)
        self._stepped = True
        counts = self.batch.warning[:, _DIVERGED, _COUNT]
        if counts.any():
            self._diverged |= counts.any(axis=1)
            self.batch.warning[:, _DIVERGED, _COUNT] = 0
        for values in self._motion:  # MuJoCo itself would find them at the beginning of the next step
            self._diverged |= ~(np.abs(values) <= mujoco.mjMAXVAL).all(axis=1)

    def take_diverged(self) -> Tensor:
        """Which environments diverged since the last call."""
        diverged = torch.from_numpy(self._diverged.copy())
        self._diverged[:] = False
        return diverged

    def save(self, rows: Rows | None = None) -> Tensor:
        """The integration state and forces, float64; see `Simulator.save`."""
        parts = [torch.from_numpy(self.batch.state), *(self.read(name) for name in self._forces)]
        chosen = parts if rows is None else [rows.take(part) for part in parts]
        return torch.cat([part.flatten(1).double() for part in chosen], 1)

    def restore(self, states: Tensor, rows: Rows | None = None) -> None:
        """Continue from saved states; see `Simulator.restore`."""
        check_values("states", states, rows, (self.num_envs, self.state_size), "cpu")
        rows = rows or Rows.all(self.num_envs)
        state, *saved = states.split(self._state_sizes, 1)
        _put(self.batch.state, state, rows)
        self.forward(rows)
        for name, values in zip(self._forces, saved, strict=True):
            force = self._fields[name].tensor
            rows.put(force, values.reshape(len(values), *force.shape[1:]))
        self._diverged[_ids(rows)] = False

    def check(self) -> None:
        """Nothing to warn of: MuJoCo on the CPU makes room for contacts as they come."""

    def close(self) -> None:
        """Threads end with the object."""

    def _call(self, run: Callable[[], None], *, keep_forces: bool = True) -> None:
        """Run simulations, quietly; what was copied of derived fields is out of date afterwards.

        A `mujoco.batch` has one ``MjData`` for each thread, not for each simulation: whatever a call does
        not compute, as `forward` does not compute forces, it leaves as some other simulation left it.
        So forces are copied before such a call.
        """
        if keep_forces and self._stepped:
            for name in self._forces:
                if name not in self._fresh:
                    self._refresh(name, self._fields[name])
            self._stepped = False
        self._fresh.clear()
        try:
            with _no_mujoco_warnings():
                run()
        except mujoco_batch.SimulationError as error:
            raise SimulatorError(
                f"MuJoCo failed in environments {error.ids.tolist()}; {str(error).rpartition('; ')[2]}"
            ) from None

    def _forget_same_frames(self) -> None:
        """Have the engine look at poses that differ between environments.

        MuJoCo notes, when it compiles a model and again in ``mj_setConst``, which geoms, sites and centres
        of mass have the frame of their body, and then ignores what is written to their pose later on.
        """
        for same_frame in self._same_frames:
            same_frame[:] = int(mujoco.mjtSameFrame.mjSAMEFRAME_NONE)

    def _refresh(self, name: str, field: _Field) -> None:
        """Copy a field from MuJoCo's memory, but for forces that are not in it."""
        if self._stepped or name not in self._forces:
            np.copyto(field.copy, field.live, casting="same_kind")
        elif name == "sensordata":
            field.copy[:, self._kept_sensors] = field.live[:, self._kept_sensors]
        self._fresh.add(name)

    def _bind(self, name: str) -> _Field:
        live = self.batch.bind(name)
        tensor = torch.zeros(live.shape)
        self._fields[name] = _Field(live, tensor.numpy(), tensor)
        return self._fields[name]


def _put(target: Array, values: Tensor, rows: Rows | None) -> None:
    new = values.detach().numpy()
    if rows is None:
        target[:] = new
    elif rows.masked:
        chosen = rows.mask.numpy()
        target[chosen] = new[chosen]
    else:
        target[rows.indices.numpy()] = new


def _ids(rows: Rows | None) -> NDArray[np.int32] | None:
    if rows is None:
        return None
    indices = np.flatnonzero(rows.mask.numpy()) if rows.masked else rows.indices.numpy()
    return indices.astype(np.int32)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Warnings come from MuJoCo's threads as well. A handler in Python would make them wait for the interpreter,
# so it is some function in C that needs no interpreter and does nothing with its argument.
_ignore_warning = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(
    ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p).value or 0
)


@contextmanager
def _no_mujoco_warnings() -> Iterator[None]:
    """Keep back MuJoCo's warnings, unless the user handles them."""
    if mujoco.get_mju_user_warning() is not None:
        yield
        return
    mujoco.set_mju_user_warning(_ignore_warning)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)

"""The simulator protocol: many MuJoCo simulations as one object of tensors, on CPU threads or on a GPU.

Task code (`tutelage.envs.batched.task.vec_task`) is written against this and runs on both simulators:

- `BatchSimulator`: ``mujoco.batch`` on CPU threads, float64 inside;
- `WarpSimulator`: ``mujoco_warp`` on CUDA, or on Warp's CPU device,
  where the GPU's code path can be tested; float32.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows

if TYPE_CHECKING:
    import mujoco

Backend = Literal["batch", "warp"]

STATE_FIELDS = (
    "qpos",
    "qvel",
    "act",
    "ctrl",
    "mocap_pos",
    "mocap_quat",
    "xfrc_applied",
    "qfrc_applied",
)
"""Fields of ``MjData`` that can be written."""

DERIVED_FIELDS = (
    *("time", "xpos", "xquat", "xmat", "xipos", "ximat", "xanchor", "xaxis", "geom_xpos", "geom_xmat"),
    *("site_xpos", "site_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir", "subtree_com", "cvel"),
    *("cdof", "cdof_dot", "cinert", "ten_length", "ten_velocity", "actuator_length", "actuator_velocity"),
    *("qfrc_bias", "qfrc_passive", "sensordata"),
)
"""Fields that follow from positions and velocities: up to date after `Simulator.step` and `forward`.

Sensors of forces and accelerations within ``sensordata`` behave as `FORCE_FIELDS`.
"""

FORCE_FIELDS = ("qacc", "act_dot", "actuator_force", "qfrc_actuator", "qfrc_smooth", "qfrc_constraint")
"""Fields of forces and accelerations: those of the last substep of the last `Simulator.step`."""

BODY_FORCE_FIELDS = ("cacc", "cfrc_int", "cfrc_ext")
"""`FORCE_FIELDS` that MuJoCo computes only for models with a sensor that needs them."""


class SimulatorError(RuntimeError):
    """A simulator cannot be made or cannot go on; the message names the cure."""


class SimulatorWarning(UserWarning):
    """A simulator goes on, but not as the model asks; the message names the setting to raise."""


class Simulator(Protocol):
    """`num_envs` simulations of one model.

    Tensors have the environments first and live on `device`; floating-point ones are float32 and may be live
    views of the simulator's memory: read them, clone what is to be kept, and change them by `write` alone.
    Field names are MuJoCo's own (``qpos``, ``site_xpos``, ...), quaternions are (w, x, y, z).

    Attributes:
        model: the compiled model, shared by all environments but for `model_fields`.
        num_envs: how many simulations.
        device: where the tensors live.
        model_fields: fields of ``MjModel`` of which every environment has values of its own.
        state_size: numbers that `save` keeps of each environment.
    """

    model: mujoco.MjModel
    num_envs: int
    state_size: int
    device: torch.device
    model_fields: tuple[str, ...]

    def read(self, name: str) -> Tensor:
        """A field of ``MjData``, shape ``(num_envs, ...)``; the same memory at every call.

        - `STATE_FIELDS` are as written or stepped.
        - `DERIVED_FIELDS` are up to date after `step`, `forward`, `restore`; a `write` does not reach them.
        - `FORCE_FIELDS` are those of the last substep of the last `step`, and zero where `reset` came after
          it; `forward` leaves them alone.

        Raises:
            AttributeError: when there is no such field, or the simulators do not offer it; the message says
                what to do instead.
        """
        ...

    def write(self, name: str, values: Tensor, rows: Rows | None = None) -> None:
        """Set one of `STATE_FIELDS`, in all environments or in some; `values` is ``(rows.n, ...)``.

        Derived fields follow at the next `forward` or `step`.

        Raises:
            AttributeError: when the field cannot be written.
            ValueError: when `values` have another shape, or are on another device.
        """
        ...

    def read_model(self, name: str) -> Tensor:
        """One of `model_fields`, shape ``(num_envs, ...)``."""
        ...

    def write_model(self, name: str, values: Tensor, rows: Rows | None = None) -> None:
        """Set one of `model_fields`; for masses, inertias and sizes call `set_constants` afterwards.

        Raises:
            AttributeError: when the field is shared by all environments.
            ValueError: when `values` have another shape, or are on another device.
        """
        ...

    def set_constants(self, rows: Rows | None = None) -> None:
        """Recompute what MuJoCo derives from the model (``mj_setConst``) after `write_model`.

        `rows` are those that need it; a simulator may recompute more.
        """
        ...

    def reset(self, rows: Rows) -> None:
        """Bring back the model's initial state, at rest, in these environments; writes come after it."""
        ...

    def forward(self, rows: Rows | None = None) -> None:
        """Bring `DERIVED_FIELDS` up to date with the state, in these environments at least."""
        ...

    def step(self, substeps: int) -> None:
        """Advance all environments by `substeps` time steps, then as `forward`."""
        ...

    def take_diverged(self) -> Tensor:
        """Which environments diverged since this was last asked, bool, shape ``(num_envs,)``.

        Diverged: NaN, infinite or huge positions, velocities or accelerations, as MuJoCo's own checks
        define them. The state of such an environment means nothing until it is `reset`.
        """
        ...

    def save(self, rows: Rows | None = None) -> Tensor:
        """Everything that decides the future (``mjSTATE_INTEGRATION``), and `FORCE_FIELDS`.

        Returns:
            float64, shape ``(n, state_size)``, in the order of `rows`.
        """
        ...

    def restore(self, states: Tensor, rows: Rows | None = None) -> None:
        """Continue from what `save` of the same simulator returned, bit for bit; then as `forward`.

        The states may be of other environments than `rows`. Model fields are not part of it: write them
        first. Nothing counts as diverged in `rows` afterwards.

        Raises:
            ValueError: when the states are of another model or number of environments.
        """
        ...

    def check(self) -> None:
        """Warn (`SimulatorWarning`, once of each kind) of contacts or constraints that did not fit.

        Waits for the GPU; call it now and then, not in every step.
        """
        ...

    def close(self) -> None:
        """Free threads and memory."""
        ...


def prepare_model(model: mujoco.MjModel, model_fields: Sequence[str]) -> mujoco.MjModel:
    """A copy of the model that environments with fields of their own can share.

    Where the geometry differs, MuJoCo's midphase is off: its tree of boxes around the geoms of a body is
    made once, when the model is compiled, and contacts would be missed.

    Raises:
        SimulatorError: when the model lets bodies sleep, which batches of simulations cannot, or when centres
            of mass differ between environments that the compiler took to be fixed.
    """
    import mujoco

    if model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_SLEEP:
        raise SimulatorError(
            "the model lets bodies sleep, which batched simulators do not support: "
            "spec.option.enableflags &= ~mujoco.mjtEnableBit.mjENBL_SLEEP"
        )
    simple = [model.body(i).name for i in range(model.nbody) if model.body_simple[i] and model.body_dofnum[i]]
    if {"body_ipos", "body_iquat"} & set(model_fields) and simple:
        raise SimulatorError(
            f"bodies {simple} are compiled with their centre of mass in the origin, so body_ipos and "
            "body_iquat cannot differ between environments: add_body(..., simple=False)"
        )
    prepared = copy.copy(model)
    if {"geom_pos", "geom_quat", "geom_size"} & set(model_fields):
        prepared.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE
    return prepared


def force_fields(model: mujoco.MjModel) -> tuple[str, ...]:
    """`FORCE_FIELDS`, and `BODY_FORCE_FIELDS` where the model has a sensor for which MuJoCo computes them."""
    import mujoco

    sensors = mujoco.mjtSensor
    needing = {
        *(sensors.mjSENS_ACCELEROMETER, sensors.mjSENS_FORCE, sensors.mjSENS_TORQUE),
        *(sensors.mjSENS_FRAMELINACC, sensors.mjSENS_FRAMEANGACC),
    }
    has_one = not needing.isdisjoint(int(kind) for kind in model.sensor_type)
    return FORCE_FIELDS + BODY_FORCE_FIELDS if has_one else FORCE_FIELDS


_settled = False


def settle_threads() -> None:
    """Keep torch from taking the CPU away from the simulation threads; does so once in a process.

    Torch's OpenMP threads spin while they wait; beside simulation threads on the same cores that costs up to
    nine tenths of the speed. Small tensors gain nothing from several threads, so torch gets one; set
    ``TUTELAGE_TORCH_THREADS`` to choose another number, or call ``torch.set_num_threads`` after the first
    simulator was made. (`tutelage.envs` also asks OpenMP to wait passively, which works where it is imported
    before torch.)

    Raises:
        SimulatorError: when ``TUTELAGE_TORCH_THREADS`` is no number of threads.
    """
    global _settled
    if _settled:
        return
    chosen = os.environ.get("TUTELAGE_TORCH_THREADS", "1")
    if not (chosen.strip().isdecimal() and int(chosen) > 0):
        raise SimulatorError(
            f"TUTELAGE_TORCH_THREADS is {chosen!r}; set it to a whole number, at least 1, or leave it out"
        )
    torch.set_num_threads(int(chosen))
    _settled = True

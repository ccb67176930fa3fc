"""The simulator protocol: many MuJoCo simulations as one object of tensors, on CPU threads or on a GPU.

Task code (`tutelage.envs.batched.vec_task`) is written against this and runs on both simulators:

- `tutelage.envs.batched.batch_simulator.BatchSimulator`: ``mujoco.batch`` on CPU threads, float64 inside;
- `tutelage.envs.batched.warp_simulator.WarpSimulator`: ``mujoco_warp`` on CUDA, or on Warp's CPU device,
  where the GPU's code path can be tested; float32.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from tutelage.envs.batched.rows import Rows

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
    """

    model: mujoco.MjModel
    num_envs: int
    device: torch.device
    model_fields: tuple[str, ...]

    def read(self, name: str) -> Tensor:
        """A field of ``MjData``, shape ``(num_envs, ...)``; up to date after `step`, `forward`.

        Raises:
            AttributeError: when there is no such field, or the simulator cannot give it.
        """
        ...

    def write(self, name: str, values: Tensor, rows: Rows | None = None) -> None:
        """Set one of `STATE_FIELDS`, in all environments or in some; `values` is ``(rows.n, ...)``.

        Derived fields follow at the next `forward` or `step`.
        """
        ...

    def read_model(self, name: str) -> Tensor:
        """One of `model_fields`, shape ``(num_envs, ...)``."""
        ...

    def write_model(self, name: str, values: Tensor, rows: Rows | None = None) -> None:
        """Set one of `model_fields`; for masses and inertias call `set_constants` afterwards."""
        ...

    def set_constants(self, rows: Rows | None = None) -> None:
        """Recompute what MuJoCo derives from the model (``mj_setConst``) after `write_model`."""
        ...

    def reset(self, rows: Rows) -> None:
        """Bring back the model's initial state, at rest, in these environments; writes come after it."""
        ...

    def forward(self, rows: Rows | None = None) -> None:
        """Bring derived fields (positions, velocities, sensors of both) up to date with the state."""
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
        """Everything that decides the future (``mjSTATE_INTEGRATION``), float64, shape ``(n, size)``."""
        ...

    def restore(self, states: Tensor, rows: Rows | None = None) -> None:
        """Continue from what `save` returned, bit for bit; then as `forward`."""
        ...

    def check(self) -> None:
        """Warn (`SimulatorWarning`, once of each kind) of contacts or constraints that did not fit.

        Waits for the GPU; call it now and then, not in every step.
        """
        ...

    def close(self) -> None:
        """Free threads and memory."""
        ...


def make_simulator(
    model: mujoco.MjModel,
    num_envs: int,
    *,
    device: str | torch.device = "cpu",
    backend: Backend | None = None,
    model_fields: Sequence[str] = (),
    threads: int = 0,
    max_contacts: int = 24,
    max_constraints: int = 96,
) -> Simulator:
    """Make the simulator that fits a device.

    Args:
        model: what to simulate; its integrator should be ``implicitfast`` and its solver Newton, which both
            simulators have.
        num_envs: how many environments.
        device: ``cpu`` or ``cuda``.
        backend: ``batch`` or ``warp``; default: ``batch`` on the CPU, ``warp`` on a GPU.
        model_fields: fields of ``MjModel`` that differ between environments.
        threads: of ``batch``; 0: all CPUs that this process may use.
        max_contacts: of ``warp``: contacts of an environment, on average over all of them.
        max_constraints: of ``warp``: rows of constraints of any one environment.

    Raises:
        SimulatorError: when there is no such GPU, or a package is missing.
        ValueError: when the arguments contradict each other.
    """
    device = torch.device(device)
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, not {num_envs}")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', not {str(device)!r}")
    if backend is None:
        backend = "warp" if device.type == "cuda" else "batch"
    if backend == "batch":
        if device.type == "cuda":
            raise ValueError("mujoco.batch runs on CPU threads; with device='cuda' use backend='warp'")
        from tutelage.envs.batched.batch_simulator import BatchSimulator

        return BatchSimulator(model, num_envs, model_fields=model_fields, threads=threads)
    if backend != "warp":
        raise ValueError(f"unknown backend {backend!r} (known: batch, warp)")
    try:
        from tutelage.envs.batched.warp_simulator import WarpSimulator
    except ImportError as error:
        raise SimulatorError(
            f"mujoco_warp is not installed ({error}): pip install 'tutelage[warp]'"
        ) from error
    return WarpSimulator(
        model,
        num_envs,
        device=device,
        model_fields=model_fields,
        max_contacts=max_contacts,
        max_constraints=max_constraints,
    )


def settle_threads() -> None:
    """Keep torch from taking the CPU away from the simulation threads.

    Torch's OpenMP threads spin while they wait; beside simulation threads on the same cores that costs up to
    nine tenths of the speed. Small tensors gain nothing from several threads, so torch gets one; set
    ``TUTELAGE_TORCH_THREADS`` to choose another number. (`tutelage.envs` also asks OpenMP to wait passively,
    which works where it is imported before torch.)
    """
    torch.set_num_threads(int(os.environ.get("TUTELAGE_TORCH_THREADS", "1")))


def warn_of_simulator(message: str) -> None:
    """Warn in the name of the caller's caller."""
    warnings.warn(message, SimulatorWarning, stacklevel=3)

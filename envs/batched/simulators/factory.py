"""The one place that knows both simulators and picks the one that fits a device."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from tutelage.envs.batched.simulators.simulator import Backend, Simulator, SimulatorError

if TYPE_CHECKING:
    import mujoco


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
        SimulatorError: when there is no such GPU, a package is missing, or the simulator cannot do what the
            model or `model_fields` ask; the message names the cure.
        ValueError: when the arguments contradict each other.
    """
    device = _known_device(device)
    counts = {"num_envs": num_envs, "max_contacts": max_contacts, "max_constraints": max_constraints}
    for name, count in counts.items():
        _check_count(name, count, 1)
    _check_count("threads", threads, 0)
    if backend is None:
        backend = "warp" if device.type == "cuda" else "batch"
    if backend == "batch":
        if device.type == "cuda":
            raise ValueError("mujoco.batch runs on CPU threads; with device='cuda' use backend='warp'")
        from tutelage.envs.batched.simulators.batch_simulator import BatchSimulator

        return BatchSimulator(model, num_envs, model_fields=model_fields, threads=threads)
    if backend != "warp":
        raise ValueError(f"unknown backend {backend!r} (known: batch, warp)")
    try:
        from tutelage.envs.batched.simulators.warp_simulator import WarpSimulator
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


def _known_device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', not {str(device)!r}")
    return found


def _check_count(name: str, count: int, least: int) -> None:
    try:
        fits = operator.index(count) >= least and not isinstance(count, bool)
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must be a whole number, at least {least}, not {count!r}")

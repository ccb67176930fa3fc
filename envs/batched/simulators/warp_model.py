"""What `warp_simulator` needs before it can run: a device, and the model on it."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from dataclasses import fields

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp

from tutelage.envs.batched.simulators.simulator import SimulatorError

_CONSTANTS = (
    *("body_subtreemass", "body_invweight0", "dof_invweight0", "tendon_length0", "tendon_invweight0"),
    *("actuator_acc0", "cam_pos0", "cam_poscom0", "cam_mat0", "light_pos0", "light_poscom0", "light_dir0"),
    *("geom_rbound", "geom_aabb"),
)
"""What `mjw.set_const` writes, so that each environment needs its own."""

_ROWS, _CONTACTS = (
    "raise max_constraints= (now {max_constraints})",
    "raise max_contacts= (now {max_contacts})",
)
OVERFLOWS = {
    "NEFC": ("constraints of an environment", _ROWS),
    "NJMAX_NNZ": ("constraints of an environment", _ROWS),
    "BROADPHASE": ("pairs of geoms near each other", _CONTACTS),
    "NARROWPHASE": ("contacts", _CONTACTS),
    "CCD": ("contacts of boxes, cylinders or meshes", _CONTACTS),
    "HFIELD": (
        "contacts of a geom with a height field",
        "make the field coarser, or the geom smaller",
    ),
    "CONTACT_MATCH": ("contacts that a contact sensor matched", "let the sensor match fewer geoms"),
    "NVMAX": ("moving degrees of freedom", "report it: there should be room for all"),
    "EPA_HORIZON": ("faces found in a deep contact", "use meshes of fewer vertices, or a smaller time step"),
    "TACTILE": ("geoms that touch a tactile sensor", "let fewer geoms touch it"),
}
"""What did not fit, and the cure, by the name of `mjw.OverflowType`."""

UNREMARKABLE = ("ITERATIONS", "LS_ITERATIONS")
"""The other names: limits that the model itself sets (``option.iterations``), of which MuJoCo on the CPU says
nothing either."""

_WARP_NEEDS = ("series R580 or newer", "a GPU of the Turing generation (sm_75) or newer")
"""Driver and GPU that Warp's wheels on PyPI need since they are built with CUDA 13 (Warp 1.19's README)."""


def usable_device(device: torch.device) -> torch.device:
    """The device, with its index.

    Raises:
        SimulatorError: when torch or Warp cannot use it.
    """
    if device.type != "cuda":
        return device
    if torch.version.cuda is None:
        raise SimulatorError(
            "device 'cuda' needs a torch with CUDA, and this one is for CPUs: "
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126"
        )
    if not torch.cuda.is_available():
        raise SimulatorError(
            "device 'cuda' needs an NVIDIA GPU and its driver, and torch finds none: install a driver of "
            f"{_WARP_NEEDS[0]}, and look whether `nvidia-smi` lists the GPU; or use device='cpu'"
        )
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise SimulatorError(
            f"there is no {device}: torch sees {torch.cuda.device_count()} GPUs, counted from cuda:0"
        )
    if not wp.is_cuda_available():
        raise SimulatorError(
            f"torch sees the GPU but Warp does not: its wheels need an NVIDIA driver of {_WARP_NEEDS[0]} and "
            f"{_WARP_NEEDS[1]}. Update the driver (`nvidia-smi` shows its version); or, with an older driver "
            "for CUDA 12, install the wheel of the same Warp whose name has '+cu12', from "
            "https://github.com/NVIDIA/warp/releases"
        )
    return torch.device("cuda", index)


def put_model(original: mujoco.MjModel, num_envs: int, model_fields: Sequence[str]) -> mjw.Model:
    """The model on Warp's present device, with room for the fields that differ between environments.

    Raises:
        SimulatorError: when ``mujoco_warp`` cannot do what the model or `model_fields` ask.
    """
    if original.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
        raise SimulatorError(
            "mujoco_warp has no PGS solver: spec.option.solver = mujoco.mjtSolver.mjSOL_NEWTON"
        )
    ours = [name for name in model_fields if not name.startswith("opt.")]
    batched = {*ours, *_CONSTANTS} if ours else set()
    source = copy.copy(original)
    # What mujoco_warp does in any case: no midphase, and no reset of its own when a simulation diverges.
    source.opt.disableflags &= ~int(
        mujoco.mjtDisableBit.mjDSBL_MIDPHASE | mujoco.mjtDisableBit.mjDSBL_AUTORESET
    )
    try:
        model = mjw.put_model(source, batch_sizes=dict.fromkeys(batched, num_envs))
    except (NotImplementedError, ValueError) as error:
        named = [name for name in ours if repr(name) in str(error)]
        if named:
            raise _not_batched(named[0]) from None
        raise SimulatorError(f"mujoco_warp cannot simulate this model: {error}") from None
    model.opt.warn_overflow = 0  # it would print from the GPU; `check` warns
    for name in model_fields:
        if name.startswith("opt."):
            shared = getattr(model.opt, name[4:], None)
            if not isinstance(shared, wp.array):
                raise _not_batched(name)
            values = np.repeat(shared.numpy(), num_envs, axis=0)
            setattr(model.opt, name[4:], wp.array(values, dtype=shared.dtype))
    return model


def _not_batched(name: str) -> SimulatorError:
    def batched(kind: type) -> list[str]:
        return [f.name for f in fields(kind) if getattr(f.type, "shape", (0,))[0] == "*"]

    known = [*batched(mjw.Model), *(f"opt.{field}" for field in batched(mjw.Option))]
    near = difflib.get_close_matches(name, known, 3)
    hint = f" (near: {', '.join(near)})" if near else ""
    return SimulatorError(f"in mujoco_warp the model field {name!r} cannot differ between environments{hint}")

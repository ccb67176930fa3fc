"""What both simulators check of the fields that users name and write, and the errors for it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import Tensor

from tutelage.envs.batched.simulators.simulator import (
    BODY_FORCE_FIELDS,
    DERIVED_FIELDS,
    FORCE_FIELDS,
    STATE_FIELDS,
)
from tutelage.envs.batched.task.rows import Rows


def cannot_read(name: str, readable: Sequence[str]) -> AttributeError:
    """The error for a field that `Simulator.read` does not offer."""
    if name in BODY_FORCE_FIELDS:
        return AttributeError(
            f"MuJoCo computes {name!r} only for models with a force, torque or acceleration sensor: add one "
            "(spec.add_sensor) to the model"
        )
    if name.startswith("subtree_"):
        return AttributeError(f"{name!r} is computed for sensors alone: add one and read 'sensordata'")
    near = difflib.get_close_matches(name, readable, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"what can: {', '.join(readable)}"
    return AttributeError(f"{name!r} cannot be read; {hint}")


def cannot_write(name: str) -> AttributeError:
    """The error for a field that `Simulator.write` does not offer."""
    derived = name in (*DERIVED_FIELDS, *FORCE_FIELDS, *BODY_FORCE_FIELDS)
    near = [] if derived else difflib.get_close_matches(name, STATE_FIELDS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return AttributeError(f"{name!r} cannot be written, only {', '.join(STATE_FIELDS)}{hint}")


def no_model_field(name: str, model_fields: Sequence[str]) -> AttributeError:
    """The error for a field of the model that all environments share."""
    return AttributeError(
        f"{name!r} is shared by all environments; name it in model_fields "
        f"(now: {', '.join(model_fields) or 'none'})"
    )


def check_values(name: str, values: Tensor, rows: Rows | None, target: Sequence[int], device: str) -> None:
    """Check what is to be written.

    Args:
        name: of the field.
        values: what is to be written.
        rows: where; None: everywhere.
        target: shape of the whole field.
        device: ``cpu`` or ``cuda``, where the field lives.

    Raises:
        ValueError: when shape or device are wrong.
    """
    shape = (target[0] if rows is None else rows.n, *target[1:])
    if tuple(values.shape) != shape:
        raise ValueError(f"values of {name!r} have shape {tuple(values.shape)}, not {shape}")
    if values.device.type != device:
        raise ValueError(f"values of {name!r} are on {values.device}, the simulator on {device}")

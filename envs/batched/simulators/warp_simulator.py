"""MuJoCo on a GPU: ``mujoco_warp`` behind the simulator protocol; also on Warp's CPU device, for tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
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
    SimulatorWarning,
    force_fields,
    prepare_model,
)
from tutelage.envs.batched.simulators.warp_kernels import note_divergence, place_geoms, zero_columns
from tutelage.envs.batched.simulators.warp_model import OVERFLOWS, put_model, usable_device
from tutelage.envs.batched.task.rows import Rows

_SLOW_FIELDS = (
    *("sensordata", "actuator_length", "actuator_velocity", "ten_length", "ten_velocity"),
    *("qfrc_bias", "qfrc_passive"),
)
"""Derived fields that cost half a time step, so that `forward` computes them only once they were read."""

_STATE = int(mjw.State.INTEGRATION)


class WarpSimulator:
    """`num_envs` simulations of one model in ``mujoco_warp``, float32, on a GPU or Warp's CPU device.

    Tensors that `read` and `read_model` return are the simulator's own memory. Steps, resets and the like are
    captured as graphs at their first use, so the first of each takes longer (the very first on a machine
    compiles for half a minute or more; Warp keeps the result on disk). No call but `check` waits for the GPU.

    Results on Warp's CPU device repeat bit for bit; on a GPU they do not, as the order of sums varies.
    On the CPU device use it from one Python thread of a process only: graphs launched from two crash Warp.

    Not in ``mujoco_warp``: the PGS solver, plugins, sleeping, and some more; the error names it.

    Args:
        model: what to simulate; it is copied.
        num_envs: how many simulations.
        device: ``cuda``, ``cuda:1``, ... or ``cpu``.
        model_fields: fields of ``MjModel`` of which every environment gets values of its own; options as
            ``opt.gravity``.
        max_contacts: contacts of an environment, on average over all of them. Pairs of geoms that are near
            each other count too.
        max_constraints: rows of constraints of any one environment.

    Attributes:
        mjw_model, mjw_data: `mujoco_warp.Model` and `Data`, for what the protocol does not offer (rays,
            cameras). Launch kernels on them under `scope`.

    Raises:
        SimulatorError: when there is no such GPU, or ``mujoco_warp`` cannot do what the model or
            `model_fields` ask.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        *,
        device: str | torch.device = "cuda",
        model_fields: Sequence[str] = (),
        max_contacts: int = 24,
        max_constraints: int = 96,
    ) -> None:
        self.device = usable_device(torch.device(device))
        wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
        wp.init()
        self._wp_device = wp.device_from_torch(self.device)
        self.num_envs = num_envs
        self.model_fields = tuple(dict.fromkeys(model_fields))
        self.model = prepare_model(model, self.model_fields)
        self._limits = {"max_contacts": max_contacts, "max_constraints": max_constraints}
        self._template = mujoco.MjData(self.model)
        self._readable = (*STATE_FIELDS, *DERIVED_FIELDS, *force_fields(self.model))
        self._motion_size = mujoco.mj_stateSize(self.model, _STATE)
        self._views: dict[str, Tensor] = {}
        self._graphs: dict[str, wp.Graph] = {}
        self._streams: dict[int, wp.Stream] = {}
        self._slow = False  # whether some of _SLOW_FIELDS was read
        self._warned: set[str] = set()

        with wp.ScopedDevice(self._wp_device):
            self.mjw_model = put_model(self.model, num_envs, self.model_fields)
            self.mjw_data = mjw.make_data(
                self.model, nworld=num_envs, nconmax=max_contacts, njmax=max_constraints
            )
            self._mask = wp.zeros(num_envs, dtype=wp.bool)
            self._diverged = wp.zeros(num_envs, dtype=wp.bool)
            self._overflow = wp.zeros(num_envs, dtype=int)
            self._state = wp.zeros((num_envs, self._motion_size), dtype=float)
            acceleration = np.repeat(
                self.model.sensor_needstage == mujoco.mjtStage.mjSTAGE_ACC, self.model.sensor_dim
            )
            self._derived_sensors: wp.array = wp.array(np.flatnonzero(~acceleration), dtype=int)
            self._static_geoms: wp.array = wp.array(self._moved_static_geoms(), dtype=int)
            # Kernels are loaded now, as a GPU cannot do that during a capture.
            wp.load_module(note_divergence.module.name)
            mjw.step(self.mjw_model, self.mjw_data)
            wp.synchronize_device()
        self._mask_view = wp.to_torch(self._mask)
        self._diverged_view = wp.to_torch(self._diverged)
        self._overflow_view = wp.to_torch(self._overflow)
        self._state_view = wp.to_torch(self._state)
        self._fields = {name: self._view_model(name) for name in self.model_fields}
        # All of them now: a reset clears those that are held here.
        self._forces = [self._view(name) for name in force_fields(self.model)]
        self.state_size = self._motion_size + sum(force[0].numel() for force in self._held())
        self.reset(Rows.all(num_envs, self.device))
        self.forward()

    def read(self, name: str) -> Tensor:
        """A field of ``MjData``, as a view; see `Simulator.read`."""
        if name not in self._views:
            if name not in self._readable:
                raise cannot_read(name, self._readable)
            if name in _SLOW_FIELDS and not self._slow:
                self._slow = True
                self._graphs.clear()
                self.forward()
            self._views[name] = self._view(name)
        return self._views[name]

    def write(self, name: str, values: Tensor, rows: Rows | None = None) -> None:
        """Set a state field; see `Simulator.write`."""
        if name not in STATE_FIELDS:
            raise cannot_write(name)
        self._put(name, self.read(name), values, rows)

    def read_model(self, name: str) -> Tensor:
        """One of `model_fields`, as a view."""
        if name not in self._fields:
            raise no_model_field(name, self.model_fields)
        return self._fields[name]

    def write_model(self, name: str, values: Tensor, rows: Rows | None = None) -> None:
        """Set one of `model_fields`; see `Simulator.write_model`."""
        self._put(name, self.read_model(name), values, rows)

    def set_constants(self, rows: Rows | None = None) -> None:
        """Recompute derived constants (``mj_setConst``), in all environments."""
        self._launch("set_constants", lambda: mjw.set_const(self.mjw_model, self.mjw_data))

    def reset(self, rows: Rows) -> None:
        """Bring back the model's initial state in these environments."""
        self._mask_view.copy_(rows.mask)
        self._launch("reset", lambda: mjw.reset_data(self.mjw_model, self.mjw_data, reset=self._mask))
        for force in self._forces:
            rows.put(force, 0.0)

    def forward(self, rows: Rows | None = None) -> None:
        """Bring derived fields up to date, in all environments."""
        self._launch("forward", self._forward)

    def step(self, substeps: int) -> None:
        """Advance all environments; each number of substeps has a graph of its own."""

        def run() -> None:
            model, data = self.mjw_model, self.mjw_data
            self._place_static_geoms(moved=True)
            for _ in range(substeps):
                mjw.step(model, data)
            self._forward()
            wp.launch(
                note_divergence,
                dim=self.num_envs,
                inputs=[data.qpos, data.qvel, data.qacc, data.overflow],
                outputs=[self._diverged, self._overflow],
            )

        self._launch(f"step {substeps}", run)

    def take_diverged(self) -> Tensor:
        """Which environments diverged since the last call."""
        diverged = self._diverged_view.clone()
        self._diverged_view.zero_()
        return diverged

    def save(self, rows: Rows | None = None) -> Tensor:
        """The integration state and forces, float64; see `Simulator.save`."""
        self._launch("save", lambda: mjw.get_state(self.mjw_model, self.mjw_data, self._state, _STATE))
        parts = [self._state_view, *self._held()]
        chosen = parts if rows is None else [rows.take(part) for part in parts]
        return torch.cat([part.flatten(1) for part in chosen], 1).double()

    def restore(self, states: Tensor, rows: Rows | None = None) -> None:
        """Continue from saved states; see `Simulator.restore`."""
        held = self._held()
        check_values("states", states, rows, (self.num_envs, self.state_size), self.device.type)
        rows = rows or Rows.all(self.num_envs, self.device)
        state, *saved = states.split([self._motion_size, *(force[0].numel() for force in held)], 1)
        rows.put(self._state_view, state)
        self._mask_view.copy_(rows.mask)
        self._launch(
            "restore",
            lambda: mjw.set_state(self.mjw_model, self.mjw_data, self._state, _STATE, active=self._mask),
        )
        for force, values in zip(held, saved, strict=True):
            rows.put(force, values.reshape(len(values), *force.shape[1:]))
        rows.put(self._diverged_view, False)
        self.forward(rows)

    def check(self) -> None:
        """Warn of contacts or constraints that did not fit, once of each kind; waits for the GPU."""
        kinds = [kind for kind in mjw.OverflowType if kind.name in OVERFLOWS]
        bits = torch.tensor([int(kind) for kind in kinds], device=self.device)
        found = ((self._overflow_view[:, None] & bits) != 0).sum(0).tolist()
        for kind, environments in zip(kinds, found, strict=True):
            what, cure = OVERFLOWS[str(kind.name)]
            if environments and what not in self._warned:
                self._warned.add(what)
                warnings.warn(
                    f"{what} did not fit in {environments} of {self.num_envs} environments and were left "
                    f"out: {cure.format(**self._limits)}",
                    SimulatorWarning,
                    stacklevel=2,
                )

    def close(self) -> None:
        """Free graphs; the rest goes with the object."""
        self._graphs.clear()

    def scope(self) -> wp.ScopedStream | wp.ScopedDevice:
        """Where to launch kernels of one's own: on torch's stream, so that both see each other's results."""
        if self.device.type == "cuda":
            return wp.ScopedStream(self._stream(), sync_enter=False)
        return wp.ScopedDevice(self._wp_device)

    def _forward(self) -> None:
        model, data = self.mjw_model, self.mjw_data
        if not self._slow:
            for stage in (mjw.kinematics, mjw.com_pos, mjw.camlight, mjw.com_vel):
                stage(model, data)
            self._place_static_geoms()
            return
        self._place_static_geoms(moved=True)
        mjw.fwd_position(model, data, factorize=False)
        # Sensors are written where they see something, so zero is what they say otherwise.
        wp.launch(
            zero_columns,
            dim=(self.num_envs, len(self._derived_sensors)),
            inputs=[self._derived_sensors],
            outputs=[data.sensordata],
        )
        mjw.sensor_pos(model, data)
        mjw.fwd_velocity(model, data)
        mjw.sensor_vel(model, data)

    def _moved_static_geoms(self) -> NDArray[np.int32]:
        """Geoms fixed to the world, if environments place them differently."""
        if not {"geom_pos", "geom_quat", "body_pos", "body_quat"} & set(self.model_fields):
            return np.zeros(0, dtype=np.int32)
        return np.flatnonzero(self.model.body_weldid[self.model.geom_bodyid] == 0).astype(np.int32)

    def _place_static_geoms(self, *, moved: bool = False) -> None:
        """Put them where their bodies are; `moved`: those may have been moved since the last kinematics."""
        model, data = self.mjw_model, self.mjw_data
        if len(self._static_geoms):
            if moved and {"body_pos", "body_quat"} & set(self.model_fields):
                mjw.kinematics(model, data)
            wp.launch(
                place_geoms,
                dim=(self.num_envs, len(self._static_geoms)),
                inputs=[
                    *(self._static_geoms, model.geom_bodyid, model.geom_pos, model.geom_quat),
                    *(data.xpos, data.xquat),
                ],
                outputs=[data.geom_xpos, data.geom_xmat],
            )

    def _held(self) -> list[Tensor]:
        """What `save` keeps beside the state: forces, and sensors, some of which measure forces."""
        return [*self._forces, self._view("sensordata")]

    def _launch(self, name: str, run: Callable[[], None]) -> None:
        """Run on torch's stream; from the second time on as a captured graph."""
        graph = self._graphs.get(name)
        if graph is None:
            self._graphs[name] = graph = self._capture(run, load=not name.startswith("step"))
        wp.capture_launch(graph, stream=self._stream())

    def _stream(self) -> wp.Stream | None:
        """Torch's present stream on the GPU; None on the CPU."""
        if self.device.type != "cuda":
            return None
        stream = torch.cuda.current_stream(self.device)
        if stream.cuda_stream not in self._streams:
            self._streams[stream.cuda_stream] = wp.stream_from_torch(stream)
        return self._streams[stream.cuda_stream]

    def _capture(self, run: Callable[[], None], *, load: bool) -> wp.Graph:
        """Capture a graph; with `load`, run once before, which must not matter, to load its kernels."""
        with wp.ScopedDevice(self._wp_device):
            wp.synchronize_device()
            if load:
                run()
            with wp.ScopedCapture() as capture:
                run()
            wp.synchronize_device()
        return capture.graph

    def _view(self, name: str) -> Tensor:
        shape = np.shape(getattr(self._template, name))
        return wp.to_torch(getattr(self.mjw_data, name)).view(self.num_envs, *shape)

    def _view_model(self, name: str) -> Tensor:
        source, field = _owner(self.mjw_model, name)
        original, _ = _owner(self.model, name)
        return wp.to_torch(getattr(source, field)).view(self.num_envs, *np.shape(getattr(original, field)))

    def _put(self, name: str, target: Tensor, values: Tensor, rows: Rows | None) -> None:
        check_values(name, values, rows, target.shape, self.device.type)
        if rows is None:
            target.copy_(values)
        else:
            rows.put(target, values.detach())


def _owner(model: mujoco.MjModel | mjw.Model, name: str) -> tuple[object, str]:
    """The object that has a field of the model, and its name there."""
    return (model.opt, name[4:]) if name.startswith("opt.") else (model, name)

"""What a step does on a GPU never waits for it: no value is read on the host, or fetched from there."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.envs.batched.adaptors.isaac_tensors import IsaacTensors
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.batched.worlds.catalogue import VEC_TASKS, make_vec_task

WAITING = (
    *("_local_scalar_dense", "nonzero", "masked_select", "unique", "repeat_interleave.Tensor"),
    "lift_fresh",  # a tensor of Python numbers
)
INDEXING = ("aten.index.Tensor", "aten.index_put", "aten._index_put_impl_")
ONLY_ON_THE_CPU = ("check_actions", "copy_without")  # which read values there alone


class HostTraffic(TorchDispatchMode):
    """Notes operations that would make a GPU wait, with the place in our code that caused them.

    Those are: reading a value; making a tensor of Python numbers; and indexing by a mask, or assigning a
    number by index. What `BatchSimulator` does inside never runs on a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if any(part in name for part in WAITING) or _waits_by_indexing(name, args):
            self._note(name, number=name.startswith("aten.lift_fresh") and args[0].ndim == 0)
        return func(*args, **(kwargs or {}))

    def _note(self, name: str, number: bool) -> None:
        frame = sys._getframe(2)
        while "torch" in frame.f_code.co_filename.split("/") and frame.f_back:
            frame = frame.f_back
        # ``tensor[:, 1] = number`` fills; were a tensor among the indices, `_waits_by_indexing` would tell.
        if number and dis.opname[frame.f_code.co_code[frame.f_lasti]] == "STORE_SUBSCR":
            return
        while frame.f_back and "batched" not in frame.f_code.co_filename.split("/"):
            frame = frame.f_back
        path, function = frame.f_code.co_filename, frame.f_code.co_name
        if not path.endswith("batch_simulator.py") and function not in ONLY_ON_THE_CPU:
            self.found.add(f"{path.rpartition('/')[2]}:{frame.f_lineno} {function}: {name}")


def _waits_by_indexing(name: str, args: Any) -> bool:
    if not name.startswith(INDEXING):
        return False
    indices = [index for index in args[1] if index is not None]
    number = "put" in name and args[2].ndim == 0
    return number or any(index.dtype in (torch.bool, torch.uint8) for index in indices)


@contextmanager
def host_traffic() -> Iterator[set[str]]:
    with HostTraffic() as mode:
        yield mode.found


@pytest.fixture(autouse=True)
def by_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps as on a GPU."""
    monkeypatch.setattr(VecTask, "_rows_of", lambda self, done: Rows.of_mask(done))


@pytest.mark.parametrize("name", VEC_TASKS)
def test_a_step_of_a_task_leaves_the_host_alone(name: str) -> None:
    task = make_vec_task(name, 4, threads=1, view_noise={"policy": 0.1})
    actions = task.zero_actions()
    task.step(actions)
    task.progress_buf[1] = task.max_episode_length - 1  # so that an episode ends
    with host_traffic() as found:
        _, _, reset, _ = task.step(actions)
    assert reset[1] == 1
    assert found == set()


def test_a_step_of_a_walker_with_all_of_its_parameters_leaves_the_host_alone() -> None:
    names = ("height", "spacing", "gap", "stair", "slope")
    task = make_vec_task("stump-walker", 4, threads=1, parameters=names)
    task.step(task.zero_actions())
    with host_traffic() as found:
        task.step(task.zero_actions())
    assert found == set()


def test_isaac_tensors_leave_the_host_alone() -> None:
    task = make_vec_task("lift-object", 3, threads=1)
    isaac = IsaacTensors(task.sim)
    some, dofs = torch.tensor([0, 3]), torch.zeros(3 * isaac.ndof)
    with host_traffic() as found:
        isaac.refresh_actor_root_state()
        isaac.refresh_dof_state()
        isaac.refresh_rigid_body_state()
        isaac.set_actor_root_state_tensor_indexed(isaac.root_states, some)
        isaac.set_dof_state_tensor_indexed(isaac.dof_state, some)
        isaac.set_dof_position_target_tensor(dofs)
        isaac.set_dof_position_target_tensor_indexed(dofs, some)
        isaac.set_dof_actuation_force_tensor(dofs)
        isaac.set_dof_actuation_force_tensor_indexed(dofs, some)
    assert found == set()


def _read(values: Tensor) -> None:
    values[0].item()


def _branch(values: Tensor) -> None:
    if values.sum() > 0:
        values += 1


def _choose(values: Tensor) -> None:
    values[values > 0]


def _pick(values: Tensor) -> None:
    values[[0, 2]]


def _assign(values: Tensor) -> None:
    values[torch.arange(2)] = 1.0


def _constant(values: Tensor) -> None:
    values + torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize("waits", [_read, _branch, _choose, _pick, _assign, _constant])
def test_what_waits_is_found(waits: Any) -> None:
    with host_traffic() as found:
        waits(torch.arange(3.0))
    assert found
    assert all(waits.__name__ in one for one in found)


def test_what_does_not_wait_is_not() -> None:
    index, mask = torch.arange(2), torch.tensor([True, False, True])
    with host_traffic() as found:
        values = torch.zeros(3, 2)
        values[index] = torch.ones(2, 2)
        values[:, 1] = 3.0
        values.index_fill_(0, index, 2.0)
        torch.where(mask[:, None], values, 0.0)[:, 0:2].repeat_interleave(2)
    assert found == set()

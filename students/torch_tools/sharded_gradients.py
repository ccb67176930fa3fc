"""Gradients of a minibatch that is cut into shards, which threads compute side by side.

Convolutions of small images gain nothing from more threads each: handing over costs more than is shared out.
What does gain is whole passes, forwards and backwards, side by side. Torch lets go of Python's lock in each
operation, so threads of one process are enough, and weights and frames are shared as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from tutelage.students.torch_tools.threads import available_cores, torch_threads

Module = TypeVar("Module", bound=nn.Module)

ShardLoss = Callable[[Module], tuple[Tensor, Tensor]]
"""The network to a shard's weighted sum of losses, with a gradient, and the sum of the weights."""


class ShardedGradients(Generic[Module]):
    """Computes the gradient of a mean loss, shard by shard, in threads.

    ::

        grad = sum_k grad S_k / sum_k W_k        S_k: sum of shard k's losses, W_k: of their weights

    Each shard has a replica of the network, which has the same weights, in the same memory, but gradients of
    its own. They are added in the order of the shards, not of their ends: the same shards give the same
    gradient, bit for bit, with any number of threads.

    Args:
        module: whose gradients are wanted. Replicas are made anew when its parameters or buffers are no
            longer where they were, or others, or when parameters have been frozen or freed.
        threads: that work at shards; 0 for all cores that this process may use. No more are used than there
            are cores.

    Raises:
        ValueError: for a negative number of threads.

    Example:
        >>> linear = nn.Linear(1, 1, bias=False)
        >>> gradients = ShardedGradients(linear, threads=2)
        >>> def of(*inputs: float) -> ShardLoss[nn.Linear]:
        ...     column = torch.tensor(inputs)[:, None]
        ...     return lambda replica: (replica(column).sum(), torch.tensor(float(len(column))))
        >>> _ = gradients([of(1.0), of(2.0, 6.0)])
        >>> linear.weight.grad  # the mean of 1, 2 and 6
        tensor([[3.]])
    """

    def __init__(self, module: Module, threads: int = 0) -> None:
        if threads < 0:
            raise ValueError(f"threads must be at least 1, or 0 for all cores, not {threads}")
        self.threads = min(threads or available_cores(), available_cores())
        self._replicas = [module]
        self._places = _places(module)
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, shards: Sequence[ShardLoss[Module]]) -> Tensor:
        """Set the gradients of the module's parameters; return the mean loss.

        Args:
            shards: at least one; each is called once, perhaps in another thread, with the module or a
                replica. None may draw random numbers from a generator that another uses.
        """
        if self._places != (places := _places(self._replicas[0])):
            self._replicas, self._places = self._replicas[:1], places
        while len(self._replicas) < len(shards):
            self._replicas.append(_replica(self._replicas[0]))
        replicas = self._replicas[: len(shards)]
        with torch_threads(1):
            if self.threads == 1 or len(shards) == 1:
                sums = [_backward(*pair) for pair in zip(replicas, shards, strict=True)]
            else:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(
                        self.threads, initializer=torch.set_num_threads, initargs=(1,)
                    )
                sums = list(self._pool.map(_backward, replicas, shards))
            losses, weights = (torch.stack(column).sum() for column in zip(*sums, strict=True))
            total = weights.clamp(min=1e-8)
            with torch.no_grad():
                _add_gradients(replicas)
                torch._foreach_div_([p.grad for p in replicas[0].parameters() if p.grad is not None], total)
        return losses / total


def _backward(module: Module, shard: ShardLoss[Module]) -> tuple[Tensor, Tensor]:
    """Set the module's gradients to those of one shard."""
    module.zero_grad(set_to_none=True)
    loss, weight = shard(module)
    loss.backward()
    return loss.detach(), weight.detach()


def _replica(module: Module) -> Module:
    """The same network, on the same weights and buffers; gradients are its own."""
    replica = copy.deepcopy(module)
    for mine, shared in zip(replica.parameters(), module.parameters(), strict=True):
        mine.data = shared.data
    for mine_buffer, shared_buffer in zip(replica.buffers(), module.buffers(), strict=True):
        mine_buffer.data = shared_buffer.data
    return replica


def _places(module: nn.Module) -> list[tuple[int, bool]]:
    """Where a module's parameters and buffers are in memory, and whether they want gradients."""
    return [(tensor.data_ptr(), tensor.requires_grad) for tensor in (*module.parameters(), *module.buffers())]


def _add_gradients(replicas: Sequence[nn.Module]) -> None:
    """Add the gradients of all to those of the first, in order."""
    first = list(replicas[0].parameters())
    for replica in replicas[1:]:
        pairs = [
            (mine, p.grad) for mine, p in zip(first, replica.parameters(), strict=True) if p.grad is not None
        ]
        for mine, gradient in pairs:
            mine.grad = gradient if mine.grad is None else mine.grad.add_(gradient)

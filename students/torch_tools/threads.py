"""The number of threads that torch uses, which differs between the parts of a training loop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def available_cores() -> int:
    """Count the cores that this process may use: no more than its affinity allows, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside, no more than there are cores; as many as before afterwards.

    Large networks gain from two threads and more. Roll-outs, of many small operations, and convolutions of
    small images do not: threads that wait for one another are slower than one, and all the more on a machine
    that is shared. What does gain is `tutelage.students.torch_tools.sharded_gradients`.

    Args:
        count: at least 1; 0 for all cores that this process may use.

    Raises:
        ValueError: for a negative number.
    """
    if count < 0:
        raise ValueError(f"count must be at least 1, or 0 for all cores, not {count}")
    before = torch.get_num_threads()
    torch.set_num_threads(min(count or available_cores(), available_cores()))
    try:
        yield
    finally:
        torch.set_num_threads(before)

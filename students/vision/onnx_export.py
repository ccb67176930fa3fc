"""Vision students as ONNX files, which run without tutelage and without torch."""

from __future__ import annotations

import copy
import dataclasses
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutelage.envs.contract.state import atomic_file

if TYPE_CHECKING:
    from tutelage.students.vision.vision_student import VisionStudent

TOLERANCE = 1e-3  # of actions from -1 to 1: float32 sums in another order
MEMORY = "memory"


def export_onnx(student: VisionStudent, path: str | Path) -> float:
    """Write a student's deterministic policy as an ONNX file, and check it against torch on random inputs.

    Inputs have the names of the views, with any number `n` of rows in front: RGB uint8 ``(n, height, width,
    3)``, depth float32 ``(n, height, width)`` in metres, stacked frames ``(n, frames, ...)`` oldest first,
    the vector float32 ``(n, size)``; and of students with memory ``memory``, float32 ``(n, units)``. Outputs
    are ``actions``, clipped to [-1, 1], and with memory ``next_memory``. It computes
    in float32. A student that sees ``front/rgb`` and ``policy`` and has a memory of 128 units runs as::

        import numpy as np
        import onnxruntime

        policy = onnxruntime.InferenceSession("student.onnx")
        memory = np.zeros((1, 128), np.float32)  # when an episode begins
        while True:
            image, joints = camera.read(), robot.read()  # uint8 (64, 64, 3), float32 (15,)
            inputs = {"front/rgb": image[None], "policy": joints[None], "memory": memory}
            actions, memory = policy.run(None, inputs)
            robot.move(actions[0])

    The check uses onnxruntime where it is installed, or else the reference evaluator of onnx.

    Args:
        student: is not changed.
        path: of the file; its folder is made.

    Returns:
        The largest deviation of an action, or of the memory, from torch.

    Raises:
        RuntimeError: when a package is missing, or the file computes something else; it is not kept then.
    """
    try:
        import onnxscript  # noqa: F401  # what torch exports with
    except ImportError as error:
        raise RuntimeError(
            f"ONNX export needs two packages ({error}): pip install onnx onnxscript"
        ) from error
    policy = _Policy(student)
    inputs = policy.random_inputs(3, seed=0)
    outputs = ["actions", "next_memory"][: 2 if policy.memory else 1]
    with atomic_file(Path(path)) as part:
        with torch.no_grad(), _quiet():
            torch.onnx.export(
                policy,
                tuple(inputs.values()),
                part,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=(tuple({0: torch.export.Dim("n", min=1)} for _ in inputs),),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        deviation = _deviation(policy, part)
        if not deviation <= TOLERANCE:
            raise RuntimeError(f"the ONNX file deviates from torch by {deviation:g}, so it was not kept")
    return deviation


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's hints about packages that other networks would need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Policy(nn.Module):
    """A student as a function of tensors alone, in float32 and on the CPU."""

    def __init__(self, student: VisionStudent) -> None:
        super().__init__()
        self.student = copy.deepcopy(student).cpu().eval()
        self.student.config = dataclasses.replace(student.config, precision="float32")
        self.memory = student.config.memory
        vector = student.config.vector
        self.views = [*student.config.images, *([vector] if vector else [])]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Actions, and the next memory where there is one."""
        state = self.student.start(inputs[0].shape[0])  # len() would fix the size of the batch
        if self.memory:
            state = dataclasses.replace(state, memory=inputs[-1])
        output = self.student(dict(zip(self.views, inputs, strict=False)), state)
        actions = output.mean.clamp(-1.0, 1.0)
        return (actions, output.state.memory) if self.memory else (actions,)

    def random_inputs(self, n: int, seed: int) -> dict[str, Tensor]:
        """Inputs by name, in order: bytes, depths from 0 to 4 m, one of them infinite, and normal numbers."""
        generator = torch.Generator().manual_seed(seed)
        config, inputs = self.student.config, {}
        for name in self.views:
            shape = self.student.shapes[name]
            stack = (config.frames,) if name in config.images and config.frames > 1 else ()
            size = (n, *stack, *shape)
            if len(shape) == 3:
                inputs[name] = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
            elif len(shape) == 2:
                inputs[name] = 4 * torch.rand(size, generator=generator)
                inputs[name].view(-1)[0] = torch.inf
            else:
                inputs[name] = torch.randn(size, generator=generator)
        if self.memory:
            inputs[MEMORY] = torch.randn(n, self.memory, generator=generator).tanh()
        return inputs


def _deviation(policy: _Policy, path: Path) -> float:
    """Largest difference between a file and torch, on batches of three sizes."""
    largest = 0.0
    for n in (1, 2, 5):
        inputs = policy.random_inputs(n, seed=n)
        with torch.no_grad():
            expected = policy(*inputs.values())
        outputs = run_onnx(path, {name: part.numpy() for name, part in inputs.items()})
        for ours, theirs in zip(expected, outputs, strict=True):
            largest = max(largest, float(np.abs(ours.numpy() - theirs).max()))
    return largest


def run_onnx(path: str | Path, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs of an ONNX file, by onnxruntime where it is installed, or else, slowly, by onnx itself."""
    try:
        import onnxruntime  # type: ignore[import-not-found]
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(str(path))
        return list(evaluator.run(None, inputs))
    return list(onnxruntime.InferenceSession(str(path)).run(None, inputs))

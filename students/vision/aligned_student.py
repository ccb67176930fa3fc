"""A vision student whose head is a frozen expert's network, with adapters between its layers.

`tutelage.students.distillation.feature_alignment` trains it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from tutelage.envs.contract.state import StateError, write_json
from tutelage.students.vision.vision_config import VisionConfig, vision_config_from_json
from tutelage.students.vision.vision_student import DESCRIPTION, HEAD, WEIGHTS, VisionStudent
from tutelage.teachers.experts.mlp_expert import ExpertConfig, MLPExpert, NormalizedMLP, read_view

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask


class Thought(NamedTuple):
    """Hidden features and actions of a network for its observations.

    Attributes:
        view: the expert's observations, normalised as the expert does, ``(n, num_obs)``.
        features: after each hidden layer, ``(n, width)``.
    """

    view: Tensor
    features: tuple[Tensor, ...]


class AdaptedHead(nn.Module):
    """A frozen expert's layers, fed with the features of a student.

    ::

        raw --> linear + MLP --> expert's view --> [frozen layer --> + adapter] ... --> frozen layer --> mean
         '----------------------------------------------------'  of every hidden layer

    Each adapter is a bottleneck, ``linear - ELU - linear``, of the layer's features and the raw ones; its
    result, 0 before training, is added to the layer's features. The linear path beside the MLP lets what the
    student feels, and the expert knows too, pass as it is. The mean is clipped to [-1, 1], as tasks do with
    actions, but gradients pass through.

    Args:
        inputs: size of the raw features.
        expert: the expert's actor; copied, frozen, and never changed.
        hidden: widths of the MLP that predicts the expert's view.
        bottleneck: width of the adapters.

    Raises:
        ValueError: when the bottleneck is not at least 1.
    """

    def __init__(self, inputs: int, expert: NormalizedMLP, hidden: tuple[int, ...], bottleneck: int) -> None:
        super().__init__()
        if bottleneck < 1:
            raise ValueError(f"bottleneck must be at least 1, not {bottleneck}")
        self.expert = copy.deepcopy(expert).requires_grad_(False).eval()
        self._watched: list[Thought] | None = None
        size = len(expert.mean)
        layers: list[nn.Module] = []
        last = inputs
        for width in hidden:
            layers += [nn.Linear(last, width), nn.ELU()]
            last = width
        self.predict = nn.Sequential(*layers, nn.Linear(last, size))
        self.linear = nn.Linear(inputs, size, bias=False)
        self.adapters = nn.ModuleList()
        for width in [layer.out_features for layer in expert.layers if isinstance(layer, nn.Linear)][:-1]:
            last_layer = nn.Linear(bottleneck, width)
            nn.init.zeros_(last_layer.weight)
            nn.init.zeros_(last_layer.bias)
            self.adapters.append(nn.Sequential(nn.Linear(width + inputs, bottleneck), nn.ELU(), last_layer))

    def forward(self, raw: Tensor) -> Tensor:
        """Mean actions ``(n, a)`` in [-1, 1] of raw features ``(n, inputs)``."""
        view = self.predict(raw) + self.linear(raw)
        feature, features = view, []
        for block, adapter in zip(self._blocks(), self.adapters, strict=True):
            feature = block(feature)
            feature = feature + adapter(torch.cat([feature, raw], 1))
            features.append(feature)
        if self._watched is not None:
            self._watched.append(Thought(view, tuple(features)))
        mean: Tensor = self.expert.layers[-1](feature)
        return mean + (mean.clamp(-1, 1) - mean).detach()

    @torch.no_grad()
    def think(self, view: Tensor) -> tuple[Thought, Tensor]:
        """Return the expert's own features of its view, ``(n, num_obs)`` as in ``obs_dict``, and mean actions
        before clipping.
        """
        expert = self.expert
        normal = (view - expert.mean) / expert.scale
        if expert.clip is not None:
            normal = normal.clamp(-expert.clip, expert.clip)
        feature = normal = normal.to(torch.float32)
        features = []
        for block in self._blocks():
            feature = block(feature)
            features.append(feature)
        return Thought(normal, tuple(features)), expert.layers[-1](feature)

    @contextmanager
    def watching(self) -> Iterator[list[Thought]]:
        """Collect the features of each `forward` inside, with gradients."""
        self._watched = []
        try:
            yield self._watched
        finally:
            self._watched = None

    def _blocks(self) -> list[nn.Sequential]:
        """The expert's hidden layers, each with its activation."""
        layers = list(self.expert.layers)
        return [nn.Sequential(*layers[i : i + 2]) for i in range(0, len(layers) - 1, 2)]


class AlignedStudent(VisionStudent):
    """A `VisionStudent` whose actions come out of a frozen expert's network.

    It predicts what the expert would see; behind each hidden layer of the expert's MLP an adapter corrects
    the features, see `AdaptedHead`. Everything else, from memory to ONNX export, is as in `VisionStudent`;
    the expert's network is saved with it. ::

        student = AlignedStudent.of_expert(VisionConfig(images=("front/rgb",)), task, expert)
        result = feature_alignment.distil(task, expert, student, config, seed=0)
        student.save("runs/reach-aligned")
        student = AlignedStudent.load("runs/reach-aligned")

    Args:
        config: what it is; ``hidden`` are the widths of the MLP that predicts the expert's view.
        shapes: view -> shape of one environment's part of it.
        expert: the expert, or its config alone, where the network is loaded afterwards.
        bottleneck: width of the adapters.
        seed: of the first weights; global generators stay as they are.

    Raises:
        ValueError: when a view is missing or of a shape that does not fit, or the expert has no hidden layer.
    """

    actor: AdaptedHead  # type: ignore[assignment]

    def __init__(
        self,
        config: VisionConfig,
        shapes: Mapping[str, tuple[int, ...]],
        expert: MLPExpert | ExpertConfig,
        bottleneck: int = 64,
        seed: int = 0,
    ) -> None:
        self.expert_config = expert.config if isinstance(expert, MLPExpert) else expert
        if not self.expert_config.hidden:
            raise ValueError("the expert has no hidden layers whose features could be aligned; use DAgger")
        super().__init__(config, shapes, self.expert_config.num_actions, seed)
        self.bottleneck = bottleneck
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = expert.actor if isinstance(expert, MLPExpert) else _network(expert)
            raw = self.actor[0].in_features  # type: ignore[index]
            self.actor = AdaptedHead(raw, network, config.hidden, bottleneck)

    @staticmethod
    def of_expert(
        config: VisionConfig, task: VecTask, expert: MLPExpert, bottleneck: int = 64, seed: int = 0
    ) -> AlignedStudent:
        """Make one for the views of a task and the network of an expert, on the task's device.

        Raises:
            ValueError: when the task has no such view, and names the nearest; or the expert no hidden layer.
        """
        shapes = {name: tuple(view.shape[1:]) for name, view in task.obs_dict.items()}
        return AlignedStudent(config, shapes, expert, bottleneck, seed).to(task.device)

    def check_head(self, task: VecTask) -> None:
        """Check that a task shows the view of the head's expert, to learn from.

        Raises:
            ValueError: when it does not, or in another size.
        """
        config = self.expert_config
        read_view(config.view, config.num_obs, task.obs_dict, f"the observations of {type(task).__name__}")

    def save(self, folder: str | Path) -> None:
        """Write the files of `VisionStudent.save`, and beside them the sizes of the expert's network."""
        description = {"expert": asdict(self.expert_config), "bottleneck": self.bottleneck}
        write_json(Path(folder) / HEAD, description)
        self._write(folder)

    @staticmethod
    def load(folder: str | Path, device: str | torch.device = "cpu") -> AlignedStudent:
        """Read the files of `save`; executes no code.

        Raises:
            FileNotFoundError: when there is no such file.
            StateError: when a file is truncated, foreign, or does not fit the others.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            head = json.loads((Path(folder) / HEAD).read_text())
            description = json.loads((Path(folder) / DESCRIPTION).read_text())
            expert: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in head["expert"].items()
            }
            shapes = {name: tuple(shape) for name, shape in description["shapes"].items()}
            student = AlignedStudent(
                vision_config_from_json(description["config"]),
                shapes,
                ExpertConfig(**expert),
                int(head["bottleneck"]),
            )
            student.load_state_dict(load_file(Path(folder) / WEIGHTS))
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise StateError(f"{folder} holds no aligned student that can be loaded: {error}") from None
        return student.to(device)


def load_vision_student(folder: str | Path, device: str | torch.device = "cpu") -> VisionStudent:
    """Read a vision student, plain or aligned, from its folder; executes no code.

    Raises:
        FileNotFoundError: when there is no such file.
        StateError: when a file is truncated, foreign, or does not fit the others.
    """
    folder = Path(folder)
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"there is no student at {folder}: it has no {name}; name the folder that a student was "
                "saved to, such as OUT/student of `tutelage data train`"
            )
    kind = AlignedStudent if (folder / HEAD).exists() else VisionStudent
    return kind.load(folder, device)


def _network(config: ExpertConfig) -> NormalizedMLP:
    """An expert's actor, of the right sizes, to be loaded."""
    return NormalizedMLP(config.num_obs, config.hidden, config.num_actions, config.activation, config.clip)

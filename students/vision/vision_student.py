"""Students that see: an image encoder, the robot's own joints, perhaps a memory, and a head for actions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from tutelage.envs.contract.names import unknown_name
from tutelage.envs.contract.state import StateError, atomic_file, write_json
from tutelage.students.vision.critics import Critic
from tutelage.students.vision.encoders import ENCODERS, Encoder, fast_bfloat16
from tutelage.students.vision.pixels import input_size, to_pixels
from tutelage.students.vision.predictor import Predictor
from tutelage.students.vision.student_state import StudentOutput, StudentState
from tutelage.students.vision.vision_config import (
    STUDENT_VIEW,
    VisionConfig,
    vision_config_from_json,
)

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask

WEIGHTS, DESCRIPTION = "student.safetensors", "student.json"
HEAD = "expert_head.json"
"""Beside these where the student is an `AlignedStudent`: what the network of its expert is like."""


class VisionStudent(nn.Module):
    """A policy that sees images and a vector, and acts.

    ::

        images -> encoders -.
        vector -------------+-> [GRU, with what went in beside what comes out] -+-> MLP -> mean
        parameter -> std                                                        '-> in training: MLP -> a view
        critic view -> normalised -> MLP -> value

        student = VisionStudent.of_task(VisionConfig(images=("front/rgb",)), task)
        state = student.start(task.num_envs)
        actions, state = student.act(obs_dict, state)
        obs_dict, rew, dones, extras = task.step(actions)
        state = state.reset(dones)

    The encoder computes in bfloat16 where `precision` allows it; all the rest, and every output, is float32.
    Pixels are channels last in memory, which is as images are stored: bytes are used without a copy.

    Args:
        config: what it is.
        shapes: view -> shape of one environment's part of it; at least of all views in `config`. RGB is
            ``(height, width, 3)``, depth ``(height, width)``.
        num_actions: size of an action.
        seed: of the first weights; global generators stay as they are.

    Raises:
        ValueError: when a view is missing or of a shape that does not fit; names the nearest.
    """

    def __init__(
        self, config: VisionConfig, shapes: Mapping[str, tuple[int, ...]], num_actions: int, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.num_actions = config, num_actions
        for name in config.views:
            if name not in shapes:
                raise ValueError(unknown_name("view", name, list(shapes)))
        self.shapes = {name: tuple(shapes[name]) for name in config.views}
        sizes = [input_size(names, self.shapes, config.frames, config.opponents) for names in config.inputs]
        for view in config.vectors:
            if len(self.shapes[view]) != 1:
                raise ValueError(f"{view!r} must be a vector, but has shape {self.shapes[view]}")

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            options = {}
            if config.encoder == "points":
                options = {"fovy": config.fovy, "depth_far": config.depth_far}
            self.encoders = nn.ModuleList(ENCODERS[config.encoder](*size, **options) for size in sizes)
            self.encoders.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            inputs = sum(encoder.features for encoder in self._encoders)
            inputs += self.shapes[config.vector][0] if config.vector else 0
            self.gru = nn.GRUCell(inputs, config.memory) if config.memory else None
            self.actor = _mlp(inputs + config.memory, config.hidden, num_actions)
            with torch.no_grad():
                for parameter in self.actor[-1].parameters():
                    parameter.mul_(0.1)  # first actions are small
            self.predictor: Predictor | None = None
            if config.predicts is not None:
                size = self.shapes[config.predicts][0]
                self.predictor = Predictor(config.predicts, inputs + config.memory, size)
            self.log_std: nn.Parameter | None = None
            if config.head == "gaussian":
                self.log_std = nn.Parameter(torch.full((num_actions,), config.init_std).log())
            self.critic: Critic | None = None
            if (judged := config.critic_view) is not None:
                seen = inputs + config.memory if judged == STUDENT_VIEW else self.shapes[judged][0]
                self.critic = Critic(seen, config.critic_hidden, config.critic_activation, config.critic_clip)

    @staticmethod
    def of_task(config: VisionConfig, task: VecTask, seed: int = 0) -> VisionStudent:
        """Make one for the views and actions of a task, on its device.

        Raises:
            ValueError: when the task has no such view; names the nearest.
        """
        shapes = {name: tuple(view.shape[1:]) for name, view in task.obs_dict.items()}
        return VisionStudent(config, shapes, task.num_actions, seed).to(task.device)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def computes_bfloat16(self) -> bool:
        """Whether the encoder computes in bfloat16 here."""
        precision = self.config.precision
        if precision == "auto" and all(encoder.takes_bfloat16 for encoder in self._encoders):
            return fast_bfloat16(self.device.type)
        return precision == "bfloat16"

    def start(self, n: int) -> StudentState:
        """The state of `n` students before their first step: nothing is remembered."""
        device, config = self.device, self.config
        frames = {}
        for name in config.images if config.frames > 1 else ():
            shape = self.shapes[name]
            kind = torch.uint8 if len(shape) == 3 else torch.float32
            frames[name] = torch.zeros(n, config.frames, *shape, dtype=kind, device=device)
        memory = torch.zeros(n, config.memory, device=device)
        return StudentState(frames, memory, torch.ones(n, dtype=torch.bool, device=device))

    @torch.no_grad()
    def act(
        self,
        obs_dict: Mapping[str, Tensor],
        state: StudentState,
        deterministic: bool = True,
        generator: Generator | None = None,
    ) -> tuple[Tensor, StudentState]:
        """Choose actions for the present observations of a task.

        Args:
            obs_dict: of the task: single frames.
            state: of the step before, reset where an episode ended.
            deterministic: the mean; or else, of Gaussian students, a draw.
            generator: of draws, on the student's device.

        Returns:
            Actions ``(n, a)``, clipped to [-1, 1], and the next state.

        Raises:
            ValueError: for a draw from a deterministic student, or without a generator; for views of
                another shape or type.
        """
        if not deterministic and (self.log_std is None or generator is None):
            raise ValueError("drawing actions needs head='gaussian' and a generator")
        state = state.push(obs_dict)
        hidden, state = self._remember(self.see({**obs_dict, **state.frames}), state)
        actions: Tensor = self.actor(hidden)
        if not deterministic and self.log_std is not None:
            noise = torch.randn(actions.shape, generator=generator, device=actions.device)
            actions = actions + self.log_std.exp() * noise
        return actions.clamp(-1, 1), state

    def forward(self, inputs: Mapping[str, Tensor], state: StudentState) -> StudentOutput:
        """Compute the output for a batch, with gradients.

        Args:
            inputs: as ``obs_dict``, but with stacked frames, if any, ``(n, frames, *image)``, oldest first.
                The critic's view may be missing.
            state: only its memory is used.

        Raises:
            ValueError: for views of another shape or type.
        """
        hidden, state = self._remember(self.see(inputs), state)
        return self._output(hidden, inputs, state)

    def forward_sequence(
        self, inputs: Mapping[str, Tensor], state: StudentState, started: Tensor | None = None
    ) -> StudentOutput:
        """Compute outputs of sequences, with gradients through time: all images, then the memory by steps.

        Args:
            inputs: as of `forward`, with time in front: ``(T, n, ...)``.
            state: before the first step; detach it to truncate back-propagation there.
            started: where a step begins an episode, bool ``(T, n)``; the memory is zeroed before it.

        Returns:
            All with time in front, but the state, which is that after the last step.
        """
        length, n = next(iter(inputs.values())).shape[:2]
        flat = {name: part.flatten(0, 1) for name, part in inputs.items()}
        steps = []
        for t, seen in enumerate(self.see(flat).unflatten(0, (length, n))):
            state = state if started is None else state.reset(started[t])
            hidden, state = self._remember(seen, state)
            steps.append(hidden)
        output = self._output(torch.cat(steps), flat, state)
        parts = (output.mean, output.std, output.value, output.predicted)
        mean, std, value, predicted = (None if x is None else x.unflatten(0, (length, n)) for x in parts)
        assert mean is not None
        return StudentOutput(mean, std, value, state, predicted)

    def see(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The first half of `forward`: features of the images, then the vector, float32 ``(n, inputs)``."""
        config = self.config
        parts = [
            self._encode(encoder, names, inputs)
            for encoder, names in zip(self._encoders, config.inputs, strict=True)
        ]
        if config.vector is None:
            return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        vector, shape = inputs[config.vector], self.shapes[config.vector]
        if tuple(vector.shape[1:]) != shape:
            raise ValueError(
                f"{config.vector!r} has shape {tuple(vector.shape)}; this student sees (n, {shape[0]})"
            )
        return torch.cat([*parts, vector], 1)

    def _encode(self, encoder: Encoder, names: tuple[str, ...], inputs: Mapping[str, Tensor]) -> Tensor:
        """Features of what an encoder sees, ``(n, features)``."""
        low, config = self.computes_bfloat16, self.config
        kind = torch.bfloat16 if low else torch.float32
        pixels = to_pixels(
            names, inputs, self.shapes, config.frames, config.depth_far, kind, config.opponents
        )
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=low):
            features: Tensor = encoder(pixels)
        return features

    @property
    def _encoders(self) -> Sequence[Encoder]:
        """The encoders, as what they are."""
        return list(self.encoders)  # type: ignore[arg-type]

    def observe(self, obs_dict: Mapping[str, Tensor]) -> None:
        """Update the normaliser of the view that the student predicts, if any, by a task's observations."""
        if self.predictor is not None:
            self.predictor.observe(obs_dict[self.predictor.view])

    def take_critic(self, critic: Critic, view: str) -> None:
        """Replace the critic by another, which sees `view`; `config` and `shapes` follow."""
        self.critic = critic.to(self.device)
        self.shapes[view] = (critic.inputs,)
        self.config = dataclasses.replace(
            self.config,
            critic_view=view,
            critic_hidden=critic.hidden,
            critic_activation=critic.activation,
            critic_clip=critic.clip,
        )

    # --- saving ----------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write weights (safetensors) and description (JSON) into a folder, each file atomically.

        An `AlignedStudent` that was there is replaced.
        """
        self._write(folder)
        # Last: where the disk is full, the student that was there is still whole. Killed just before this,
        # head and weights do not fit each other, and loading says so.
        (Path(folder) / HEAD).unlink(missing_ok=True)

    def _write(self, folder: str | Path) -> None:
        """Write the files that students of all kinds have."""
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}
        description = {"config": asdict(self.config), "shapes": self.shapes, "num_actions": self.num_actions}
        with atomic_file(Path(folder) / WEIGHTS) as part:
            save_file(tensors, part)
        write_json(Path(folder) / DESCRIPTION, description)

    @staticmethod
    def load(folder: str | Path, device: str | torch.device = "cpu") -> VisionStudent:
        """Read the files of `save`; executes no code.

        Raises:
            FileNotFoundError: when there is no such file.
            StateError: when a file is truncated, foreign, or does not fit the other.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            description = json.loads((Path(folder) / DESCRIPTION).read_text())
            config = vision_config_from_json(description["config"])
            shapes = {name: tuple(shape) for name, shape in description["shapes"].items()}
            student = VisionStudent(config, shapes, int(description["num_actions"]))
            student.load_state_dict(load_file(Path(folder) / WEIGHTS))
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise StateError(
                f"{folder} holds no vision student that fits its description; if it was saved by an earlier "
                f"version, whose networks differed, train it anew: {error}"
            ) from None
        return student.to(device)

    # --- inner works -----------------------------------------------------------------------------------

    def _remember(self, seen: Tensor, state: StudentState) -> tuple[Tensor, StudentState]:
        """What the actor gets, and the state with the memory of this step."""
        if self.gru is None:
            return seen, state
        memory: Tensor = self.gru(seen, state.memory)
        return torch.cat([seen, memory], 1), dataclasses.replace(state, memory=memory)

    def _output(self, hidden: Tensor, inputs: Mapping[str, Tensor], state: StudentState) -> StudentOutput:
        mean: Tensor = self.actor(hidden)
        std = None if self.log_std is None else self.log_std.exp().expand_as(mean)
        value = None
        view = self.config.critic_view
        if self.critic is not None and view is not None and (view == STUDENT_VIEW or view in inputs):
            value = self.critic(hidden if view == STUDENT_VIEW else inputs[view])
        predicted = None
        if self.predictor is not None and self.predictor.view in inputs:
            predicted = self.predictor(hidden)
        return StudentOutput(mean, std, value, state, predicted)


def _mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ELU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))

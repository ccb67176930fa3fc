"""The frames that a student learns from: the last ones of every environment, in a ring of fixed size.

Frames are kept once, though stacked ones are seen several times, and as they came (images in bytes); stacks
and sequences are put together when they are sampled.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from tutelage.envs.contract.state import StateDict, StateError


class FrameBuffer:
    """A ring of the last steps of `num_envs` environments, allocated at once.

    Every step adds one frame per environment: named fields, and how many frames of its episode came before.
    Where the ring is full, the oldest step goes.

    Args:
        capacity: frames to keep; rounded down to whole steps of `num_envs`, at least one step.
        num_envs: environments.
        fields: name -> one step's tensor, ``(num_envs, ...)``, for shape and dtype. float32 images (fields of
            three axes or more: depth) are kept in float16, at half the memory, and handed out in float32.
        device: where frames are kept and handed out.

    Attributes:
        steps: capacity in steps.
        size: steps stored.
        added: steps ever added: they are numbered from 0, and the last `size` of them are stored.
        saved_in: name of the checkpoint that knows all that was stored when it was made; empty: none.

    Example:
        >>> buffer = FrameBuffer(6, 2, {"x": torch.zeros(2, 1)}, "cpu")
        >>> buffer.add({"x": torch.tensor([[1.0], [2.0]])}, started=torch.tensor([True, True]))
        >>> buffer.add({"x": torch.tensor([[3.0], [4.0]])}, started=torch.tensor([False, True]))
        >>> buffer.gather(torch.tensor([1, 1]), torch.tensor([0, 1]), stacks={"x": 2})["x"][..., 0]
        tensor([[1., 3.],
                [4., 4.]])
    """

    def __init__(
        self, capacity: int, num_envs: int, fields: Mapping[str, Tensor], device: torch.device | str
    ) -> None:
        if capacity < num_envs:
            raise ValueError(
                f"a ring of {capacity} frames holds no step of {num_envs} environments; give it more frames, "
                "or use fewer environments"
            )
        self.num_envs, self.steps, self.size = num_envs, capacity // num_envs, 0
        self.added, self.saved_in = 0, ""
        self._fields = {
            name: torch.zeros(
                self.steps,
                *value.shape,
                dtype=torch.float16 if value.ndim > 2 and value.dtype == torch.float32 else value.dtype,
                device=device,
            )
            for name, value in fields.items()
        }
        self._age = torch.zeros(self.steps, num_envs, dtype=torch.int32, device=device)
        self.device = self._age.device

    @property
    def frames(self) -> int:
        """Number of frames stored."""
        return self.size * self.num_envs

    @property
    def oldest(self) -> int:
        """Number of the oldest step stored."""
        return self.added - self.size

    def clear(self) -> None:
        """Forget all frames; episodes that are under way are taken to begin with the next step."""
        self.size = 0

    def add(self, fields: Mapping[str, Tensor], started: Tensor) -> None:
        """Store one step of all environments; tensors are copied.

        Args:
            fields: all of the names given at the start, ``(num_envs, ...)``.
            started: whether this is the first frame of an episode, bool ``(num_envs,)``. The very first
                frames of the ring count as first ones.
        """
        slot = self.added % self.steps
        for name, values in self._fields.items():
            values[slot].copy_(fields[name])
        age = self._age[slot]
        age.copy_(self._age[slot - 1] + 1 if self.size else torch.zeros_like(age))
        age.masked_fill_(started, 0)
        self.added += 1
        self.size = min(self.size + 1, self.steps)

    def gather(
        self, step: Tensor, env: Tensor, stacks: Mapping[str, int] | None = None, age: bool = False
    ) -> dict[str, Tensor]:
        """Return the frames of given steps and environments.

        Args:
            step: 0 is the oldest stored, int64, any shape ``(...)``.
            env: int64, of the same shape.
            stacks: field -> how many frames to stack, oldest first; its shape is then ``(..., k, *frame)``.
                Before an episode's first frame that one is repeated, and before the oldest stored one, it.
            age: hand out ``age`` too, int32 ``(...)``: how many frames of its episode came before.
        """
        oldest = self.oldest % self.steps
        slot = (oldest + step) % self.steps
        batch = {}
        for name, values in self._fields.items():
            count = (stacks or {}).get(name, 1)
            rows = slot * self.num_envs + env
            if count > 1:
                back = torch.arange(count - 1, -1, -1, device=self.device)
                most = torch.minimum(self._age[slot, env].long(), step)
                past = torch.minimum(back.expand(*step.shape, count), most[..., None])
                rows = (oldest + step[..., None] - past) % self.steps * self.num_envs + env[..., None]
            # index_select of flat rows is several times as fast as indexing by two tensors
            flat = values.flatten(0, 1).index_select(0, rows.flatten())
            flat = flat.float() if values.dtype == torch.float16 else flat
            batch[name] = flat.view(*rows.shape, *values.shape[2:])
        if age:
            batch["age"] = self._age[slot, env]
        return batch

    def sample(
        self, batch: int, generator: Generator, stacks: Mapping[str, int] | None = None
    ) -> dict[str, Tensor]:
        """Draw frames uniformly, with replacement: field -> ``(batch, ...)``; see `gather` for stacks."""
        self._check(1)
        # In a full ring the oldest frames have lost those that belong before them.
        cut = max((stacks or {"": 1}).values(), default=1) - 1 if self.size == self.steps else 0
        cut = min(cut, self.size - 1)
        step = torch.randint(cut, self.size, (batch,), generator=generator, device=self.device)
        env = torch.randint(self.num_envs, (batch,), generator=generator, device=self.device)
        return self.gather(step, env, stacks)

    def sample_sequences(
        self, batch: int, length: int, generator: Generator, stacks: Mapping[str, int] | None = None
    ) -> dict[str, Tensor]:
        """Draw stretches of consecutive steps of one environment each, across ends of episodes.

        Returns:
            field -> ``(length, batch, ...)``, and ``age``, int32 ``(length, batch)``: 0 begins an episode.

        Raises:
            ValueError: when fewer steps than `length` are stored.
        """
        self._check(length)
        size = (batch,)
        first = torch.randint(self.size - length + 1, size, generator=generator, device=self.device)
        env = torch.randint(self.num_envs, size, generator=generator, device=self.device)
        step = first + torch.arange(length, device=self.device)[:, None]
        return self.gather(step, env.expand(length, batch), stacks, age=True)

    # --- saving ----------------------------------------------------------------------------------------

    @property
    def step_bytes(self) -> int:
        """Bytes of memory that one step of all environments takes."""
        kept = (*self._fields.values(), self._age)
        return sum(values[0].numel() * values.element_size() for values in kept)

    def read(self, first: int, last: int) -> dict[str, Tensor]:
        """Read the steps `first` to `last` - 1, by their numbers, and their ``age``; on the CPU.

        What is returned may be a view of the ring: use it, or copy it, before the next `add`.

        Raises:
            ValueError: when some of them are not stored.
        """
        if not self.oldest <= first <= last <= self.added:
            raise ValueError(
                f"steps {first} to {last - 1} were asked for; {self.oldest} to {self.added - 1} are stored"
            )
        begin = first % self.steps
        end = begin + last - first
        over = max(end - self.steps, 0)  # what goes on at the ring's beginning
        return {
            name: (torch.cat([values[begin:], values[:over]]) if over else values[begin:end]).cpu()
            for name, values in {**self._fields, "age": self._age}.items()
        }

    def write(self, first: int, steps: Mapping[str, Tensor]) -> None:
        """Put back the frames that `read` gave for the steps from number `first` on; the cursor stays."""
        slots = torch.arange(first, first + len(steps["age"]), device=self.device) % self.steps
        for name, values in {**self._fields, "age": self._age}.items():
            values.index_copy_(0, slots, steps[name].to(self.device))

    def state_dict(self, frames: bool = True) -> StateDict:
        """Return the frames by value; without `frames`, their number and kinds alone."""
        kinds = {
            name: f"{values.dtype} {list(values.shape[2:])}".removeprefix("torch.")
            for name, values in self._fields.items()
        }
        state: StateDict = {"num_envs": self.num_envs, "steps": self.steps, "fields": kinds}
        state |= {"added": self.added, "size": self.size}
        if frames:
            stored = self.read(self.oldest, self.added)
            state["frames"] = {name: values.clone() for name, values in stored.items()}
        return state

    def load_state_dict(self, state: StateDict) -> None:
        """Restore a `state_dict`; after one without frames, `write` all of them.

        Raises:
            StateError: when it is of a ring of another size or of other fields, with nothing changed.
        """
        self.check_state(state)
        self.added, self.size, self.saved_in = state["added"], state["size"], ""
        if "frames" in state:
            self.write(self.oldest, state["frames"])

    def check_state(self, state: StateDict) -> None:
        """Check that a `state_dict` is of a ring like this one; raises StateError."""
        own = self.state_dict(frames=False)
        for name in ("num_envs", "steps", "fields"):
            if state[name] != own[name]:
                raise StateError(
                    f"the state is of a ring whose {name} are {state[name]}, those of this one are "
                    f"{own[name]}; use as many environments and frames, and the same views"
                )

    def _check(self, length: int) -> None:
        if self.size < length:
            raise ValueError(
                f"{length} consecutive steps were asked for, and {self.size} are stored; roll out longer, or "
                "learn from shorter sequences"
            )

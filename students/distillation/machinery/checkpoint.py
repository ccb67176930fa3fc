"""A distillation on disk: all that it needs to go on after a kill as if nothing had happened.

A folder holds one checkpoint::

    checkpoint.json                    what belongs to it, and all that is no tensor
    state-000007.safetensors           weights, optimiser, generator, running episodes
    frames-000003-000.safetensors      steps 0 to 119 of the ring, written by checkpoint 3
    frames-000007-000.safetensors      steps 120 to 144

The ring of frames can be gigabytes: each checkpoint adds files of the steps that came since the one before,
and deletes those of which no step is in the ring any more, so that every frame is written once. A checkpoint
touches no file of the one before it: when ``checkpoint.json`` is replaced, in one go, the new one counts, and
what only the old one needed is deleted. No file runs code when it is read.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

from tutelage.envs.contract.state import StateDict, StateError, atomic_file
from tutelage.students.torch_tools.codec import decode, encode

if TYPE_CHECKING:
    from tutelage.students.distillation.machinery.frames import FrameBuffer

MANIFEST, FORMAT = "checkpoint.json", 1
SEGMENT_BYTES = 128 * 2**20
"""Size of a file of frames at most, but of one step at least."""


class Checkpointed(Protocol):
    """What can be saved here: a `DistillationMethod`, or anything with its state and a ring of frames."""

    @property
    def ring(self) -> FrameBuffer | None:
        """The frames that are written once each; None for none."""
        ...

    def state_dict(self, frames: bool = True) -> StateDict:
        """All else, without the frames of the ring if so wanted."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from there."""
        ...


class Segment(NamedTuple):
    """A file with the steps `first` to `last` - 1 of a ring, by their numbers."""

    file: str
    first: int
    last: int


def save_checkpoint(
    folder: str | Path, method: Checkpointed, beside: Mapping[str, Any] | None = None
) -> None:
    """Write a method's state into a folder, between two of its rounds, e.g. in `on_progress`.

    Whenever this is interrupted or fails, the checkpoint before it is still there, whole.

    Args:
        folder: made where there is none; of this run alone.
        method: nothing that it does later depends on having been saved.
        beside: JSON values of whoever runs the method, for `read_beside`.

    Raises:
        OSError: when the disk is full or not writable.
        RuntimeError: within a round.
        TypeError: when the method's `own_state` has something else than tensors, arrays and JSON values.
    """
    folder, ring = Path(folder), method.ring
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max((_number(path) for path in _files(folder)), default=0)
    name = f"{number:06}-{secrets.token_hex(4)}"  # of another run it is another, whatever the number
    written: list[Path] = []
    try:
        kept = _kept(folder, ring)
        tensors: dict[str, Tensor] = {}
        tree = encode(method.state_dict(frames=False), "", tensors)
        segments = list(kept)
        if ring is not None:
            length = max(1, SEGMENT_BYTES // ring.step_bytes)
            start = kept[-1].last if kept else ring.oldest
            for k, first in enumerate(range(start, ring.added, length)):
                last = min(first + length, ring.added)
                segments.append(Segment(f"frames-{number:06}-{k:03}.safetensors", first, last))
                written.append(folder / segments[-1].file)
                _write(written[-1], ring.read(first, last))
        written.append(folder / f"state-{number:06}.safetensors")
        _write(written[-1], tensors)
        manifest = {
            "format": FORMAT,
            "name": name,
            "tensors": written[-1].name,
            "segments": segments,
            "state": tree,
            "beside": dict(beside or {}),
        }
        with atomic_file(folder / MANIFEST) as part, part.open("w") as stream:
            json.dump(manifest, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        before = "the one before it is kept" if (folder / MANIFEST).exists() else "there is none yet"
        raise OSError(f"no checkpoint could be written to {folder} ({error}); {before}") from None
    if ring is not None:
        ring.saved_in = name
    needed = {manifest["tensors"], *(segment.file for segment in segments)}
    for path in _files(folder):
        if path.name not in needed:
            path.unlink(missing_ok=True)


def load_checkpoint(folder: str | Path, method: Checkpointed) -> bool:
    """Continue from a folder's checkpoint.

    Args:
        folder: of `save_checkpoint`.
        method: freshly made as the one that was saved: with the same task, student and config.

    Returns:
        Whether there was one; without, the method begins anew.

    Raises:
        StateError: when it is truncated or foreign, or of another method, student or task. It stays as it is.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        return False
    try:
        manifest = _read_manifest(folder)
        state = decode(manifest["state"], load_file(folder / manifest["tensors"]))
        segments = [Segment(*segment) for segment in manifest["segments"]]
        _check_segments(folder, segments, state["ring"])
        method.load_state_dict(state)
        if (ring := method.ring) is not None:
            for segment in segments:
                steps = load_file(folder / segment.file)
                skipped = max(ring.oldest - segment.first, 0)
                ring.write(
                    segment.first + skipped, {name: values[skipped:] for name, values in steps.items()}
                )
            ring.saved_in = manifest["name"]
    except (
        SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OSError,
        RuntimeError,
    ) as error:
        what = str(error) if isinstance(error, StateError) else f"it is damaged ({error!r})"
        raise StateError(
            f"the checkpoint in {folder} cannot be continued: {what}; to begin anew, delete it"
        ) from None
    return True


def read_beside(folder: str | Path) -> StateDict:
    """The values that were saved beside the checkpoint of a folder, which must be there and whole."""
    beside: StateDict = _read_manifest(Path(folder)).get("beside", {})
    return beside


def _kept(folder: Path, ring: FrameBuffer | None) -> list[Segment]:
    """Files of the folder's checkpoint that the next one needs too, if it is of the same run."""
    if ring is None or not ring.saved_in:
        return []
    try:
        manifest = _read_manifest(folder)
    except (OSError, ValueError):
        return []
    if manifest.get("name") != ring.saved_in:
        return []
    segments = [Segment(*segment) for segment in manifest["segments"]]
    return [segment for segment in segments if segment.last > ring.oldest]


def _read_manifest(folder: Path) -> StateDict:
    manifest = json.loads((folder / MANIFEST).read_text())
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StateError(f"{MANIFEST} is not of format {FORMAT} of tutelage's distillations")
    return manifest


def _check_segments(folder: Path, segments: list[Segment], ring: StateDict | None) -> None:
    """Make sure, before anything is changed, that the files are whole and hold all steps of the ring."""
    from safetensors import safe_open

    if ring is None:
        return
    reached = ring["added"] - ring["size"]
    for segment in segments:
        if segment.first > reached:
            break
        reached = segment.last
        with safe_open(folder / segment.file, framework="pt") as stream:  # refuses a truncated file
            for name in (*ring["fields"], "age"):
                if stream.get_slice(name).get_shape()[0] != segment.last - segment.first:
                    raise StateError(f"{segment.file} holds other steps than {MANIFEST} says")
    if reached != ring["added"]:
        raise StateError(f"the steps from {reached} to {ring['added'] - 1} of the ring are missing")


def _files(folder: Path) -> list[Path]:
    return [path for kind in ("state", "frames") for path in folder.glob(f"{kind}-[0-9]*.safetensors")]


def _number(path: Path) -> int:
    """Which checkpoint wrote a file."""
    digits = path.name.removesuffix(".safetensors").split("-")[1]
    return int(digits) if digits.isdecimal() else 0


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file, and wait until it is on disk."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        raise OSError(str(error)) from None
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())

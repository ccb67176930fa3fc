"""State trees on disk: nested dicts of arrays and JSON values, saved without pickle.

Everything that must survive a kill (task teachers, normalisers, generators) describes itself by a
`state_dict` of this kind. A file is one ``.npz``: each array an entry, and the tree with references to
the entries as JSON text. Reading never executes code. Writing is atomic: the old file stays until the new
one is complete and on disk.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

StateDict = dict[str, Any]
"""Nested dicts and lists of numpy arrays and JSON values (None, bool, int, float, str); keys are str."""

# What numpy, zipfile and json raise for damaged or foreign files (found by flipping every bit of one).
_UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    RuntimeError,
    zipfile.BadZipFile,
)

_TREE, _REFERENCE = "tree.json", "__array__"


class StateError(ValueError):
    """A state file that is truncated, foreign, or does not fit what loads it."""


def rng_state(rng: np.random.Generator) -> StateDict:
    """State of a numpy generator by value; JSON holds its big integers exactly."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(inner) for key, inner in value.items()}
        return value.item() if isinstance(value, np.generic) else value

    state: StateDict = plain(rng.bit_generator.state)
    return state


def set_rng_state(rng: np.random.Generator, state: StateDict) -> None:
    """Put a generator back into a state of `rng_state`.

    Raises:
        StateError: when the state is of another kind of generator.
    """
    try:
        rng.bit_generator.state = state
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(
            f"random generator state does not fit a {type(rng.bit_generator).__name__}: {error}"
        ) from None


def save_state(path: str | Path, state: StateDict) -> None:
    """Write a state tree to `path`, atomically.

    Raises:
        TypeError: when a leaf is neither an array nor a JSON value.
        OSError: when the disk is full or not writable; the old file is then untouched.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}

    def flatten(node: Any, where: str) -> Any:
        if isinstance(node, np.ndarray):
            if node.dtype.hasobject:
                raise TypeError(
                    f"state entry {where!r} is an array of Python objects; only plain numbers are saved"
                )
            key = f"a{len(arrays)}"
            arrays[key] = node
            return {_REFERENCE: key}
        if isinstance(node, Mapping):
            return {str(key): flatten(value, f"{where}/{key}") for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [flatten(value, f"{where}/{i}") for i, value in enumerate(node)]
        if isinstance(node, np.generic):
            return node.item()
        if node is None or isinstance(node, bool | int | float | str):
            return node
        raise TypeError(
            f"state entry {where!r} is a {type(node).__name__}; save arrays, numbers, strings, dicts, lists"
        )

    tree = json.dumps(flatten(state, ""))
    arrays[_TREE] = np.frombuffer(tree.encode(), dtype=np.uint8)
    with atomic_file(path) as part, part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
        stream.flush()
        os.fsync(stream.fileno())


def load_state(path: str | Path) -> StateDict:
    """Read a state tree.

    Raises:
        FileNotFoundError: when there is no such file.
        StateError: when the file is truncated, corrupt, or no state file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        tree = json.loads(arrays.pop(_TREE).tobytes().decode())

        def restore(node: Any) -> Any:
            if isinstance(node, dict):
                if set(node) == {_REFERENCE}:
                    return arrays[node[_REFERENCE]]
                return {key: restore(value) for key, value in node.items()}
            return [restore(value) for value in node] if isinstance(node, list) else node

        state: StateDict = restore(tree)
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise StateError(
            f"{path} is truncated or is no state file of tutelage ({error}); delete it to start anew"
        ) from None
    return state


class atomic_file:  # reads as a function
    """Context manager that yields a temporary path beside `path` and renames it onto `path` on success."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(f".{self.path.name}.part")

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.part

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            os.replace(self.part, self.path)
        else:
            with suppress(FileNotFoundError):
                self.part.unlink()


def write_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    with atomic_file(path) as part:
        part.write_text(json.dumps(values, indent=1))

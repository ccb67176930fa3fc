"""Checkpoints of a student: all that decides its further training, as files without pickle.

``weights.safetensors`` holds every tensor: policy, target networks, optimisers. ``student.npz`` holds the
rest: counters, replay buffer, normalisers, and the global generators that SB3 draws from.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.envs.contract.state import (
    StateDict,
    StateError,
    atomic_file,
    load_state,
    rng_state,
    save_state,
    set_rng_state,
)

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

WEIGHTS, STATE = "weights.safetensors", "student.npz"
_COUNTERS = (
    "num_timesteps",
    "_episode_num",
    "_n_updates",
    "_n_calls",
    "_current_progress_remaining",
    "exploration_rate",
)


def save_student(folder: str | Path, model: BaseAlgorithm, replay_buffer: bool = True) -> None:
    """Write the student's whole training state into `folder`, each file atomically.

    Without `replay_buffer` an off-policy student can act, but its training cannot be continued. Where the
    student stands in running episodes is saved too, for environments that can be saved themselves.

    Raises:
        OSError: when the disk is full or not writable.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from tutelage.students.torch_tools.codec import encode

    tensors: dict[str, Any] = {}
    tree = {name: encode(state, name, tensors) for name, state in model.get_parameters().items()}
    _, others = model._get_torch_save_params()
    for name in others:
        tensors[f"variable/{name}"] = _get(model, name).detach()
    for name, tensor in _recurrent_states(model).items():
        tensors[f"recurrent/{name}"] = tensor.detach()
    with atomic_file(Path(folder) / WEIGHTS) as part:
        try:
            save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, part)
        except SafetensorError as error:
            raise OSError(f"{part} cannot be written: {error}") from None
    save_state(
        Path(folder) / STATE,
        {
            "algorithm": type(model).__name__,
            "parameters": tree,
            "variables": list(others),
            "counters": {name: getattr(model, name) for name in _COUNTERS if hasattr(model, name)},
            "episodes": [dict(info) for info in model.ep_info_buffer or ()],
            "successes": [bool(success) for success in model.ep_success_buffer or ()],
            "action_space": rng_state(model.action_space.np_random),
            "normalizer": _normalizer_state(model),
            "rollout": _rollout_state(model),
            "replay_buffer": _replay_state(getattr(model, "replay_buffer", None)) if replay_buffer else None,
            "generators": global_generators(),
        },
    )


def load_student(folder: str | Path, model: BaseAlgorithm, replay_buffer: bool = True) -> None:
    """Put a freshly built student of the same config into the state that `save_student` wrote.

    Without `replay_buffer`, one that was saved is passed over, and the student can only act.

    Raises:
        StateError: when a file is truncated, foreign, or of a student of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from tutelage.students.torch_tools.codec import decode

    state = load_state(Path(folder) / STATE)
    path = Path(folder) / WEIGHTS
    try:
        tensors = load_file(path, device="cpu")
        if state["algorithm"] != type(model).__name__:
            raise StateError(f"{folder} holds a {state['algorithm']}, not a {type(model).__name__}")
        model.set_parameters({name: decode(node, tensors) for name, node in state["parameters"].items()})
        for name in state["variables"]:
            _get(model, name).data.copy_(tensors[f"variable/{name}"])
        for name, value in state["counters"].items():
            setattr(model, name, value)
        model.ep_info_buffer = deque(state["episodes"], maxlen=model._stats_window_size)
        model.ep_success_buffer = deque(state["successes"], maxlen=model._stats_window_size)
        set_rng_state(model.action_space.np_random, state["action_space"])
        _load_normalizer(model, state["normalizer"])
        _load_rollout(model, state["rollout"])
        for name, tensor in _recurrent_states(model).items():
            tensor.copy_(tensors[f"recurrent/{name}"])
        if replay_buffer:
            _load_replay(getattr(model, "replay_buffer", None), state["replay_buffer"])
        set_global_generators(state["generators"])
    except (SafetensorError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, OSError) as error:
        if isinstance(error, StateError | FileNotFoundError):
            raise
        raise StateError(
            f"checkpoint {folder} is damaged or of another student ({error}); delete it to start anew"
        ) from None


def global_generators() -> StateDict:
    """Return the states of the global generators of torch, numpy and random, which SB3 draws from."""
    import torch

    version, words, gauss = random.getstate()
    # SB3 seeds and draws from numpy's global generator; it must be saved, though we never draw from it.
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state().numpy(),
        "numpy": {"kind": str(kind), "keys": keys, "rest": [int(position), int(has_gauss), float(cached)]},
        "random": {"version": version, "words": list(words), "gauss": gauss},
    }


def set_global_generators(state: StateDict) -> None:
    """Put the global generators back into states of `global_generators`."""
    import torch

    torch.set_rng_state(torch.from_numpy(state["torch"].copy()))
    position, has_gauss, cached = state["numpy"]["rest"]
    np.random.set_state((state["numpy"]["kind"], state["numpy"]["keys"], position, has_gauss, cached))  # noqa: NPY002
    python = state["random"]
    random.setstate((python["version"], tuple(python["words"]), python["gauss"]))


@contextmanager
def untouched_generators() -> Iterator[None]:
    """Context manager that leaves the global generators as they were."""
    before = global_generators()
    try:
        yield
    finally:
        set_global_generators(before)


def _get(model: BaseAlgorithm, path: str) -> Any:
    node: Any = model
    for name in path.split("."):
        node = getattr(node, name)
    return node


def _normalizer_state(model: BaseAlgorithm) -> StateDict | None:
    normalizer = model.get_vec_normalize_env()
    if normalizer is None:
        return None
    statistics = {"returns": normalizer.ret_rms}
    if normalizer.norm_obs:
        observed = normalizer.obs_rms
        parts = observed if isinstance(observed, dict) else {"": observed}
        statistics |= {f"observations/{key}": rms for key, rms in parts.items()}
    return {
        name: {"mean": np.asarray(rms.mean), "var": np.asarray(rms.var), "count": float(rms.count)}
        for name, rms in statistics.items()
    }


def _load_normalizer(model: BaseAlgorithm, state: StateDict | None) -> None:
    normalizer = model.get_vec_normalize_env()
    if (normalizer is None) != (state is None):
        raise StateError(
            "the checkpoint and the student differ in whether observations or rewards are normalised"
        )
    if normalizer is None or state is None:
        return
    for name, values in state.items():
        rms: Any = normalizer.ret_rms
        if name != "returns":
            key = name.removeprefix("observations/")
            rms = normalizer.obs_rms[key] if key else normalizer.obs_rms
        if np.shape(rms.mean) != values["mean"].shape:
            raise StateError(
                f"normaliser {name!r} has shape {values['mean'].shape}, expected {np.shape(rms.mean)}"
            )
        rms.mean, rms.var, rms.count = values["mean"], values["var"], values["count"]


_ROLLOUT = ("_last_obs", "_last_original_obs", "_last_episode_starts")


def _rollout_state(model: BaseAlgorithm) -> StateDict:
    """What the student last saw, and the discounted returns that `VecNormalize` runs along."""
    state = {name: getattr(model, name) for name in _ROLLOUT if getattr(model, name, None) is not None}
    normalizer = model.get_vec_normalize_env()
    return {**state, **({} if normalizer is None else {"returns": normalizer.returns})}


def _load_rollout(model: BaseAlgorithm, state: StateDict) -> None:
    for name in _ROLLOUT:
        setattr(model, name, state.get(name))
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.returns = state["returns"].copy()


def _recurrent_states(model: BaseAlgorithm) -> dict[str, Any]:
    """Hidden states of a `RecurrentPPO` by name, the tensors themselves."""
    states = getattr(model, "_last_lstm_states", None)
    if states is None:
        return {}
    return {
        f"{part}/{i}": tensor for part in states._fields for i, tensor in enumerate(getattr(states, part))
    }


def _arrays(buffer: Any) -> dict[str, np.ndarray[Any, Any]]:
    """All arrays of a replay buffer by name, those inside dicts (`DictReplayBuffer`) too."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, value in vars(buffer).items():
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        arrays |= {f"{name}/{key}": part for key, part in parts if isinstance(part, np.ndarray) and part.ndim}
    return arrays


def _replay_state(buffer: Any) -> StateDict | None:
    if buffer is None:
        return None
    filled = buffer.buffer_size if buffer.full else buffer.pos
    return {
        "pos": int(buffer.pos),
        "full": bool(buffer.full),
        "arrays": {name: array[:filled] for name, array in _arrays(buffer).items()},
    }


def _load_replay(buffer: Any, state: StateDict | None) -> None:
    if (buffer is None) != (state is None):
        raise StateError("the checkpoint and the student differ in whether they have a replay buffer")
    if buffer is None or state is None:
        return
    arrays = _arrays(buffer)
    if set(arrays) != set(state["arrays"]):
        raise StateError("the checkpoint's replay buffer holds other arrays than the student's")
    for name, saved in state["arrays"].items():
        if saved.shape[1:] != arrays[name].shape[1:] or len(saved) > len(arrays[name]):
            raise StateError(
                f"replay buffer {name!r} has shape {saved.shape}, does not fit {arrays[name].shape}"
            )
        arrays[name][: len(saved)] = saved
    buffer.pos, buffer.full = state["pos"], state["full"]

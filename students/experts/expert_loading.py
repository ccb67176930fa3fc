"""Experts out of trained policies, in memory and on disk: SB3's, rsl_rl's, cells of a comparison, our own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.envs.batched.worlds.catalogue import VEC_TASKS, vec_task_class
from tutelage.envs.contract.state import StateError, load_state
from tutelage.students.rsl_rl.rsl_rl_policy import ACTIVATIONS as RSL_RL_ACTIVATIONS
from tutelage.students.rsl_rl.rsl_rl_policy import DESCRIPTION as RSL_RL_DESCRIPTION
from tutelage.students.rsl_rl.rsl_rl_policy import RslRlPolicy
from tutelage.students.sb3.checkpoint import STATE as STUDENT_STATE
from tutelage.students.sb3.checkpoint import WEIGHTS as STUDENT_WEIGHTS
from tutelage.teachers.experts.mlp_expert import ACTIVATIONS, DESCRIPTION, ExpertConfig, MLPExpert

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecNormalize

_EPSILON, _CLIP = 1e-8, 10.0  # of SB3's VecNormalize, as `make_student` builds it
_GAMMA = 0.99  # of SB3's PPO where nothing else is said


def load_expert(
    path: str | Path,
    trust: bool = False,
    *,
    view: str | None = None,
    normalizer: str | Path | None = None,
) -> MLPExpert:
    """Load an expert from what has been trained and saved.

    Args:
        path: a folder of `MLPExpert.save` or of `RslRlPolicy.save`; the folder of a finished cell of
            ``tutelage compare`` on a batched task, e.g. ``runs/reach/ppo/random/seed-0``; or an SB3 ``.zip``.
        trust: SB3's own files run code when they are read; True says that theirs may run.
        view: for an SB3 ``.zip``, or a cell on a task of your own: the view that it was trained on, e.g.
            ``privileged``.
        normalizer: for an SB3 ``.zip``: what ``VecNormalize.save`` wrote, if it was trained with that.

    Raises:
        FileNotFoundError: when there is nothing at `path`, or a file is missing.
        StateError: when a file is damaged, or of no kind that is known.
        ValueError: for an SB3 ``.zip`` that is not trusted or has no `view`, or a policy that is no
            multi-layer perceptron with Gaussian actions in [-1, 1].
    """
    path = Path(path)
    if path.suffix == ".zip":
        return _load_zip(path, trust, view, normalizer)
    if not path.exists():
        raise FileNotFoundError(f"there is no expert at {path}")
    if (path / DESCRIPTION).exists():
        return MLPExpert.load(path)
    if (path / RSL_RL_DESCRIPTION).exists():
        return expert_from_rsl_rl(RslRlPolicy.load(path))
    if (path / "config.json").exists():
        return _load_cell(path, view)
    raise StateError(
        f"{path} holds no expert: neither {DESCRIPTION}, nor {RSL_RL_DESCRIPTION} of an rsl_rl policy, nor "
        "config.json of a cell of `tutelage compare`; SB3's own files end in .zip"
    )


def expert_from_sb3(
    model: BaseAlgorithm, view: str | None = None, normalizer: VecNormalize | None = None
) -> MLPExpert:
    """Copy the policy of SB3's PPO (or A2C), with its critic and the statistics of its `VecNormalize`.

    What the critic's values are of goes to the expert's `facts`: ``reward_scale``, by which `VecNormalize`
    divides rewards, and ``gamma``.

    Args:
        model: with ``MlpPolicy`` over one vector of observations.
        view: what it sees; default: the ``obs`` of the `VecTask` that it was built over.
        normalizer: of its observations; default: the one that it was built over, if any.

    Raises:
        ValueError: when the policy is of another kind, its actions are not in [-1, 1], or `view` is missing
            where the model has no `VecTask`.
    """
    from stable_baselines3.common.policies import ActorCriticPolicy

    from tutelage.envs.batched.adaptors.sb3 import SB3VecTask

    algorithm: Any = model
    policy = algorithm.policy
    if type(policy) is not ActorCriticPolicy:
        raise ValueError(
            f"{type(model).__name__} with {type(policy).__name__} cannot be made an expert; train PPO with "
            "MlpPolicy"
        )
    space = model.action_space
    low, high = getattr(space, "low", np.nan), getattr(space, "high", np.nan)
    if not (np.all(low == -1) and np.all(high == 1)):
        raise ValueError(f"an expert's actions are in [-1, 1], and this policy's in {space}")
    if len(model.observation_space.shape or ()) != 1:
        raise ValueError(f"an expert sees one vector, and this policy {model.observation_space}")
    if view is None:
        env = model.get_env()
        inner = None if env is None else env.unwrapped
        if not isinstance(inner, SB3VecTask):
            raise ValueError(
                "the model has no VecTask, so the view that it sees is unknown; give view=, e.g. "
                "view='privileged'"
            )
        view = inner.vec_task.obs_view
    statistics, clip, scale = None, None, 1.0
    normalizer = normalizer or model.get_vec_normalize_env()
    if normalizer is not None and normalizer.norm_obs:
        observed: Any = normalizer.obs_rms
        statistics, clip = _statistics(observed.mean, observed.var, normalizer.epsilon), normalizer.clip_obs
    if normalizer is not None and normalizer.norm_reward:
        scale = math.sqrt(float(normalizer.ret_rms.var) + normalizer.epsilon)
    leaves = [layer for layer in policy.mlp_extractor.modules() if not list(layer.children())]
    activation = _activation([leaf for leaf in leaves if not isinstance(leaf, nn.Linear | nn.Sequential)])
    facts = {"reward_scale": scale, "gamma": float(algorithm.gamma)}
    return _from_sb3_tensors(policy.state_dict(), view, activation, statistics, clip, facts)


def expert_from_rsl_rl(policy: RslRlPolicy) -> MLPExpert:
    """Copy an rsl_rl policy, with its critic and both normalisers."""
    config = policy.config
    tensors = dict(policy.state_dict())
    tensors["log_std"] = tensors.pop("noise_std").clamp(min=1e-6).log()  # rsl_rl's own lower bound
    return MLPExpert(
        ExpertConfig(
            view=config.actor_view,
            num_obs=policy.sizes["num_obs"],
            num_actions=policy.sizes["num_actions"],
            hidden=config.actor_hidden,
            critic_view=config.critic_view,
            num_states=policy.sizes["num_states"],
            critic_hidden=config.critic_hidden,
            activation=type(RSL_RL_ACTIVATIONS[config.activation]()).__name__,
        ),
        tensors,
        {"reward_scale": 1.0, "gamma": config.gamma},
    )


def _load_zip(path: Path, trust: bool, view: str | None, normalizer: str | Path | None) -> MLPExpert:
    if not trust:
        raise ValueError(
            f"{path} is a file of SB3, which can run code when it is read; if you know where it comes from, "
            "say load_expert(path, trust=True)"
        )
    if view is None:
        raise ValueError(f"{path} does not say which view it was trained on; give view=, e.g. 'privileged'")
    if not path.exists():
        raise FileNotFoundError(f"there is no expert at {path}")
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecNormalize

    statistics: VecNormalize | None = None
    try:
        model = PPO.load(path, device="cpu")
        if normalizer is not None:
            venv: Any = SimpleNamespace(
                num_envs=1, render_mode=None, observation_space=model.observation_space
            )
            statistics = VecNormalize.load(str(normalizer), venv)
    except FileNotFoundError:
        raise
    except Exception as error:  # unpickling raises whatever it likes
        raise StateError(f"{normalizer or path} cannot be read as SB3's: {error}") from None
    return expert_from_sb3(model, view, statistics)


def _load_cell(folder: Path, view: str | None) -> MLPExpert:
    """The student of a finished cell, from its tensors alone: no environment is built, no code run."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    student = folder / "student"
    try:
        config = json.loads((folder / "config.json").read_text())
        env, kwargs = str(config["env"]), config["student_config"]["kwargs"]
        if view is None and env not in VEC_TASKS:
            raise ValueError(
                f"{env!r} is none of the batched tasks that come with tutelage, so the view that the student "
                "saw is unknown; give view=, e.g. view='policy'"
            )
        if not student.exists():
            raise FileNotFoundError(f"the cell {folder} has not finished: it has no folder 'student'")
        view = view or vec_task_class(env).default_obs_view
        tensors = load_file(student / STUDENT_WEIGHTS)
        saved = load_state(student / STUDENT_STATE)["normalizer"] or {}
        statistics, clip, scale = None, None, 1.0
        if observed := saved.get("observations/"):
            statistics, clip = _statistics(observed["mean"], observed["var"], _EPSILON), _CLIP
        if config["student_config"]["normalize_rewards"]:
            scale = math.sqrt(float(saved["returns"]["var"]) + _EPSILON)
        policy = {k.removeprefix("policy/"): t for k, t in tensors.items() if k.startswith("policy/")}
        activation = (kwargs.get("policy_kwargs") or {}).get("activation_fn", "Tanh")
        facts = {"reward_scale": scale, "gamma": float(kwargs.get("gamma", _GAMMA))}
        expert = _from_sb3_tensors(policy, view, activation, statistics, clip, facts)
    except (KeyError, TypeError, AttributeError, RuntimeError, SafetensorError, UnicodeDecodeError) as error:
        raise StateError(f"{folder} is no undamaged cell: {type(error).__name__} {error}") from None
    except json.JSONDecodeError as error:
        raise StateError(f"{folder / 'config.json'} is damaged: {error}") from None
    expert.facts |= {"task": env, "method": "sb3", "seed": config.get("seed"), "steps": config.get("steps")}
    return expert


def _from_sb3_tensors(
    policy: Mapping[str, Tensor],
    view: str,
    activation: str,
    statistics: tuple[Tensor, Tensor] | None,
    clip: float | None,
    facts: Mapping[str, Any],
) -> MLPExpert:
    """An expert of the state dict of an ``ActorCriticPolicy``."""
    tensors: dict[str, Tensor] = {}
    hidden: dict[str, tuple[int, ...]] = {}
    left = dict(policy)
    try:
        for part, branch, last in (
            ("actor", "policy_net", "action_net"),
            ("critic", "value_net", "value_net"),
        ):
            index, widths = 0, []
            while f"mlp_extractor.{branch}.{index}.weight" in left:
                for kind in ("weight", "bias"):
                    name = f"layers.{index}.{kind}"
                    tensors[f"{part}.{name}"] = left.pop(f"mlp_extractor.{branch}.{index}.{kind}")
                widths.append(len(tensors[f"{part}.layers.{index}.bias"]))
                index += 2  # an activation stands between two layers
            for kind in ("weight", "bias"):
                tensors[f"{part}.layers.{index}.{kind}"] = left.pop(f"{last}.{kind}")
            hidden[part] = tuple(widths)
        tensors["log_std"] = left.pop("log_std")
    except KeyError as error:
        raise ValueError(f"the policy has no {error}: it is no MlpPolicy of SB3's PPO") from None
    if left:
        raise ValueError(f"the policy has more than an MlpPolicy of SB3's PPO: {', '.join(left)}")
    if tensors["log_std"].ndim != 1:
        raise ValueError("the policy explores by gSDE, with noise that depends on the state; use_sde=False")
    num_obs, num_actions = tensors["actor.layers.0.weight"].shape[1], tensors["log_std"].shape[-1]
    mean, scale = statistics or (torch.zeros(num_obs), torch.ones(num_obs))
    for part in ("actor", "critic"):
        tensors[f"{part}.mean"], tensors[f"{part}.scale"] = mean, scale
    config = ExpertConfig(
        view=view,
        num_obs=num_obs,
        num_actions=num_actions,
        hidden=hidden["actor"],
        critic_view=view,
        num_states=num_obs,
        critic_hidden=hidden["critic"],
        activation=activation,
        clip=clip,
    )
    return MLPExpert(config, tensors, facts)


def _statistics(mean: Any, variance: Any, epsilon: float) -> tuple[Tensor, Tensor]:
    """Mean and scale of `VecNormalize`, float64."""
    return torch.from_numpy(np.array(mean)), torch.from_numpy(np.sqrt(np.array(variance) + epsilon))


def _activation(layers: list[nn.Module]) -> str:
    """The one activation function of all layers."""
    if not layers:
        return ACTIVATIONS[0]  # none is needed
    names = {repr(layer) for layer in layers}
    name = type(layers[0]).__name__
    if len(names) > 1 or name not in ACTIVATIONS or repr(layers[0]) != repr(getattr(nn, name)()):
        raise ValueError(
            f"activations {', '.join(sorted(names))} are unknown (known: {', '.join(ACTIVATIONS)})"
        )
    return name

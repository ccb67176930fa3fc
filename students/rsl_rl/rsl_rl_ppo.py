"""rsl_rl's PPO as a student of batched tasks: the fastest one for them, on a CPU and on a GPU.

`train` runs rsl_rl's algorithm (networks, update, learning rate that follows the KL divergence) in a loop of
ours, which writes no pickles, prints nothing, and leaves global generators alone. What comes out is an
`RslRlPolicy`, which needs rsl_rl neither to act nor to load.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.students.rsl_rl.rsl_rl_policy import Progress, RslRlPolicy, RslRlPPOConfig, check_config
from tutelage.students.sb3.checkpoint import untouched_generators

if TYPE_CHECKING:
    from rsl_rl.algorithms import PPO

_EPS = 1e-2  # rsl_rl adds it to standard deviations of observations


def train(
    task: VecTask,
    config: RslRlPPOConfig,
    steps: int,
    log_dir: str | Path | None = None,
    callback: Callable[[Progress], bool | None] | None = None,
) -> RslRlPolicy:
    """Train rsl_rl's PPO on a batched task.

    The task's running episodes are ended; its automatic reset is on afterwards. Networks live on the task's
    device. The same task (freshly made), config and number of steps give the same policy on a CPU.

    Logged metrics, where there is a `log_dir`, after every iteration: ``train/<field>`` for the numbers of
    `Progress` (``success``, ``mean_return``, ``mean_length``, ``learning_rate``, ``noise_std``, ``seconds``),
    ``loss/<name>`` by rsl_rl's names, and the task's reward terms.

    Args:
        task: the environments; its tasks are its own, or of a task teacher's after ``task.teach``, which does
            not observe the first episodes where the config spreads their ends.
        config: the settings.
        steps: environment steps of all environments together; rounded up to whole iterations of
            ``num_envs * steps_per_env``.
        log_dir: where TensorBoard events go; None: nowhere.
        callback: called after every iteration; training stops where it returns False.

    Returns:
        The policy; its `history` has the progress of every iteration.

    Raises:
        ValueError: when a setting is unknown or out of range, or the task has no such view or another number
            of environments.
        ModuleNotFoundError: when rsl_rl is not installed; ``pip install 'tutelage[rsl-rl]'``.
    """
    from tutelage.envs.batched.adaptors.rsl_rl import RslRlVecTask

    check_config(config)
    if task.num_envs != config.num_envs:
        raise ValueError(
            f"the task has {task.num_envs} environments and the config num_envs={config.num_envs}; make the "
            "task with config.num_envs, or use dataclasses.replace(config, num_envs=task.num_envs)"
        )
    views = tuple(dict.fromkeys([config.actor_view, config.critic_view]))
    env = RslRlVecTask(task, views)
    writer: Any = None
    if log_dir is not None:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(log_dir))
    history: list[Progress] = []
    with _own_generators(task.device, config.seed):
        algorithm = _make(env, config)
        task.reset()
        for progress, terms in _iterations(env, algorithm, config, steps):
            history.append(progress)
            if writer is not None:
                _write(writer, progress, terms)
            if callback is not None and callback(progress) is False:
                break
        policy = _policy(algorithm, config, env)
    if writer is not None:
        writer.close()
    policy.history = history
    return policy


def _iterations(
    env: Any, algorithm: PPO, config: RslRlPPOConfig, steps: int
) -> Iterator[tuple[Progress, dict[str, float]]]:
    """Roll out, compute returns, update; yields progress and the means of the logged reward terms."""
    task: VecTask = env.vec_task
    began = perf_counter()
    if config.spread_starts:
        env.episode_length_buf = torch.randint_like(task.progress_buf, high=env.max_episode_length)
    observations = env.get_observations()
    returns = torch.zeros(env.num_envs, device=env.device)
    lengths = torch.zeros(env.num_envs, device=env.device)
    algorithm.train_mode()
    for iteration in range(math.ceil(steps / (config.num_envs * config.steps_per_env))):
        sums = torch.zeros(4, device=env.device)  # episodes, successes, returns, lengths
        terms: dict[str, Tensor] = {}
        with torch.inference_mode():
            for _ in range(config.steps_per_env):
                actions = algorithm.act(observations)
                observations, rewards, dones, extras = env.step(actions)
                algorithm.process_env_step(observations, rewards, dones, extras)
                ended = dones.bool()
                returns += rewards
                lengths += 1
                sums += torch.stack(
                    [ended.sum(), extras["success"].sum(), (returns * ended).sum(), (lengths * ended).sum()]
                )
                for name, mean in extras.get("log", {}).items():
                    # NaN until the first episode ends, on a GPU
                    total = torch.where(ended.any(), mean * ended.sum(), 0.0)
                    terms[name] = terms.get(name, torch.zeros((), device=env.device)) + total
                returns.masked_fill_(ended, 0.0)
                lengths.masked_fill_(ended, 0.0)
            algorithm.compute_returns(observations)
        losses = algorithm.update()
        episodes, *totals = sums.tolist()
        success, mean_return, mean_length = (total / episodes if episodes else math.nan for total in totals)
        yield (
            Progress(
                steps=(iteration + 1) * config.num_envs * config.steps_per_env,
                seconds=perf_counter() - began,
                episodes=int(episodes),
                success=success,
                mean_return=mean_return,
                mean_length=mean_length,
                learning_rate=algorithm.learning_rate,
                noise_std=float(algorithm.actor.distribution.std_param.detach().mean()),
                losses={name: float(loss) for name, loss in losses.items()},
            ),
            {name: float(total) / max(episodes, 1) for name, total in terms.items() if "reward/" in name},
        )


def _make(env: Any, config: RslRlPPOConfig) -> PPO:
    """rsl_rl's algorithm with its networks, of the dict that its runner would take."""
    from rsl_rl.algorithms import PPO

    shared = {
        "class_name": "MLPModel",
        "activation": config.activation,
        "obs_normalization": config.normalize_observations,
    }
    settings = {
        "num_steps_per_env": config.steps_per_env,
        "obs_groups": {"actor": [config.actor_view], "critic": [config.critic_view]},
        "multi_gpu": None,
        "actor": {
            **shared,
            "hidden_dims": list(config.actor_hidden),
            "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": config.init_noise_std},
        },
        "critic": {**shared, "hidden_dims": list(config.critic_hidden)},
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": config.epochs,
            "num_mini_batches": config.minibatches,
            "clip_param": config.clip,
            "gamma": config.gamma,
            "lam": config.lam,
            "value_loss_coef": config.value_loss,
            "entropy_coef": config.entropy,
            "learning_rate": config.learning_rate,
            "max_grad_norm": config.max_grad_norm,
            "schedule": config.schedule,
            "desired_kl": config.desired_kl,
        },
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its networks
        return PPO.construct_algorithm(env.get_observations(), env, settings, str(env.device))


def _policy(algorithm: PPO, config: RslRlPPOConfig, env: Any) -> RslRlPolicy:
    """Copy the networks into a policy of ours."""
    task: VecTask = env.vec_task
    num_obs, num_states = (task.views[view].shape[1] for view in (config.actor_view, config.critic_view))
    policy = RslRlPolicy(config, num_obs, num_states, task.num_actions).to(task.device)
    with torch.no_grad():
        for ours, theirs in ((policy.actor, algorithm.actor), (policy.critic, algorithm.critic)):
            ours.layers.load_state_dict(theirs.mlp.state_dict())
            if config.normalize_observations:
                ours.mean.copy_(theirs.obs_normalizer.mean)
                ours.scale.copy_(theirs.obs_normalizer.std + _EPS)
        policy.noise_std.copy_(algorithm.actor.distribution.std_param)
    return policy


def _write(writer: Any, progress: Progress, terms: Mapping[str, float]) -> None:
    values = {name: value for name, value in asdict(progress).items() if isinstance(value, float)}
    losses = {f"loss/{name}": loss for name, loss in progress.losses.items()}
    for name, value in {**{f"train/{name}": v for name, v in values.items()}, **losses, **terms}.items():
        if not math.isnan(value):
            writer.add_scalar(name, value, progress.steps)


@contextlib.contextmanager
def _own_generators(device: torch.device, seed: int) -> Iterator[None]:
    """rsl_rl draws from torch's global generators: seed them inside, put them back after.

    It also switches off the checks of all of torch's distributions, which are switched on again.
    """
    checks = torch.distributions.Distribution._validate_args
    devices = [device] if device.type == "cuda" else []
    with untouched_generators(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.distributions.Distribution.set_default_validate_args(checks)

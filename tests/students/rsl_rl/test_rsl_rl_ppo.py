"""rsl_rl's PPO on batched tasks, and the policy that comes out."""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("rsl_rl")

from tutelage.envs.batched.adaptors.sb3 import SB3VecTask
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.batched.worlds.stump_walker import StumpWalker
from tutelage.envs.contract.state import StateError
from tutelage.students.rsl_rl.rsl_rl_policy import Progress, RslRlPolicy, RslRlPPOConfig, config_from_json
from tutelage.students.rsl_rl.rsl_rl_ppo import train
from tutelage.students.sb3.evaluation import evaluate

SMALL = RslRlPPOConfig(num_envs=64, actor_hidden=(16,), critic_hidden=(16,), steps_per_env=12)


@pytest.fixture(scope="module")
def target(rail: Any) -> Callable[..., VecTask]:
    """Makes the task: ``target(seed=0, num_envs=64)``."""

    class Target(rail):
        """The policy sees velocity and offset, and the critic the position too."""

        default_obs_view = "policy"

        def compute_views(self) -> dict[str, Tensor]:
            privileged = super().compute_views()["privileged"]
            return {"policy": privileged[:, 1:], "privileged": privileged}

    def make(seed: int = 0, num_envs: int = 64) -> VecTask:
        return Target(num_envs, seed=seed, threads=1)

    return make


@pytest.fixture(scope="module")
def trained(target: Callable[..., VecTask]) -> RslRlPolicy:
    return train(target(), SMALL, 15_360)


def test_it_learns(target: Callable[..., VecTask], trained: RslRlPolicy) -> None:
    """A tenth of the targets is near the start; after 15,000 steps the policy gets to nearly all."""
    history = trained.history
    assert [progress.steps for progress in history] == [768 * (i + 1) for i in range(20)]
    assert history[0].success < 0.3
    assert sum(progress.episodes for progress in history) >= 15_360 // 12
    test = SB3VecTask(target(seed=1))
    episodes = evaluate(trained, test, test.task_space.grid(100))  # type: ignore[arg-type,attr-defined]
    assert episodes.successes.mean() > 0.9


def test_training_repeats_and_leaves_global_state_alone(
    target: Callable[..., VecTask],
    trained: RslRlPolicy,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)  # others switch it off
    torch.manual_seed(5)
    random.seed(5)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    again = train(target(), SMALL, 15_360, callback=lambda progress: progress.steps < 3 * 768)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    assert torch.distributions.Distribution._validate_args
    assert capsys.readouterr().out == ""
    assert len(again.history) == 3  # stopped by the callback
    for ours, theirs in zip(again.history, trained.history, strict=False):
        assert dataclasses.replace(ours, seconds=0) == dataclasses.replace(theirs, seconds=0)
    other = train(target(), dataclasses.replace(SMALL, seed=1), 768)
    assert other.history[0].losses != trained.history[0].losses


def test_progress_is_counted_by_hand(target: Callable[..., VecTask]) -> None:
    """With random first lengths off, 24 steps of 64 environments are two episodes of 12 each."""
    config = dataclasses.replace(SMALL, spread_starts=False, steps_per_env=24)
    seen: list[Progress] = []
    policy = train(target(), config, 1, callback=seen.append)  # type: ignore[arg-type]
    assert policy.history == seen
    assert (seen[0].steps, seen[0].episodes, seen[0].mean_length) == (24 * 64, 2 * 64, 12)
    assert 0 <= seen[0].success <= 1
    assert seen[0].mean_return < 0


def test_the_policy_acts_as_rsl_rls(target: Callable[..., VecTask], trained: RslRlPolicy) -> None:
    """Actions are deterministic, in range, and the mean of the distribution; the critic sees its own view."""
    task = target(seed=3)
    obs_dict = task.reset()
    actions = trained.act(obs_dict)
    assert torch.equal(actions, trained.act(obs_dict))
    assert actions.shape == (64, 1)
    assert not actions.requires_grad
    mean, std = trained.distribution(obs_dict)
    assert torch.equal(mean.clamp(-1, 1), actions)
    assert std.shape == mean.shape
    assert (std > 0).all()
    assert trained.value(obs_dict).shape == (64,)
    predicted, state = trained.predict(obs_dict["policy"].numpy())
    np.testing.assert_array_equal(predicted, actions)
    assert state is None
    with pytest.raises(ValueError, match="distribution"):
        trained.predict(obs_dict["policy"].numpy(), deterministic=False)


def test_copied_networks_compute_what_rsl_rls_compute(target: Callable[..., VecTask]) -> None:
    from tutelage.envs.batched.adaptors.rsl_rl import RslRlVecTask
    from tutelage.students.rsl_rl import rsl_rl_ppo

    env = RslRlVecTask(target(), ("policy", "privileged"))
    with rsl_rl_ppo._own_generators(torch.device("cpu"), 0):
        algorithm = rsl_rl_ppo._make(env, SMALL)
        for _ in rsl_rl_ppo._iterations(env, algorithm, SMALL, 768):
            pass
        observations = env.get_observations()
        theirs = algorithm.actor(observations), algorithm.critic(observations)[:, 0]
        policy = rsl_rl_ppo._policy(algorithm, SMALL, env)
    torch.testing.assert_close(policy.distribution(env.vec_task.obs_dict)[0], theirs[0])
    torch.testing.assert_close(policy.value(env.vec_task.obs_dict), theirs[1])


def test_save_and_load(target: Callable[..., VecTask], trained: RslRlPolicy, tmp_path: Path) -> None:
    trained.save(tmp_path / "policy")
    assert {path.name for path in (tmp_path / "policy").iterdir()} == {"policy.safetensors", "policy.json"}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loaded = RslRlPolicy.load(tmp_path / "policy")
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.config == trained.config
    obs_dict = target(seed=3).reset()
    assert torch.equal(loaded.act(obs_dict), trained.act(obs_dict))
    assert torch.equal(loaded.value(obs_dict), trained.value(obs_dict))


def test_damaged_files_are_refused(trained: RslRlPolicy, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RslRlPolicy.load(tmp_path)
    trained.save(tmp_path)
    weights, description = (tmp_path / name for name in ("policy.safetensors", "policy.json"))
    whole, text = weights.read_bytes(), description.read_text()
    weights.write_bytes(whole[:-9])
    with pytest.raises(StateError, match="no policy of this kind"):
        RslRlPolicy.load(tmp_path)
    weights.write_bytes(whole)
    for broken in (
        text[:-20],
        "[]",
        text.replace('"num_obs": 2', '"num_obs": 3'),
        text.replace("gamma", "gama"),
    ):
        description.write_text(broken)
        with pytest.raises(StateError, match="no policy of this kind"):
            RslRlPolicy.load(tmp_path)


@settings(max_examples=30, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 64), min_size=1, max_size=3).map(tuple),
    gamma=st.floats(0, 1),
    rate=st.floats(1e-6, 1),
    schedule=st.sampled_from(["adaptive", "fixed"]),
)
def test_configs_are_json(hidden: tuple[int, ...], gamma: float, rate: float, schedule: Any) -> None:
    config = RslRlPPOConfig(actor_hidden=hidden, gamma=gamma, learning_rate=rate, schedule=schedule)
    assert config_from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gama": 0.9}, "unknown setting of RslRlPPOConfig 'gama'; did you mean 'gamma'"),
        ({"activation": "rellu"}, "unknown activation 'rellu'; did you mean 'relu'"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine'"),
        ({"actor_hidden": []}, "at least one hidden layer"),
        ({"num_envs": 1, "steps_per_env": 2}, "do not make 4 minibatches"),
        ({"learning_rate": 0}, "learning_rate must be positive"),
        ({"lam": 1.5}, "lam must be from 0 to 1"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_json(values)


def test_what_does_not_fit_the_task_is_named(target: Callable[..., VecTask]) -> None:
    with pytest.raises(ValueError, match=r"the task has 3 environments and the config num_envs=64"):
        train(target(num_envs=3), SMALL, 100)
    with pytest.raises(ValueError, match="view 'privilged'; did you mean 'privileged'"):
        train(target(), dataclasses.replace(SMALL, critic_view="privilged"), 100)


def test_stump_walker_with_tensorboard(tmp_path: Path) -> None:
    config = RslRlPPOConfig(num_envs=16, actor_hidden=(16,), critic_hidden=(16,), epochs=1)
    policy = train(StumpWalker(16, threads=1), config, 2 * 16 * 24, log_dir=tmp_path)
    assert [progress.steps for progress in policy.history] == [384, 768]
    assert np.isfinite(list(policy.history[-1].losses.values())).all()

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("train/learning_rate")] == [384, 768]
    assert {"loss/value", "loss/surrogate", "train/noise_std"} <= set(events.Tags()["scalars"])
    assert not list(tmp_path.rglob("*.pt"))  # no pickles

"""Students learn nothing from episodes that do not train, and as ever from the others."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import TRPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from tutelage.envs.point_mass.point_mass_gate import PointMassGateVecEnv
from tutelage.students.sb3.config import StudentConfig
from tutelage.students.sb3.student import make_student
from tutelage.students.sb3.training_mask import leave_out_untrained

Counted = Callable[..., Any]


class DictCartPole(gym.ObservationWrapper[Any, Any, Any]):
    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.observation_space = gym.spaces.Dict({"pole": self.env.observation_space})

    def observation(self, observation: Any) -> Any:
        return {"pole": observation}


def cartpoles(n: int, dicts: bool = False) -> VecEnv:
    return DummyVecEnv([DictCartPole if dicts else (lambda: gym.make("CartPole-v1"))] * n)


KWARGS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 64,
    "n_epochs": 3,
    "ent_coef": 0.01,
    "learning_rate": 0.01,
}
POLICIES = {"ppo": "MlpPolicy", "recurrent-ppo": "MlpLstmPolicy"}


def build(algorithm: str, venv: VecEnv, **changes: Any) -> Any:
    policy_kwargs: dict[str, Any] = {"net_arch": [8]}
    if algorithm == "recurrent-ppo":
        policy_kwargs["lstm_hidden_size"] = 8
    kwargs = {**KWARGS, "policy_kwargs": policy_kwargs, **changes}
    return make_student(StudentConfig(algorithm, POLICIES[algorithm], venv.num_envs, kwargs), venv, 0, 10_000)


def parameters(model: Any) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


@pytest.mark.parametrize("algorithm", POLICIES)
@pytest.mark.parametrize("dicts", [False, True])
def test_where_everything_trains_numbers_are_plain_sb3s(
    counted: Counted, algorithm: str, dicts: bool
) -> None:
    plain = build(algorithm, cartpoles(4, dicts))
    assert "train" not in vars(plain)  # nothing is replaced where no proposals are
    masked = build(algorithm, counted(cartpoles(4, dicts)))
    assert "train" in vars(masked)
    for model in (plain, masked):
        model.set_random_seed(0)
        model.learn(4 * 128)
    assert torch.equal(parameters(plain), parameters(masked))


@pytest.mark.parametrize("algorithm", POLICIES)
@pytest.mark.parametrize("dicts", [False, True])
def test_nothing_is_learnt_where_nothing_trains(counted: Counted, algorithm: str, dicts: bool) -> None:
    model = build(algorithm, counted(cartpoles(4, dicts), lambda ids, _: ids < 0))
    before, optimiser = parameters(model), str(model.policy.optimizer.state_dict())
    model.learn(3 * 128)
    assert torch.equal(before, parameters(model))
    assert optimiser == str(model.policy.optimizer.state_dict())
    assert model._n_updates == 0
    assert model.num_timesteps == 3 * 128  # they were played


@pytest.mark.parametrize("algorithm", POLICIES)
@pytest.mark.parametrize("dicts", [False, True])
def test_students_learn_from_the_other_episodes(counted: Counted, algorithm: str, dicts: bool) -> None:
    model = build(algorithm, counted(cartpoles(4, dicts), lambda ids, _: ids % 3 != 0))
    before = parameters(model)
    model.learn(4 * 128)
    assert not torch.equal(before, parameters(model))
    assert bool(torch.isfinite(parameters(model)).all())
    assert model._n_updates == 4 * KWARGS["n_epochs"]


class Scripted(VecEnv):
    """Observations, rewards and ends of episodes that do not depend on the actions."""

    def __init__(self, environments: list[int], steps: int = 64) -> None:
        rng = np.random.default_rng(0)
        self._observations = rng.normal(size=(steps + 1, 8, 3)).astype(np.float32)[:, environments]
        self._rewards = rng.normal(size=(steps, 8))[:, environments]
        self._dones = (rng.random((steps, 8)) < 0.2)[:, environments]
        space = gym.spaces.Box(-10.0, 10.0, (3,), np.float32)
        super().__init__(len(environments), space, gym.spaces.Box(-1.0, 1.0, (2,), np.float32))
        self._time = 0

    def reset(self) -> Any:
        return self._observations[self._time]

    def step_async(self, actions: Any) -> None: ...
    def step_wait(self) -> Any:
        row, self._time = self._time, self._time + 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        return self.reset(), self._rewards[row].copy(), self._dones[row].copy(), infos

    def close(self) -> None: ...
    def get_attr(self, attr_name: str, indices: Any = None) -> Any:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...
    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any: ...
    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> Any:
        return [False] * self.num_envs


@pytest.mark.parametrize("algorithm", POLICIES)
def test_excluding_half_is_training_on_the_other_half_alone(
    counted: Counted, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch: environments 1, 3, 5, 7 left out, or not there at all."""
    changes = {"n_steps": 16, "batch_size": 64, "n_epochs": 1, "learning_rate": 1.0}
    excluded = build(
        algorithm, counted(Scripted(list(range(8))), lambda _, environments: environments % 2 == 0), **changes
    )
    half = build(algorithm, Scripted([0, 2, 4, 6]), **changes)
    half.policy.load_state_dict(excluded.policy.state_dict())
    before = parameters(excluded)
    monkeypatch.setattr(np.random, "randint", lambda high: 0)  # recurrent batches are not cut within episodes
    for model in (excluded, half):
        _act_as_the_mean(model)
        model.policy.optimizer = torch.optim.SGD(model.policy.parameters(), lr=1.0)
        model.learn(16 * model.n_envs)
    np.testing.assert_allclose(
        excluded.rollout_buffer.returns.reshape(8, 16)[::2],
        half.rollout_buffer.returns.reshape(4, 16),
        rtol=1e-5,
    )
    changed = parameters(excluded) - before
    assert changed.abs().max() > 0.05
    torch.testing.assert_close(changed, parameters(half) - before, atol=1e-5, rtol=1e-4)


def _act_as_the_mean(model: Any) -> None:
    """Draw no actions: they would differ with the number of environments."""
    forward = model.policy.forward
    model.policy.forward = lambda *args: forward(*args, deterministic=True)


@pytest.mark.parametrize("algorithm", POLICIES)
def test_minibatches_hold_all_that_trains_and_nothing_else(counted: Counted, algorithm: str) -> None:
    venv = counted(Scripted(list(range(8))), lambda ids, _: ids % 2 == 0)
    model = build(algorithm, venv, n_steps=16, batch_size=24)
    buffer, epochs = model.rollout_buffer, []

    def train() -> None:
        epochs.append(list(buffer.get(24)))

    model.train = train
    for _ in range(3):  # episodes cross roll-outs
        model.learn(16 * 8, reset_num_timesteps=False)
        marks = np.array(venv.played[-16:])
        rows = np.flatnonzero(marks.T)
        assert 0 < len(rows) < marks.size
        batches = epochs[-1]
        ones = torch.ones(24)
        valid = [getattr(batch, "mask", ones[: len(batch.returns)]) > 0.5 for batch in batches]
        learnt = [batch.returns[mask].numpy() for batch, mask in zip(batches, valid, strict=True)]
        np.testing.assert_array_equal(
            np.sort(np.concatenate(learnt)), np.sort(buffer.returns.flatten()[rows])
        )
        sizes = [len(part) for part in learnt]
        assert len(sizes) == -(-len(rows) // 24)
        assert max(sizes) - min(sizes) <= 1


def test_sequences_of_a_recurrent_student_begin_with_the_states_that_it_had(counted: Counted) -> None:
    """Log-probabilities of the old policy, computed again from the batches, are those of the roll-out."""
    model = build("recurrent-ppo", counted(Scripted(list(range(8))), lambda ids, _: ids % 3 != 1), n_steps=16)
    checked: list[int] = []

    def train() -> None:
        for batch in model.rollout_buffer.get(24):
            with torch.no_grad():
                _, log_prob, _ = model.policy.evaluate_actions(
                    batch.observations, batch.actions, batch.lstm_states, batch.episode_starts
                )
            mask = batch.mask > 0.5
            np.testing.assert_allclose(log_prob[mask], batch.old_log_prob[mask], atol=1e-5)
            checked.append(int(mask.sum()))

    model.train = train
    model.learn(3 * 16 * 8)
    assert 0 < sum(checked) < 3 * 16 * 8


@pytest.mark.parametrize("algorithm", [A2C, TRPO])
def test_other_on_policy_algorithms_too(counted: Counted, algorithm: Any) -> None:
    venv = counted(cartpoles(4), lambda ids, _: ids % 2 == 0)
    model = algorithm("MlpPolicy", venv, n_steps=16, seed=0, device="cpu")
    leave_out_untrained(model)
    before = parameters(model)
    model.learn(256)
    assert not torch.equal(before, parameters(model))
    venv._trains = lambda ids, _: ids < 0
    model._last_obs = None
    before = parameters(model)
    model.learn(256)
    assert torch.equal(before, parameters(model))


def test_normalisers_are_no_obstacle(counted: Counted) -> None:
    venv = counted(PointMassGateVecEnv(4), lambda ids, _: ids < 0)
    config = StudentConfig(
        "ppo", n_envs=4, kwargs=KWARGS, normalize_observations=True, normalize_rewards=True
    )
    model = make_student(config, venv, 0, 1000)
    assert isinstance(model.get_env(), VecNormalize)
    assert type(model) is PPO
    before = parameters(model)
    model.learn(128)
    assert torch.equal(before, parameters(model))


def test_off_policy_students_are_stopped(counted: Counted) -> None:
    kwargs = {"learning_starts": 10, "buffer_size": 100}
    everything = make_student(StudentConfig("sac", kwargs=kwargs), counted(PointMassGateVecEnv(2)), 0, 100)
    everything.learn(20)
    venv = counted(PointMassGateVecEnv(2), lambda ids, _: ids != 1)
    model = make_student(StudentConfig("sac", kwargs=kwargs), venv, 0, 100)
    with pytest.raises(ValueError, match=r"SAC learns from everything.*trains=False.*such as ppo"):
        model.learn(20)

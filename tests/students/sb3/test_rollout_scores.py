"""Scores at the end of an SB3 student's roll-outs, against arithmetic done by hand.

The student's critic answers 0.5 to everything, gamma and lambda are 0.5, and the environment plays a script.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from tutelage.envs.contract.interface import Scores
from tutelage.envs.contract.state import load_state, save_state
from tutelage.envs.point_mass.point_mass_gate import PointMassGateVecEnv
from tutelage.students.sb3.rollout_scores import RolloutScores

VALUE = 0.5


class Script(VecEnv):
    """Plays a list of steps: rewards, dones, whether dones are time limits, successes; (steps, num_envs)."""

    def __init__(self, rewards: Any, dones: Any, limits: Any = False, successes: Any = True) -> None:
        self.rewards, self.dones = np.array(rewards, dtype=np.float64), np.array(dones, dtype=bool)
        self.limits = np.broadcast_to(limits, self.dones.shape)
        self.successes = np.broadcast_to(successes, self.dones.shape)
        space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(self.dones.shape[1], space, gym.spaces.Box(-1.0, 1.0, (1,), np.float32))
        self._time = 0

    def reset(self) -> Any:
        return np.zeros((self.num_envs, 2), np.float32)

    def step_async(self, actions: Any) -> None:
        pass

    def step_wait(self) -> Any:
        row, self._time = self._time, self._time + 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(self.dones[row]):
            limit = bool(self.limits[row, i])
            infos[i] = {"terminal_observation": np.ones(2, np.float32), "TimeLimit.truncated": limit}
            infos[i]["success"] = bool(self.successes[row, i])
        return self.reset(), self.rewards[row].copy(), self.dones[row].copy(), infos

    def close(self) -> None: ...
    def get_attr(self, attr_name: str, indices: Any = None) -> Any:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...
    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any: ...
    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> Any:
        return [False] * self.num_envs


class Collected:
    """A task teacher's `score`, which writes down what it got and what the student's weights were."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], dict[str, Any]]] = []

    def score(self, ids: Any, scores: Any) -> None:
        self.calls.append((ids.tolist(), dict(scores)))


def student(venv: VecEnv, recurrent: bool = False, steps: int = 4) -> Any:
    algorithm: Any = RecurrentPPO if recurrent else PPO
    policy = "MlpLstmPolicy" if recurrent else "MlpPolicy"
    kwargs: dict[str, Any] = {"lstm_hidden_size": 4} if recurrent else {}
    model = algorithm(
        policy,
        venv,
        n_steps=steps,
        batch_size=steps * venv.num_envs,
        n_epochs=1,
        learning_rate=0.0,
        gamma=0.5,
        gae_lambda=0.5,
        seed=0,
        device="cpu",
        policy_kwargs={"net_arch": [4], **kwargs},
    )
    with torch.no_grad():
        model.policy.value_net.weight.zero_()
        model.policy.value_net.bias.fill_(VALUE)
    return model


def learn(model: Any, teacher: Collected, rollouts: int = 1, **kwargs: Any) -> RolloutScores:
    scores = RolloutScores(model, teacher.score, **kwargs)
    model.learn(rollouts * model.n_steps * model.n_envs, callback=scores)
    return scores


def check(scores: dict[str, Any], row: int, expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert scores[name][row] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("recurrent", [False, True])
def test_several_episodes_in_one_rollout_and_one_that_goes_on(
    counted: Callable[..., Any], recurrent: bool
) -> None:
    rewards = [[1.0], [2.0], [0.0], [4.0], [1.0], [1.0], [1.0], [1.0]]
    dones = [[0], [1], [1], [0], [1], [0], [0], [0]]
    teacher = Collected()
    learn(student(counted(Script(rewards, dones)), recurrent), teacher, rollouts=2)
    assert isinstance(teacher, Scores)
    (first_ids, first), (second_ids, second) = teacher.calls
    assert (first_ids, second_ids) == ([0, 1], [2])
    # Episode 0: deltas 1 + 0.25 - 0.5 = 0.75 and 2 - 0.5 = 1.5; A = 0.75 + 0.25 x 1.5 = 1.125 and 1.5.
    zero = {"gae_l1": 1.3125, "pvl": 1.3125, "td": 1.125, "return": 3, "max_mc": 2.5, "mna": 0, "steps": 2}
    check(first, 0, {**zero, "mean_value": 0.5, "initial_value": 0.5})
    # Episode 1: A = 0 - 0.5; solved.
    check(first, 1, {"gae_l1": 0.5, "pvl": 0, "td": 0.5, "return": 0, "max_mc": -0.5, "mna": 0.5, "steps": 1})
    # Episode 2 crosses: A = 4 + 0.25 - 0.5 = 3.75, cut off there by the roll-out; then A = 1 - 0.5.
    check(second, 0, {"gae_l1": 2.125, "pvl": 2.125, "td": 2.125, "return": 5, "max_mc": 4.5, "steps": 2})


@pytest.mark.parametrize("recurrent", [False, True])
def test_time_limits_bootstrap_advantages_but_not_returns(
    counted: Callable[..., Any], recurrent: bool
) -> None:
    rewards = [[1.0, 1.0], [2.0, 2.0]]
    venv = counted(Script(rewards, [[0, 0], [1, 1]], limits=[[False, False], [True, False]]))
    teacher = Collected()
    model = student(venv, recurrent, steps=2)
    learn(model, teacher)
    [(ids, scores)] = teacher.calls
    assert ids == [0, 1]
    # SB3 wrote 2 + 0.5 x 0.5 into its buffer: delta 2.25 - 0.5 = 1.75, A_0 = 0.75 + 0.25 x 1.75 = 1.1875
    np.testing.assert_allclose(model.rollout_buffer.rewards, [[1, 1], [2.25, 2]])
    check(scores, 0, {"pvl": (1.1875 + 1.75) / 2, "td": (0.75 + 1.75) / 2, "return": 3, "max_mc": 2.5})
    # and for an episode that ended: delta 1.5, A_0 = 1.125
    check(scores, 1, {"pvl": (1.125 + 1.5) / 2, "td": (0.75 + 1.5) / 2, "return": 3, "max_mc": 2.5})


def test_normalised_rewards_are_divided_back(counted: Callable[..., Any]) -> None:
    venv = VecNormalize(counted(Script([[2.0], [100.0]], [[0], [1]])), norm_obs=False, training=False)
    venv.ret_rms.var = np.array(4.0 - venv.epsilon)  # rewards are divided by 2, and cut off at 10
    teacher = Collected()
    learn(student(venv, steps=2), teacher)
    [(_, scores)] = teacher.calls
    # The student saw 1 and 10: deltas 1 + 0.25 - 0.5 = 0.75 and 10 - 0.5 = 9.5,
    # A_0 = 0.75 + 0.25 x 9.5 = 3.125.
    # In units of return all are doubled; the return itself was never cut off.
    check(scores, 0, {"pvl": 3.125 + 9.5, "td": 0.75 + 9.5, "mean_value": 1, "initial_value": 1})
    check(scores, 0, {"return": 102, "max_mc": 101})


def test_each_step_is_scaled_as_its_reward_was(counted: Callable[..., Any]) -> None:
    """Rewards 3 that end each episode: the error is 3 - scale x value, whatever the scale has become."""
    scales: list[float] = []

    class Spy(BaseCallback):
        def _on_step(self) -> bool:
            scales.append(float(np.sqrt(venv.ret_rms.var + venv.epsilon)))
            return True

    script = Script([[1.0, 5.0], [3.0, 3.0], [-1.0, 4.0], [3.0, 3.0]], [[0, 1], [1, 1], [0, 1], [1, 1]])
    venv = VecNormalize(counted(script), norm_obs=False, gamma=0.5)
    teacher = Collected()
    model = student(venv)
    scores = RolloutScores(model, teacher.score)
    model.learn(8, callback=CallbackList([Spy(), scores]))
    assert len({round(scale, 6) for scale in scales}) == 4  # it moved
    [(ids, found)] = teacher.calls
    assert ids == [1, 0, 2, 4, 3, 5]  # numbered when proposed, scored when ended
    short = found["steps"] == 1
    rewards, at = np.array([5.0, 3.0, 4.0, 3.0]), np.array(scales)
    np.testing.assert_allclose(found["td"][short], np.abs(rewards - VALUE * at), rtol=1e-6)
    np.testing.assert_allclose(found["mean_value"][short], VALUE * at, rtol=1e-6)
    np.testing.assert_allclose(found["return"], [5, 4, 3, 4, 2, 3])


def test_scores_do_not_depend_on_the_number_of_environments(counted: Callable[..., Any]) -> None:
    rng = np.random.default_rng(3)
    rewards, dones = rng.normal(size=(12, 3)), rng.random((12, 3)) < 0.3
    together = Collected()
    learn(student(counted(Script(rewards, dones, limits=dones & (rewards > 0)))), together, rollouts=3)
    results = []
    for i in range(3):
        one = Script(rewards[:, [i]], dones[:, [i]], limits=(dones & (rewards > 0))[:, [i]])
        alone = Collected()
        learn(student(counted(one)), alone, rollouts=3)
        results += [
            (s["return"][k], s["pvl"][k], s["td"][k]) for ids, s in alone.calls for k in range(len(ids))
        ]
    expected = [
        (s["return"][k], s["pvl"][k], s["td"][k]) for ids, s in together.calls for k in range(len(ids))
    ]
    assert len(expected) == np.count_nonzero(dones)
    np.testing.assert_allclose(sorted(expected), sorted(results), rtol=1e-6)


@pytest.mark.parametrize("score_pieces", [False, True])
def test_resumes_exactly_between_two_rollouts(
    counted: Callable[..., Any], tmp_path: Path, score_pieces: bool
) -> None:
    rng = np.random.default_rng(4)
    script = (rng.normal(size=(16, 2)), rng.random((16, 2)) < 0.15)
    uninterrupted, resumed = Collected(), Collected()
    learn(student(counted(Script(*script))), uninterrupted, rollouts=4, score_pieces=score_pieces)
    model = student(counted(Script(*script)))
    scores = learn(model, resumed, rollouts=2, score_pieces=score_pieces)
    save_state(tmp_path / "scores.npz", scores.state_dict())
    again = RolloutScores(model, resumed.score, score_pieces=score_pieces)
    again.load_state_dict(load_state(tmp_path / "scores.npz"))
    model.learn(16, callback=again, reset_num_timesteps=False)
    assert len(uninterrupted.calls) == len(resumed.calls)
    for (ids, expected), (other, found) in zip(uninterrupted.calls, resumed.calls, strict=True):
        assert ids == other
        for name in expected:
            np.testing.assert_array_equal(expected[name], found[name])


def test_new_episodes_between_two_stages_leave_nothing_behind(counted: Callable[..., Any]) -> None:
    teacher = Collected()
    rewards = np.ones((8, 1))
    model = student(counted(Script(rewards, [[0]] * 4 + [[0], [1], [0], [0]])))
    scores = learn(model, teacher)
    model._last_obs = None  # as `train_until` does
    model.learn(4, callback=scores, reset_num_timesteps=False)
    assert [ids for ids, _ in teacher.calls] == [[1]]
    check(teacher.calls[0][1], 0, {"return": 2, "steps": 2})


def test_scores_come_before_the_update(counted: Callable[..., Any]) -> None:
    model = student(counted(Script(np.ones((4, 1)), np.ones((4, 1)))))
    seen: list[int] = []
    scores = RolloutScores(model, lambda ids, scores: seen.append(model._n_updates))
    model.learn(4, callback=[scores])
    assert (seen, model._n_updates) == ([0], 1)


def test_what_has_no_scores_is_refused(counted: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="have no `ids`; put a TaughtVecEnv"):
        RolloutScores(student(Script([[0.0]], [[0]])), print)
    with pytest.raises(TypeError, match="SAC has no roll-outs"):
        RolloutScores(SAC("MlpPolicy", counted(PointMassGateVecEnv(2)), device="cpu"), print)

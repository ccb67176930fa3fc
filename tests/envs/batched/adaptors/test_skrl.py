"""Batched tasks as environments of skrl, whose own PPO and trainer train on them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("skrl")

from skrl.agents.torch.ppo import PPO
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer

from tutelage.envs.batched.adaptors.skrl import SkrlVecTask
from tutelage.envs.batched.worlds.stump_walker import StumpWalker
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.proposals import Proposals


def test_interface(sliding_mass: Any) -> None:
    env = SkrlVecTask(sliding_mass(3, threads=1))
    assert (env.num_envs, env.num_agents, env.device) == (3, 1, torch.device("cpu"))
    assert env.observation_space.shape == (3,)
    assert env.state_space.shape == (4,)
    assert env.action_space.shape == (1,)
    assert env.max_episode_length == 12  # of the task
    observations, _ = env.reset()
    assert observations.shape == (3, 3)
    observations, rewards, terminated, truncated, _ = env.step(torch.zeros(3, 1))
    assert observations.shape == (3, 3)
    assert rewards.shape == terminated.shape == truncated.shape == (3, 1)
    assert env.state().shape == (3, 4)


def test_ends_are_told_apart(sliding_mass: Any) -> None:
    env = SkrlVecTask(sliding_mass(2, threads=1))
    env.reset()
    env.vec_task.start(torch.arange(2), [[0.5, 1.0]] * 2, [0, 1])
    env.vec_task.progress_buf[1] = 8
    for step in range(1, 5):
        observations, _, terminated, truncated, info = env.step(torch.tensor([[1.0], [0.0]]))
        assert ("episode" in info) == (step == 4)
    assert terminated.tolist() == [[True], [False]]
    assert truncated.tolist() == [[False], [True]]
    assert info["episode"]["episode/success"] == 0.5
    assert info["terminal_obs"]["obs"][0, 2] <= 0 < observations[0, 2]  # at the goal; far from the next one


def test_results_are_kept_by_later_steps(sliding_mass: Any) -> None:
    env = SkrlVecTask(sliding_mass(2, threads=1, obs_view="raw"))
    first, _ = env.reset()  # would be the simulator's own memory
    kept = [first, *env.step(torch.ones(2, 1))[1:4], env.state()]
    copies = [tensor.clone() for tensor in kept]
    kept[1] += 1  # as skrl does with rewards
    env.step(torch.ones(2, 1))
    kept[1] -= 1
    for now, then in zip(kept, copies, strict=True):
        torch.testing.assert_close(now, then)


def test_the_only_environment_is_not_reset_twice(sliding_mass: Any) -> None:
    env = SkrlVecTask(sliding_mass(1, threads=1))
    env.reset()
    for _ in range(12):
        observations, _, _, truncated, _ = env.step(torch.zeros(1, 1))
    assert truncated.all()
    running = env.vec_task.tasks.clone()
    again, _ = env.reset()
    assert torch.equal(again, observations)
    assert torch.equal(env.vec_task.tasks, running)
    env.step(torch.zeros(1, 1))
    env.reset()
    assert not torch.equal(env.vec_task.tasks, running)


def test_it_resets_whatever_another_adaptor_left(sliding_mass: Any) -> None:
    env = SkrlVecTask(sliding_mass(2, threads=1))
    env.reset()
    env.vec_task.auto_reset = False
    for _ in range(13):
        env.step(torch.zeros(2, 1))
    assert env.vec_task.progress_buf.tolist() == [1, 1]  # of 12 steps


class Recorder:
    """A task teacher that proposes one task, for at most 5 steps, and keeps what it observes."""

    def __init__(self, task: list[float]) -> None:
        self.task = np.array([task])
        self.proposed = 0
        self.seen: list[Episodes] = []

    def propose(self, n: int) -> Proposals:
        self.proposed += n
        return Proposals(np.repeat(self.task, n, 0), horizon=np.full(n, 5))

    def observe(self, episodes: Episodes) -> None:
        self.seen.append(episodes)


class Policy(GaussianMixin, Model):
    def __init__(self, env: SkrlVecTask) -> None:
        Model.__init__(
            self,
            observation_space=env.observation_space,
            state_space=env.state_space,
            action_space=env.action_space,
            device=env.device,
        )
        GaussianMixin.__init__(self)
        self.net = nn.Linear(self.num_observations, self.num_actions)
        self.log_std = nn.Parameter(torch.zeros(self.num_actions))

    def compute(self, inputs: Any, role: str = "") -> Any:
        return self.net(inputs["observations"]), {"log_std": self.log_std}


class Value(DeterministicMixin, Model):
    def __init__(self, env: SkrlVecTask) -> None:
        Model.__init__(
            self,
            observation_space=env.observation_space,
            state_space=env.state_space,
            action_space=env.action_space,
            device=env.device,
        )
        DeterministicMixin.__init__(self)
        self.net = nn.Linear(self.num_states, 1)

    def compute(self, inputs: Any, role: str = "") -> Any:
        return self.net(inputs["states"]), {}


def test_ppo_trains_on_stump_walker(tmp_path: Path) -> None:
    """Two iterations of skrl's PPO, with the critic on the states, taught: 16 steps are 3 episodes of 5."""
    env = SkrlVecTask(StumpWalker(8, threads=1))
    recorder = Recorder([0.1] * env.vec_task.task_space.dim)
    env.vec_task.teach(recorder)  # type: ignore[arg-type]
    env.vec_task.progress_buf.fill_(100)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = {"policy": Policy(env), "value": Value(env)}
        agent = PPO(
            models=models,
            memory=RandomMemory(memory_size=8, num_envs=env.num_envs, device=env.device),
            observation_space=env.observation_space,
            state_space=env.state_space,
            action_space=env.action_space,
            device=env.device,
            cfg={
                "rollouts": 8,
                "learning_epochs": 1,
                "time_limit_bootstrap": True,
                "experiment": {"directory": str(tmp_path), "write_interval": 0, "checkpoint_interval": 0},
            },
        )
        before = [parameter.clone() for model in models.values() for parameter in model.parameters()]
        cfg = {
            "timesteps": 16,
            "headless": True,
            "disable_progressbar": True,
            "close_environment_at_exit": False,
        }
        SequentialTrainer(env=env, agents=agent, cfg=cfg).train()
    after = [parameter for model in models.values() for parameter in model.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert env.vec_task.progress_buf.tolist() == [1] * 8  # the trainer began new episodes
    ids = np.concatenate([episodes.ids for episodes in recorder.seen])
    np.testing.assert_array_equal(ids, np.arange(3 * 8))
    assert recorder.proposed == 8 + 3 * 8
    for number, episodes in enumerate(recorder.seen):
        assert set(episodes.lengths) == {5}
        assert set(episodes.started) == {5 * 8 * number}
        assert (episodes.tasks == 0.1).all()

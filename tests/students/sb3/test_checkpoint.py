"""A student that is saved and loaded goes on exactly as if it had never stopped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from tutelage.envs.contract.state import StateError
from tutelage.envs.contract.taught import TaughtVecEnv
from tutelage.envs.point_mass.point_mass_gate import PointMassGateVecEnv
from tutelage.experiments.bench.loop import PoleLength
from tutelage.students.sb3.checkpoint import load_student, save_student, untouched_generators
from tutelage.students.sb3.config import StudentConfig
from tutelage.students.sb3.evaluation import evaluate
from tutelage.students.sb3.student import make_student, train_until
from tutelage.teachers import make_task_teacher

SMALL = {"net_arch": [16]}
OFF_POLICY = {
    "batch_size": 32,
    "buffer_size": 600,
    "learning_starts": 64,
    "train_freq": 4,
    "gradient_steps": 2,
}
STUDENTS = {
    "ppo": StudentConfig(
        "ppo", n_envs=8, kwargs={"n_steps": 32, "batch_size": 64, "n_epochs": 2, "policy_kwargs": SMALL}
    ),
    "ppo-normalized": StudentConfig(
        "ppo",
        n_envs=8,
        kwargs={"n_steps": 32, "batch_size": 64, "n_epochs": 2, "policy_kwargs": SMALL},
        normalize_observations=True,
        normalize_rewards=True,
    ),
    "sac": StudentConfig("sac", n_envs=8, kwargs={**OFF_POLICY, "policy_kwargs": SMALL}),
    "sac-fixed-entropy": StudentConfig(
        "sac", n_envs=8, kwargs={**OFF_POLICY, "ent_coef": 0.01, "policy_kwargs": SMALL}
    ),
    "td3": StudentConfig(
        "td3", n_envs=8, kwargs={**OFF_POLICY, "policy_kwargs": SMALL}, normalize_observations=True
    ),
    "recurrent-ppo": StudentConfig(
        "recurrent-ppo",
        policy="MlpLstmPolicy",
        n_envs=4,
        kwargs={
            "n_steps": 32,
            "batch_size": 64,
            "n_epochs": 1,
            "policy_kwargs": {**SMALL, "lstm_hidden_size": 16},
        },
    ),
}


def _build(config: StudentConfig, seed: int) -> tuple[BaseAlgorithm, TaughtVecEnv]:
    venv = PointMassGateVecEnv(config.n_envs)
    taught = TaughtVecEnv(venv, make_task_teacher("random", venv.task_space, np.random.default_rng(seed)))
    return make_student(config, taught, seed, total_steps=2000), taught


def _stage(model: BaseAlgorithm, taught: TaughtVecEnv, index: int, new_episodes: bool = True) -> None:
    taught.seed(100 * index)
    train_until(model, 800 * (index + 1), new_episodes=new_episodes)


def _tensors(model: BaseAlgorithm) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def test_dqn_resumes_with_its_exploration_rate(tmp_path: Path) -> None:
    kwargs = {"learning_starts": 10, "buffer_size": 500, "exploration_fraction": 0.9, "policy_kwargs": SMALL}

    def build() -> BaseAlgorithm:
        space = PoleLength.task_space
        teacher = make_task_teacher("random", space, np.random.default_rng(0))
        taught = TaughtVecEnv(DummyVecEnv([PoleLength]), teacher)
        return make_student(StudentConfig("dqn", n_envs=1, kwargs=kwargs), taught, seed=0, total_steps=800)

    model = build()
    train_until(model, 400)
    save_student(tmp_path, model)
    again = build()
    load_student(tmp_path, again)
    assert again.exploration_rate == model.exploration_rate  # type: ignore[attr-defined]
    # 1 at first, and lower by then: a fresh DQN has 0
    assert 0.05 <= again.exploration_rate < 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("carry_on", [False, True], ids=["new-episodes", "same-episodes"])
@pytest.mark.parametrize("name", STUDENTS)
def test_resumed_training_equals_uninterrupted_training(name: str, carry_on: bool, tmp_path: Path) -> None:
    config = STUDENTS[name]
    model, taught = _build(config, seed=0)
    _stage(model, taught, 0)
    save_student(tmp_path, model)
    teacher_state = taught.task_teacher.state_dict()
    episodes = taught.state_dict()
    _stage(model, taught, 1, new_episodes=not carry_on)

    again, taught_again = _build(config, seed=99)
    load_student(tmp_path, again)
    taught_again.task_teacher.load_state_dict(teacher_state)
    assert again.num_timesteps >= 800
    if carry_on:
        taught_again.load_state_dict(episodes)
    _stage(again, taught_again, 1, new_episodes=not carry_on)

    assert again.num_timesteps == model.num_timesteps
    for key, tensor in _tensors(model).items():
        assert torch.equal(tensor, _tensors(again)[key]), key


def test_the_learning_rate_schedule_spans_all_stages() -> None:
    seen: list[float] = []

    def rate(progress: float) -> float:
        seen.append(progress)
        return 1e-3

    config = STUDENTS["ppo"]
    model, taught = _build(StudentConfig("ppo", n_envs=8, kwargs={**config.kwargs, "learning_rate": rate}), 0)
    seen.clear()
    _stage(model, taught, 0)
    _stage(model, taught, 1)
    # rollouts of 8 x 32 = 256 steps, 2,000 in all: first 1 - 256 / 2000 = 0.872, last 1 - 1792 / 2000
    assert seen[0] == pytest.approx(0.872)
    assert seen[-1] == pytest.approx(1 - 1792 / 2000)
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("file", ["student.npz", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_damaged_checkpoints_are_named(file: str, damage: str, tmp_path: Path) -> None:
    model, _ = _build(STUDENTS["ppo"], 0)
    save_student(tmp_path, model)
    path = tmp_path / file
    path.write_bytes(
        path.read_bytes()[: path.stat().st_size // 2] if damage == "truncated" else b"no checkpoint"
    )
    with pytest.raises(StateError, match="delete it to start anew"):
        load_student(tmp_path, _build(STUDENTS["ppo"], 0)[0])


def test_a_checkpoint_of_another_shape_or_algorithm_is_refused(tmp_path: Path) -> None:
    save_student(tmp_path, _build(STUDENTS["ppo"], 0)[0])
    wide: dict[str, Any] = {**STUDENTS["ppo"].kwargs, "policy_kwargs": {"net_arch": [32]}}
    with pytest.raises(StateError, match="of another student"):
        load_student(tmp_path, _build(StudentConfig("ppo", n_envs=8, kwargs=wide), 0)[0])
    with pytest.raises(StateError, match="holds a PPO, not a SAC"):
        load_student(tmp_path, _build(STUDENTS["sac"], 0)[0])
    with pytest.raises(StateError, match="normalised"):
        load_student(tmp_path, _build(STUDENTS["ppo-normalized"], 0)[0])


def test_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    save_student(tmp_path, _build(STUDENTS["sac"], 0)[0])
    assert {p.name for p in tmp_path.iterdir()} == {"student.npz", "weights.safetensors"}
    with np.load(tmp_path / "student.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive.files)


def test_evaluation_touches_neither_generators_nor_training() -> None:
    model, taught = _build(STUDENTS["ppo-normalized"], 0)
    _stage(model, taught, 0)
    normalizer = model.get_vec_normalize_env()
    before = (normalizer.obs_rms.mean.copy(), normalizer.obs_rms.count, taught.tasks.copy())
    torch.manual_seed(5)
    tasks = taught.task_space.grid(3)
    with untouched_generators():
        first = evaluate(model, PointMassGateVecEnv(4), tasks, seed=1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    np.testing.assert_array_equal(before[0], normalizer.obs_rms.mean)
    assert before[1] == normalizer.obs_rms.count
    np.testing.assert_array_equal(before[2], taught.tasks)
    # an episode depends on its task, its seed and the policy alone, not on how many run side by side
    second = evaluate(model, PointMassGateVecEnv(9), tasks, seed=1)
    np.testing.assert_allclose(first.returns, second.returns, rtol=1e-5)
    np.testing.assert_array_equal(first.lengths, second.lengths)
    np.testing.assert_array_equal(first.tasks, tasks)

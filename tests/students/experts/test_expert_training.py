"""Experts that are trained, and experts made of SB3's and rsl_rl's policies, in memory and on disk."""

import json
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import VecNormalize

from tutelage.envs.batched.adaptors.sb3 import SB3VecTask
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.batched.worlds.reach import Reach
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateError
from tutelage.students.experts.expert_training import (
    ExpertProgress,
    expert_from_rsl_rl,
    expert_from_sb3,
    load_expert,
    train_expert,
)
from tutelage.students.rsl_rl.rsl_rl_policy import RslRlPolicy, RslRlPPOConfig
from tutelage.students.sb3.checkpoint import save_student, untouched_generators
from tutelage.students.sb3.config import StudentConfig
from tutelage.students.sb3.student import make_student
from tutelage.teachers import ALPGMM, Random
from tutelage.teachers.experts.mlp_expert import MLPExpert, check_expert


def student(**changes: Any) -> StudentConfig:
    """PPO that solves the rail in a second or two."""
    kwargs = {
        "n_steps": 12,
        "batch_size": 192,
        "n_epochs": 5,
        "learning_rate": 3e-3,
        "gamma": 0.9,
        "policy_kwargs": {"net_arch": [16], "activation_fn": "ELU", "log_std_init": -0.5},
    }
    return StudentConfig(
        n_envs=64, kwargs=kwargs | changes, normalize_observations=True, normalize_rewards=True
    )


SMALL = RslRlPPOConfig(num_envs=64, actor_hidden=(16,), critic_hidden=(8, 8), steps_per_env=12)


@pytest.fixture(scope="module")
def seen() -> list[ExpertProgress]:
    return []


@pytest.fixture(scope="module")
def expert(rail: type[VecTask], seen: list[ExpertProgress]) -> MLPExpert:
    return train_expert(
        rail, seed=0, steps=60_000, config=student(), until_success=0.95, on_progress=seen.append
    )  # type: ignore[arg-type]


# --- training --------------------------------------------------------------------------------------------


def test_it_learns_and_stops_when_it_succeeds(
    rail: type[VecTask], expert: MLPExpert, seen: list[ExpertProgress]
) -> None:
    """A tenth of the targets is near the start."""
    facts = expert.facts
    assert facts["steps"] < 60_000
    assert facts["training_success"] >= 0.95
    assert facts["success"] > 0.9
    assert facts["success_episodes"] == 256
    assert (facts["task"], facts["method"], facts["seed"]) == ("Rail", "sb3", 0)
    assert 0 < seen[-1].seconds <= facts["seconds"] + 1e-3
    assert [progress.steps for progress in seen[:3]] == [768, 1536, 2304]
    assert [progress.episodes for progress in seen[:3]] == [64, 128, 192]  # 12 steps each
    assert seen[0].success < 0.5
    assert all(progress.success < 0.95 for progress in seen[3:-1])
    assert seen[0].mean_return < seen[-1].mean_return < 0
    assert (expert.view, expert.queries) == ("privileged", 0)
    check_expert(expert, rail(64, threads=1))


def test_its_success_is_that_of_its_actions(rail: type[VecTask], expert: MLPExpert) -> None:
    task = rail(512, seed=7, threads=1)
    obs_dict = task.reset()
    for _ in range(12):
        obs_dict, _, ends, extras = task.step(expert.advise(obs_dict).mean.clamp(-1, 1))
    assert bool(ends.all())
    assert float(extras["success"].float().mean()) == pytest.approx(expert.facts["success"], abs=0.07)
    assert expert.queries == 12 * 512


def test_training_repeats_and_leaves_global_state_alone(rail: type[VecTask]) -> None:
    def train(seed: int) -> MLPExpert:
        return train_expert(rail, seed=seed, steps=1536, config=student())

    torch.manual_seed(5)
    random.seed(5)
    threads = torch.get_num_threads()
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    first, again, other = train(0), train(0), train(1)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    assert torch.get_num_threads() == threads
    assert first.facts | {"seconds": 0} == again.facts | {"seconds": 0}
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(first.log_std, other.log_std)


def test_progress_can_stop_it(rail: type[VecTask]) -> None:
    expert = train_expert(
        rail, seed=0, steps=60_000, config=student(), on_progress=lambda progress: progress.steps < 2 * 768
    )
    assert 2 * 768 <= expert.facts["steps"] < 3 * 768


def test_a_task_teacher_proposes_its_tasks(rail: type[VecTask]) -> None:
    made: list[ALPGMM] = []

    def make(space: Any, rng: np.random.Generator) -> ALPGMM:
        made.append(ALPGMM(space, rng))
        return made[0]

    train_expert(rail, seed=0, steps=1536, config=student(), task_teacher=make)
    tasks = made[0].state_dict()
    assert len(made) == 1
    assert any(isinstance(value, np.ndarray) and len(value) >= 128 for value in _leaves(tasks))
    train_expert(rail, seed=0, steps=768, config=student(), task_teacher="riac")


def _leaves(node: Any) -> Iterator[Any]:
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _leaves(value)
    else:
        yield node


def test_rsl_rl_trains_experts(rail: type[VecTask]) -> None:
    pytest.importorskip("rsl_rl")
    config = RslRlPPOConfig(**(asdict(SMALL) | {"actor_view": "privileged"}))
    expert = train_expert(rail, seed=3, steps=30_000, method="rsl_rl", config=config, until_success=0.9)
    assert expert.facts["method"] == "rsl_rl"
    assert expert.facts["steps"] < 30_000
    assert expert.facts["steps"] % 768 == 0
    assert expert.facts["success"] > 0.8
    assert expert.view == "privileged"


def test_rsl_rl_takes_task_teachers(rail: type[VecTask]) -> None:
    """Every proposal but the last ones' comes back as an episode: of its task, 12 steps long, its own id."""
    pytest.importorskip("rsl_rl")

    class Right(Random):
        """Tasks on the right alone."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.proposed: list[np.ndarray] = []
            self.seen: list[Episodes] = []

        def propose(self, n: int) -> Any:
            self.proposed.append(np.abs(super().propose(n)))
            return self.proposed[-1]

        def observe(self, episodes: Episodes) -> None:
            self.seen.append(episodes)

    def train(spread: bool, task_teacher: Any) -> MLPExpert:
        config = replace(SMALL, actor_view="privileged", spread_starts=spread)
        return train_expert(
            rail, seed=3, steps=1536, method="rsl_rl", config=config, task_teacher=task_teacher
        )

    right = Right(rail.task_space, np.random.default_rng(0))
    train(False, right)
    # 24 steps are two episodes of 12 in each of 64 environments, which end together
    assert [len(tasks) for tasks in right.proposed] == [64, 64, 64]
    assert [len(episodes) for episodes in right.seen] == [64, 64]
    for number, episodes in enumerate(right.seen):
        np.testing.assert_array_equal(episodes.tasks, right.proposed[number])
        np.testing.assert_array_equal(episodes.ids, np.arange(64) + 64 * number)
        assert set(episodes.lengths) == {12}
        assert set(episodes.started) == {12 * 64 * number}
        assert (episodes.returns < 0).all()
    first, again = train(False, Right).state_dict(), train(False, Right).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())

    spread = Right(rail.task_space, np.random.default_rng(0))
    train(True, spread)
    assert all(set(episodes.lengths) == {12} for episodes in spread.seen)  # none of those cut short
    assert 0 < sum(map(len, spread.seen)) < 128
    train(False, "alp-gmm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_name": "reech"}, "unknown batched task 'reech'; did you mean 'reach'"),
        ({"method": "a2c"}, r"unknown method 'a2c' \(known: sb3, rsl_rl\)"),
        ({"until_success": 95}, "until_success must be above 0 and at most 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"config": SMALL}, "method 'sb3' takes a StudentConfig, not RslRlPPOConfig"),
        ({"config": student(), "method": "rsl_rl"}, "method 'rsl_rl' takes an RslRlPPOConfig"),
        (
            {"task_teacher": "alp-gm", "method": "rsl_rl", "config": RslRlPPOConfig(num_envs=4)},
            "unknown task teacher 'alp-gm'; did you mean 'alp-gmm'",
        ),
        (
            {"task_teacher": "alp-gm", "config": student()},
            "unknown task teacher 'alp-gm'; did you mean 'alp-gmm'",
        ),
        ({"config": StudentConfig("sac", n_envs=4)}, "SAC with SACPolicy cannot be made an expert"),
        ({"config": student(use_sde=True)}, "gSDE"),
    ],
)
def test_wrong_arguments_are_named_before_training(
    rail: type[VecTask], arguments: dict[str, Any], message: str
) -> None:
    def no_training(progress: ExpertProgress) -> bool:
        raise AssertionError("training began")

    with pytest.raises(ValueError, match=message):
        train_expert(**{"task_name": rail, "seed": 0, "on_progress": no_training} | arguments)  # type: ignore[arg-type]


# --- the same numbers as the policies that they were made from --------------------------------------------


@pytest.fixture
def sb3_model(rail: type[VecTask]) -> Callable[..., PPO]:
    """PPO with random weights and the statistics of random observations, of very different sizes."""

    def make(normalize: bool = True, **policy_kwargs: Any) -> PPO:
        config = student(policy_kwargs=policy_kwargs)
        if not normalize:
            config = StudentConfig(n_envs=64, kwargs=config.kwargs)
        with untouched_generators():
            model: Any = make_student(config, SB3VecTask(rail(64, threads=1)), seed=0, total_steps=1)
        if normalize:
            rng = np.random.default_rng(0)
            for _ in range(5):
                model.env.obs_rms.update(rng.normal([0.1, 5, -300], [1e-3, 1, 80], (100, 3)))
                model.env.ret_rms.update(rng.normal(0, 3, 100))
        with torch.no_grad():
            for parameter in model.policy.parameters():
                parameter.mul_(3)
        return model  # type: ignore[no-any-return]

    return make


@pytest.mark.parametrize("activation", ["Tanh", "ReLU", "ELU", "GELU"])
@pytest.mark.parametrize("net_arch", [[], [16], {"pi": [12, 7], "vf": [5]}])
@pytest.mark.parametrize("normalize", [True, False])
def test_it_computes_what_sb3_computes(
    sb3_model: Callable[..., PPO], activation: str, net_arch: Any, normalize: bool
) -> None:
    model = sb3_model(normalize, activation_fn=activation, net_arch=net_arch)
    expert = expert_from_sb3(model)
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([1e-3, 1.0, 80.0]) if normalize else torch.ones(3)
    centre = torch.tensor([0.1, 5.0, -300.0]) if normalize else torch.zeros(3)
    observations = centre + 5 * spread * torch.randn(500, 3, generator=generator)  # clipping is at 10
    normalizer = model.get_vec_normalize_env()
    inputs: Any = observations.numpy()
    if normalizer is not None:
        inputs = normalizer.normalize_obs(inputs)
        assert (np.abs(inputs) == 10).any()
    actions, _ = model.predict(inputs, deterministic=True)
    advice = expert.advise({"privileged": observations})
    np.testing.assert_allclose(advice.mean.clamp(-1, 1), actions, atol=1e-5)
    tensors = torch.from_numpy(inputs)
    with torch.no_grad():
        theirs: Any = model.policy.get_distribution(tensors).distribution
        torch.testing.assert_close(advice.mean, theirs.mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(advice.std, theirs.stddev)
        # SB3's critic tells returns of normalised rewards
        scale = 1.0 if normalizer is None else float(np.sqrt(normalizer.ret_rms.var + normalizer.epsilon))
        assert advice.value is not None
        theirs = scale * model.policy.predict_values(tensors)[:, 0]
        torch.testing.assert_close(advice.value, theirs, atol=3e-4, rtol=1e-5)
    assert expert.reward_scale == expert.facts["reward_scale"] == pytest.approx(scale)
    assert expert.gamma == expert.facts["gamma"] == model.gamma


def test_later_training_does_not_change_it(sb3_model: Callable[..., PPO]) -> None:
    model = sb3_model()
    expert = expert_from_sb3(model)
    before = {name: tensor.clone() for name, tensor in expert.state_dict().items()}
    model.learn(1)
    for name, tensor in expert.state_dict().items():
        assert torch.equal(tensor, before[name])


def rsl_rl_policy() -> RslRlPolicy:
    with untouched_generators():
        torch.manual_seed(0)
        policy = RslRlPolicy(
            RslRlPPOConfig(actor_hidden=(16,), critic_hidden=(8, 8), activation="swish"), 2, 3, 1
        )
        for tensor in policy.state_dict().values():
            tensor.add_(torch.rand(tensor.shape))
        policy.noise_std.data.mul_(0.3)
    return policy


def test_it_computes_what_rsl_rl_computes() -> None:
    policy = rsl_rl_policy()
    obs_dict = {
        "policy": torch.randn(200, 2, generator=torch.Generator().manual_seed(1)) * 3,
        "privileged": torch.randn(200, 3, generator=torch.Generator().manual_seed(2)) * 3,
    }
    expert = expert_from_rsl_rl(policy)
    mean, std, value = expert.advise(obs_dict)
    with torch.no_grad():
        torch.testing.assert_close((mean, std), policy.distribution(obs_dict))
        torch.testing.assert_close(value, policy.value(obs_dict))
    torch.testing.assert_close(expert.act(obs_dict), policy.act(obs_dict))
    assert expert.view_sizes == {"policy": 2, "privileged": 3}
    assert (expert.reward_scale, expert.gamma) == (1.0, policy.config.gamma)


class Wide(gymnasium.Env[Any, Any]):
    """Actions in [-2, 2]."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.Box(-2, 2, (1,))


class Flat(Wide):
    action_space = gymnasium.spaces.Box(-1, 1, (1,))


class Picture(Flat):
    observation_space = gymnasium.spaces.Box(-1, 1, (3, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SAC("MlpPolicy", Flat()), "SAC with SACPolicy cannot be made an expert; train PPO"),
        (lambda: PPO("MlpPolicy", Flat(), use_sde=True), "gSDE"),
        (lambda: PPO("MlpPolicy", Wide()), r"actions are in \[-1, 1\], and this policy's in Box\(-2"),
        (lambda: PPO("MlpPolicy", Picture()), "sees one vector"),
        (lambda: PPO("MlpPolicy", Flat()), "has no VecTask.*give view="),
        (
            lambda: PPO("MlpPolicy", Flat(), policy_kwargs={"activation_fn": torch.nn.Softplus}),
            r"activations Softplus\(.*unknown",
        ),
    ],
)
def test_policies_that_are_no_experts_are_refused(make: Callable[[], Any], message: str) -> None:
    with untouched_generators():
        model = make()
    with pytest.raises(ValueError, match=message):
        expert_from_sb3(model, None if "view=" in message else "privileged")


# --- files -----------------------------------------------------------------------------------------------


def same(ours: MLPExpert, theirs: MLPExpert) -> bool:
    states = ours.state_dict(), theirs.state_dict()
    return ours.config == theirs.config and all(torch.equal(states[0][k], states[1][k]) for k in states[1])


def test_own_and_rsl_rl_folders_load(expert: MLPExpert, tmp_path: Path) -> None:
    expert.save(tmp_path / "ours")
    assert same(load_expert(tmp_path / "ours"), expert)
    assert load_expert(tmp_path / "ours").facts == expert.facts
    policy = rsl_rl_policy()
    policy.save(tmp_path / "rsl_rl")
    assert same(load_expert(tmp_path / "rsl_rl"), expert_from_rsl_rl(policy))


def cell(folder: Path, env: str, model: Any, normalize: bool = True) -> None:
    """What a finished cell of `tutelage compare` leaves, as far as an expert needs it."""
    save_student(folder / "student", model, replay_buffer=False)
    config = StudentConfig(
        kwargs={"gamma": model.gamma, "policy_kwargs": {"activation_fn": "ELU"}},
        normalize_observations=normalize,
        normalize_rewards=normalize,
    )
    values = {"env": env, "seed": 4, "steps": 9, "student_config": asdict(config)}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("normalize", [True, False])
def test_cells_load(sb3_model: Callable[..., PPO], tmp_path: Path, normalize: bool) -> None:
    model = sb3_model(normalize, activation_fn="ELU")
    cell(tmp_path, "reach", model, normalize)
    loaded = load_expert(tmp_path)
    assert same(loaded, expert_from_sb3(model))
    assert loaded.facts == {
        **expert_from_sb3(model).facts,
        "task": "reach",
        "method": "sb3",
        "seed": 4,
        "steps": 9,
    }
    with pytest.raises(ValueError, match=r"reads \(3,\) numbers in the view 'privileged'"):
        check_expert(loaded, Reach(2, threads=1))  # it was no student of Reach


def test_cells_that_do_not_load_say_why(sb3_model: Callable[..., PPO], tmp_path: Path) -> None:
    cell(tmp_path, "my_tasks:Rail", sb3_model(activation_fn="ELU"))
    with pytest.raises(ValueError, match="'my_tasks:Rail' is none of the batched tasks"):
        load_expert(tmp_path)
    assert load_expert(tmp_path, view="privileged").view == "privileged"
    weights, config = tmp_path / "student/weights.safetensors", tmp_path / "config.json"
    whole, text = weights.read_bytes(), config.read_text().replace("my_tasks:Rail", "reach")
    for damaged_weights, damaged_text in (
        (whole[:-5], text),
        (b"", text),
        (whole, text[:-9]),
        (whole, "[]"),
        (whole, text.replace("student_config", "config")),
    ):
        weights.write_bytes(damaged_weights)
        config.write_text(damaged_text)
        with pytest.raises(StateError, match=str(tmp_path)):
            load_expert(tmp_path)
    config.write_text(text)
    for path in (tmp_path / "student").iterdir():
        path.unlink()
    (tmp_path / "student").rmdir()
    with pytest.raises(FileNotFoundError, match="has not finished"):
        load_expert(tmp_path)


def test_a_cell_of_another_algorithm_is_refused(rail: type[VecTask], tmp_path: Path) -> None:
    with untouched_generators():
        model = SAC("MlpPolicy", SB3VecTask(rail(64, threads=1)), seed=0, buffer_size=10)
        cell(tmp_path, "reach", model, False)
    with pytest.raises(ValueError, match="is no MlpPolicy of SB3's PPO"):
        load_expert(tmp_path)


def test_sb3_files_need_trust(sb3_model: Callable[..., PPO], tmp_path: Path) -> None:
    model = sb3_model(activation_fn="ELU")
    path, statistics = tmp_path / "model.zip", tmp_path / "vecnormalize.pkl"
    model.save(path)
    normalizer = model.get_vec_normalize_env()
    assert isinstance(normalizer, VecNormalize)
    normalizer.save(str(statistics))
    with pytest.raises(ValueError, match=r"can run code when it is read.*trust=True"):
        load_expert(path)
    with pytest.raises(ValueError, match="give view="):
        load_expert(path, trust=True)
    with untouched_generators():
        loaded = load_expert(path, trust=True, view="privileged", normalizer=statistics)
    assert same(loaded, expert_from_sb3(model))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StateError, match="cannot be read as SB3's"):
        load_expert(path, trust=True, view="privileged")


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled_without_trust(tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(pickle.dumps(Bomb(tmp_path / "went-off")))
    for arguments in ({}, {"view": "privileged", "normalizer": tmp_path / "model.zip"}):
        with pytest.raises(ValueError, match="trust"):
            load_expert(tmp_path / "model.zip", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "went-off").exists()


def test_what_is_no_expert_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"holds no expert: neither expert\.json"):
        load_expert(tmp_path)
    for path in (tmp_path / "nowhere", tmp_path / "nothing.zip"):
        with pytest.raises(FileNotFoundError, match="no expert at"):
            load_expert(path, trust=True, view="privileged")

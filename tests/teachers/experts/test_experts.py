"""Experts: what they compute, refuse, count and save; and routing to several of them."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.envs.batched.worlds.reach import Reach
from tutelage.envs.contract.state import StateError
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.teachers.experts.expert_router import ExpertRouter, box_rule
from tutelage.teachers.experts.mlp_expert import ACTIVATIONS, ExpertConfig, MLPExpert, check_expert

LINEAR = ExpertConfig("policy", 2, 1, (), critic_view="privileged", num_states=1, clip=5.0)


def shapes(config: ExpertConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of an expert."""
    result: dict[str, tuple[int, ...]] = {"log_std": (config.num_actions,)}
    parts = [("actor", config.num_obs, config.hidden, config.num_actions)]
    if config.critic_view is not None:
        parts.append(("critic", config.num_states, config.critic_hidden, 1))
    for part, inputs, hidden, outputs in parts:
        result |= {f"{part}.mean": (inputs,), f"{part}.scale": (inputs,)}
        for number, width in enumerate((*hidden, outputs)):
            result[f"{part}.layers.{2 * number}.weight"] = (width, inputs)
            result[f"{part}.layers.{2 * number}.bias"] = (width,)
            inputs = width
    return result


def random_expert(config: ExpertConfig, seed: int = 0) -> MLPExpert:
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.rand(shape, generator=generator) + 0.1 for name, shape in shapes(config).items()}
    return MLPExpert(config, tensors, {"task": "none", "success": 0.5})


def linear() -> MLPExpert:
    """Mean 3 a - b + 0.5 of the observation normalised by mean (1, 0) and scale (2, 1); value 2 s - 1."""
    tensors = {
        "actor.mean": torch.tensor([1.0, 0.0]),
        "actor.scale": torch.tensor([2.0, 1.0]),
        "actor.layers.0.weight": torch.tensor([[3.0, -1.0]]),
        "actor.layers.0.bias": torch.tensor([0.5]),
        "critic.mean": torch.zeros(1),
        "critic.scale": torch.ones(1),
        "critic.layers.0.weight": torch.tensor([[2.0]]),
        "critic.layers.0.bias": torch.tensor([-1.0]),
        "log_std": torch.tensor([math.log(0.3)]),
    }
    return MLPExpert(LINEAR, tensors)


OBSERVATIONS = {
    "policy": torch.tensor([[1.0, 0.0], [3.0, 2.0], [1.0, 100.0]]),
    "privileged": torch.tensor([[0.0], [1.5], [-2.0]]),
}


def test_advice_by_hand() -> None:
    """Normalised: (0, 0), (1, 2) and (0, 100), of which the last is clipped to (0, 5)."""
    expert = linear()
    mean, std, value = expert.advise(OBSERVATIONS)
    torch.testing.assert_close(mean, torch.tensor([[0.5], [3.0 - 2.0 + 0.5], [-5.0 + 0.5]]))
    torch.testing.assert_close(std, torch.full((3, 1), 0.3))
    assert value is not None
    torch.testing.assert_close(value, torch.tensor([-1.0, 2.0, -5.0]))
    assert not mean.requires_grad
    torch.testing.assert_close(expert.act(OBSERVATIONS), torch.tensor([[0.5], [1.0], [-1.0]]))


def test_values_are_of_the_tasks_rewards() -> None:
    """The critic was trained on a quarter of them."""
    tensors = linear().state_dict()
    expert = MLPExpert(LINEAR, tensors, {"reward_scale": 4.0, "gamma": 0.9})
    value = expert.advise(OBSERVATIONS).value
    assert value is not None
    torch.testing.assert_close(value, 4 * torch.tensor([-1.0, 2.0, -5.0]))
    assert (expert.reward_scale, expert.gamma) == (4.0, 0.9)
    assert (linear().reward_scale, linear().gamma) == (1.0, None)
    for wrong in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="reward_scale must be above 0"):
            MLPExpert(LINEAR, tensors, {"reward_scale": wrong})


def test_every_answer_is_counted() -> None:
    expert = linear()
    expert.advise(OBSERVATIONS)
    expert.act({"policy": OBSERVATIONS["policy"][:2]})
    assert expert.queries == 5
    with pytest.raises(ValueError, match="view"):
        expert.advise({})
    assert expert.queries == 5


def test_an_observation_that_hardly_varies_keeps_its_digits() -> None:
    """0.1 in float32 is 1.5e-9 more than 0.1: 0.15 scales of 1e-8, which float32 statistics would lose."""
    config = ExpertConfig("policy", 1, 1, ())
    tensors = {name: torch.ones(shape, dtype=torch.float64) for name, shape in shapes(config).items()}
    tensors["actor.mean"][:], tensors["actor.scale"][:] = 0.1, 1e-8
    offset = float(torch.tensor(0.1).double()) - 0.1
    mean, _, value = MLPExpert(config, tensors).advise({"policy": torch.tensor([[0.1]])})
    assert float(mean) == pytest.approx(1 + offset / 1e-8, rel=1e-6)
    assert offset > 1e-9
    assert value is None


def test_it_is_a_frozen_copy_and_draws_nothing() -> None:
    tensors = {name: torch.ones(shape) for name, shape in shapes(LINEAR).items()}
    before = torch.get_rng_state()
    expert = MLPExpert(LINEAR, tensors)
    assert torch.equal(torch.get_rng_state(), before)
    for tensor in tensors.values():
        tensor.zero_()
    assert all(bool((tensor == 1).all()) for tensor in expert.state_dict().values())
    assert not any(parameter.requires_grad for parameter in expert.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actor.layers.0.weight": torch.ones(1, 3)}, "do not fit the expert's sizes"),
        ({"log_std": torch.tensor([torch.nan])}, "log_std of the expert holds NaN"),
        ({"actor.layers.2.bias": torch.ones(1)}, "do not fit the expert's sizes"),
    ],
)
def test_wrong_tensors_are_named(change: dict[str, Tensor], message: str) -> None:
    tensors = {name: torch.ones(shape) for name, shape in shapes(LINEAR).items()}
    with pytest.raises(ValueError, match=message):
        MLPExpert(LINEAR, tensors | change)


def test_wrong_settings_are_named() -> None:
    tensors = {name: torch.ones(shape) for name, shape in shapes(LINEAR).items()}
    with pytest.raises(ValueError, match="unknown activation 'Relu'; did you mean 'ReLU'"):
        MLPExpert(ExpertConfig("policy", 2, 1, (), activation="Relu"), tensors)
    with pytest.raises(ValueError, match="clip must be positive"):
        MLPExpert(ExpertConfig("policy", 2, 1, (), clip=0.0), tensors)


# --- what does not fit a task ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reach() -> Any:
    task = Reach(4, threads=1)
    yield task
    task.close()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            ExpertConfig("privilged", 21, 4, ()),
            "observations of Reach lack.*'privilged'; did you mean 'privileged'",
        ),
        (
            ExpertConfig("privileged", 20, 4, ()),
            r"\(20,\) numbers in the view 'privileged'.*Reach have \(21,\)",
        ),
        (ExpertConfig("privileged", 21, 4, (), "policy", 14), r"\(14,\) numbers in the view 'policy'"),
        (ExpertConfig("privileged", 21, 3, ()), "actions have 3 numbers, those of Reach 4"),
    ],
)
def test_an_expert_that_does_not_fit_is_refused(reach: Reach, config: ExpertConfig, message: str) -> None:
    expert = random_expert(config)
    with pytest.raises(ValueError, match=message):
        check_expert(expert, reach)
    if config.num_actions == reach.num_actions:
        with pytest.raises(
            ValueError, match=message.replace(" of Reach", "").replace("Reach", "observations")
        ):
            expert.advise(reach.obs_dict)
    assert expert.queries == 0


def test_an_expert_that_fits_is_not_asked(reach: Reach) -> None:
    expert = random_expert(ExpertConfig("privileged", 21, 4, (8,), "policy", 15))
    check_expert(expert, reach)
    assert expert.queries == 0
    assert expert.advise(reach.obs_dict).mean.shape == (4, 4)


# --- files -----------------------------------------------------------------------------------------------

WIDTHS = st.lists(st.integers(1, 9), max_size=3).map(tuple)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 6)),
    hidden=WIDTHS,
    critic_hidden=WIDTHS,
    critic=st.booleans(),
    activation=st.sampled_from(ACTIVATIONS),
    clip=st.none() | st.floats(0.1, 10),
    seed=st.integers(0, 1000),
)
def test_save_and_load(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: tuple[int, int, int],
    hidden: tuple[int, ...],
    critic_hidden: tuple[int, ...],
    critic: bool,
    activation: str,
    clip: float | None,
    seed: int,
) -> None:
    config = ExpertConfig("eyes", sizes[0], sizes[1], hidden, activation=activation, clip=clip)
    if critic:
        config = ExpertConfig(
            "eyes", sizes[0], sizes[1], hidden, "all", sizes[2], critic_hidden, activation, clip
        )
    expert = random_expert(config, seed)
    folder = tmp_path_factory.mktemp("expert")
    expert.save(folder)
    before = torch.get_rng_state()
    loaded = MLPExpert.load(folder)
    assert torch.equal(torch.get_rng_state(), before)
    assert (loaded.config, loaded.facts, loaded.queries) == (config, expert.facts, 0)
    obs_dict = {"eyes": torch.randn(5, sizes[0]), "all": torch.randn(5, sizes[2])}
    for ours, theirs in zip(expert.advise(obs_dict), loaded.advise(obs_dict), strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MLPExpert.load(tmp_path)
    linear().save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"expert.safetensors", "expert.json"}
    weights, description = tmp_path / "expert.safetensors", tmp_path / "expert.json"
    whole, text = weights.read_bytes(), description.read_text()
    flipped = bytearray(whole)
    flipped[-3] ^= 1  # in the middle of a weight
    for broken in (whole[:-9], b"", bytes(flipped), b"PK\x03\x04" + whole):
        weights.write_bytes(broken)
        with pytest.raises(StateError, match="no expert that can be loaded"):
            MLPExpert.load(tmp_path)
    weights.write_bytes(whole)
    for broken_text in (
        text[:-20],
        "[]",
        "\x00",
        text.replace('"num_obs": 2', '"num_obs": 3'),
        text.replace('"num_obs": 2', '"num_obs": 2000000000000'),
        text.replace('"num_obs": 2', '"num_obs": "two"'),
        text.replace("num_obs", "num_ops"),
        text.replace('"Tanh"', '"Module"'),
        text.replace('"clip": 5.0', '"clip": "5"'),
    ):
        assert broken_text != text
        description.write_text(broken_text)
        with pytest.raises(StateError, match="no expert that can be loaded"):
            MLPExpert.load(tmp_path)
    description.write_text(text)
    weights.unlink()
    with pytest.raises(FileNotFoundError):
        MLPExpert.load(tmp_path)


def test_files_of_two_experts_do_not_mix(tmp_path: Path) -> None:
    random_expert(LINEAR, 0).save(tmp_path / "a")
    random_expert(LINEAR, 1).save(tmp_path / "b")
    (tmp_path / "a/expert.json").rename(tmp_path / "b/expert.json")
    with pytest.raises(StateError, match="saved with another"):
        MLPExpert.load(tmp_path / "b")
    assert json.loads((tmp_path / "b/expert.json").read_text())["facts"]["success"] == 0.5


# --- several experts -------------------------------------------------------------------------------------

SPACE = BoxTasks({"height": (0, 3), "spacing": (0, 6)})
CONSTANT = ExpertConfig("policy", 1, 1, (), critic_view="policy", num_states=1)


def constant(action: float, config: ExpertConfig = CONSTANT) -> MLPExpert:
    """Observation + action."""
    tensors = {name: torch.ones(shape) for name, shape in shapes(config).items()}
    for part in ("actor", "critic"):
        if f"{part}.mean" in tensors:
            tensors[f"{part}.mean"] = torch.zeros(1)
            tensors[f"{part}.layers.0.bias"] = torch.tensor([action])
    return MLPExpert(config, tensors)


def test_each_task_is_answered_by_its_expert() -> None:
    tasks = torch.tensor([[2.5, 1.0], [0.2, 5.0], [1.0, 1.0], [2.0, 3.0], [1.5, 0.0]])
    obs_dict = {"policy": torch.arange(5.0)[:, None], "front/rgb": torch.zeros(5, 8, 8, 3)}
    experts = [constant(10), constant(20), constant(30)]
    rule = box_rule(SPACE, [{"height": (0, 1)}, {"height": (1, 2), "spacing": (2, 6)}, {}])
    router = ExpertRouter(experts, rule, lambda: tasks)
    assert router.route(tasks).tolist() == [2, 0, 0, 1, 2]
    mean, std, value = router.advise(obs_dict)
    torch.testing.assert_close(mean[:, 0], torch.tensor([30.0, 10 + 1, 10 + 2, 20 + 3, 30 + 4]))
    torch.testing.assert_close(std, torch.full((5, 1), math.e))
    assert value is not None
    torch.testing.assert_close(value, mean[:, 0])
    assert router.queries_by_expert == [expert.queries for expert in experts] == [2, 1, 2]
    ended = torch.tensor([[0.5, 0.5]] * 5)
    assert router.advise(obs_dict, ended).mean[:, 0].tolist() == [10, 11, 12, 13, 14]
    assert router.queries == 10


def test_a_task_that_no_expert_covers_is_an_error() -> None:
    rule = box_rule(SPACE, [{"height": (0, 1)}, {"height": (1, 2)}])
    tasks = torch.tensor([[0.5, 1.0], [2.5, 3.0], [3.0, 3.0], [torch.nan, 0.0]])
    experts = [constant(1), constant(2)]
    router = ExpertRouter(experts, rule, lambda: tasks)
    with pytest.raises(
        ValueError, match=r"no expert covers task \[2.5, 3.0\] \(environment 1, 3 of 4 in all"
    ):
        router.advise({"policy": torch.zeros(4, 1)})
    assert router.queries == experts[0].queries == 0
    beyond = ExpertRouter(experts, lambda tasks: torch.full((len(tasks),), 2), lambda: tasks)
    with pytest.raises(ValueError, match="the rule gave 2, experts are 0 to 1"):
        beyond.route(tasks)


def test_value_is_there_only_if_every_expert_asked_has_one() -> None:
    blind = constant(2, ExpertConfig("policy", 1, 1, ()))
    rule = box_rule(SPACE, [{"height": (0, 1)}, {"height": (1, 3)}])
    router = ExpertRouter([constant(1), blind], rule, lambda: torch.tensor([[0.5, 0.0], [2.0, 0.0]]))
    assert router.advise({"policy": torch.zeros(2, 1)}).value is None


def test_experts_that_do_not_go_together_are_refused(reach: Reach) -> None:
    def router(*configs: ExpertConfig) -> ExpertRouter:
        return ExpertRouter(
            [random_expert(config) for config in configs], lambda t: t[:, 0].long(), lambda: reach.tasks
        )

    with pytest.raises(ValueError, match="at least one expert"):
        router()
    with pytest.raises(ValueError, match="expert 1 has actions of 2 numbers, expert 0 of 1"):
        router(ExpertConfig("policy", 2, 1, ()), ExpertConfig("policy", 2, 2, ()))
    with pytest.raises(ValueError, match="expert 1 reads 3 numbers in the view 'policy', another one 2"):
        router(ExpertConfig("policy", 2, 1, ()), ExpertConfig("policy", 3, 1, ()))
    seeing = router(ExpertConfig("policy", 15, 4, ()), ExpertConfig("privileged", 20, 4, ()))
    with pytest.raises(ValueError, match=r"\(20,\) numbers in the view 'privileged'"):
        check_expert(seeing, reach)


def test_regions_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown task parameter 'hight'; did you mean 'height'"):
        box_rule(SPACE, [{"hight": (0, 1)}])
    with pytest.raises(ValueError, match=r"region 1: height from 2 to 1 is empty"):
        box_rule(SPACE, [{}, {"height": (2, 1)}])


def test_importing_task_teachers_imports_no_torch() -> None:
    code = (
        "import sys, tutelage.teachers as t; assert 'torch' not in sys.modules; "
        "assert t.MLPExpert.__name__ == 'MLPExpert' and t.ExpertRouter and 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

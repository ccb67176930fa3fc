"""Critics: normalisers against numbers by hand, experts' critics, files of older versions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from tutelage.students.torch_tools.running_moments import DEVIATION_FLOOR
from tutelage.students.vision.critics import Critic
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent
from tutelage.teachers.experts.mlp_expert import ExpertConfig, MLPExpert

SHAPES = {"front/rgb": (16, 16, 3), "policy": (5,), "privileged": (4,)}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def critic(seed: int = 0, **settings: Any) -> Critic:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Critic(4, (8,), **settings)


def test_a_new_critic_changes_nothing() -> None:
    made, view = critic(), drawn(6, 4)
    torch.testing.assert_close(made(view), made.network.layers(view)[:, 0])


def test_inputs_are_normalised_by_all_that_was_seen() -> None:
    made = critic(clip=2.0)
    parts = [3 + 2 * drawn(50, 4), 100 * drawn(7, 4, seed=1), torch.ones(1, 4)]
    for part in parts:
        made.observe(part)
    everything = torch.cat(parts).double()
    torch.testing.assert_close(made.network.mean, everything.mean(0))
    torch.testing.assert_close(made.network.scale, everything.std(0, correction=0) + DEVIATION_FLOOR)
    assert int(made.seen) == 58
    normal = ((parts[0] - everything.mean(0)) / made.network.scale).clamp(-2, 2).float()
    torch.testing.assert_close(made(parts[0]), made.network.layers(normal)[:, 0])


def test_scale_follows_returns() -> None:
    made = critic()
    made.follow(torch.tensor([[1.0, 3.0], [5.0, 7.0]]))  # the first counts alone: mean 4, variance 5
    assert float(made.value_mean) == pytest.approx(4)
    assert float(made.value_scale) == pytest.approx(5**0.5)
    made.follow(torch.tensor([10.0]))  # the second counts half: mean 7, second moment (21 + 100) / 2
    assert float(made.value_mean) == pytest.approx(7)
    assert float(made.value_scale) == pytest.approx((121 / 2 - 49) ** 0.5, rel=1e-5)
    for _ in range(30):
        made.follow(torch.zeros(3))
    last = float(made.value_mean)
    made.follow(torch.full((3,), 20.0))  # by now 5 % at a time
    assert float(made.value_mean) == pytest.approx(0.95 * last + 0.05 * 20)
    constant = critic()
    constant.follow(torch.full((5,), 3.0))
    assert float(constant.value_scale) == pytest.approx(1e-2)


@given(mean=st.floats(-100, 100), scale=st.floats(0.1, 100), seed=st.integers(0, 9))
def test_another_scale_leaves_values(mean: float, scale: float, seed: int) -> None:
    made, view = critic(seed), drawn(6, 4, seed=seed)
    before = made(view)
    for other in ((mean, scale), (1.0, 2.0)):
        made.rescale(torch.tensor(other[0]), torch.tensor(other[1]))
        torch.testing.assert_close(made(view), before, atol=1e-4, rtol=1e-4)
    assert (float(made.value_mean), float(made.value_scale)) == (1, 2)


def expert(critic_view: str | None = "privileged", **facts: Any) -> MLPExpert:
    sizes: dict[str, Any] = {"critic_view": critic_view, "num_states": 4, "critic_hidden": (8,)}
    config = ExpertConfig("policy", 5, 2, (3,), **(sizes if critic_view else {}), activation="Tanh", clip=5.0)
    parts = [("actor", 5, 3, 2)] + ([("critic", 4, 8, 1)] if critic_view else [])
    tensors = {"log_std": torch.zeros(2)}
    for number, (part, inputs, hidden, outputs) in enumerate(parts):
        tensors |= {
            f"{part}.mean": drawn(inputs, seed=number).double(),
            f"{part}.scale": 0.5 + drawn(inputs, seed=number).abs().double(),
            f"{part}.layers.0.weight": drawn(hidden, inputs, seed=number),
            f"{part}.layers.0.bias": drawn(hidden, seed=number),
            f"{part}.layers.2.weight": drawn(outputs, hidden, seed=number),
            f"{part}.layers.2.bias": drawn(outputs, seed=number),
        }
    return MLPExpert(config, tensors, facts)


def test_experts_critic_says_what_the_expert_says() -> None:
    """In the task's rewards, of which the expert saw a third; it can be trained, the expert's cannot."""
    source = expert(reward_scale=3.0)
    obs_dict = {"policy": drawn(20, 5), "privileged": 4 * drawn(20, 4)}
    made = Critic.of_expert(source)
    value = source.advise(obs_dict).value
    assert value is not None
    torch.testing.assert_close(made(obs_dict["privileged"]), value)
    assert source.critic is not None
    torch.testing.assert_close(value, 3 * source.critic(obs_dict["privileged"])[:, 0])
    assert all(parameter.requires_grad for parameter in made.parameters())
    next(made.parameters()).data.zero_()
    torch.testing.assert_close(source.advise(obs_dict).value, value)


def test_an_expert_without_a_critic() -> None:
    with pytest.raises(ValueError, match="has no critic; train one with train_expert"):
        Critic.of_expert(expert(critic_view=None))


# --- in a student ----------------------------------------------------------------------------------------


def student(**config: Any) -> VisionStudent:
    return VisionStudent(VisionConfig(hidden=(8,), critic_hidden=(8,), **config), SHAPES, 2)


def views(n: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (n, 16, 16, 3), dtype=torch.uint8, generator=generator)
    return {"front/rgb": image, "policy": drawn(n, 5), "privileged": drawn(n, 4)}


@pytest.mark.parametrize("memory", [0, 6])
def test_a_critic_of_what_the_student_sees(memory: int) -> None:
    made, inputs = student(critic_view="student", memory=memory), views(3)
    assert made.config.views == ("front/rgb", "policy")
    assert made.critic is not None
    assert made.critic.inputs == 128 + 5 + memory
    value = made(inputs, made.start(3)).value
    assert value is not None
    other = made({**inputs, "front/rgb": 255 - inputs["front/rgb"]}, made.start(3)).value
    assert not torch.isclose(value, other).any()
    value.sum().backward()  # PPO's usual: it shapes the encoder too
    assert all(parameter.grad is not None for parameter in made.encoders.parameters())
    assert all(parameter.grad is None for parameter in made.actor.parameters())


@pytest.mark.parametrize("view", ["privileged", "student"])
def test_normalisers_are_saved(view: str, tmp_path: Path) -> None:
    made, inputs = student(critic_view=view, critic_activation="Tanh", critic_clip=3.0), views(3)
    assert made.critic is not None
    made.critic.follow(torch.tensor([2.0, 9.0]))
    if view == "privileged":
        made.critic.observe(inputs[view])
    made.save(tmp_path)
    loaded = VisionStudent.load(tmp_path)
    assert torch.equal(loaded(inputs, made.start(3)).value, made(inputs, made.start(3)).value)
    assert loaded.config == made.config


def test_a_student_takes_the_critic_of_an_expert(tmp_path: Path) -> None:
    made, inputs, source = student(), views(3), expert(reward_scale=2.0)
    before = made(inputs, made.start(3))
    made.take_critic(Critic.of_expert(source), "privileged")
    after = made(inputs, made.start(3))
    assert before.value is None
    assert torch.equal(before.mean, after.mean)
    torch.testing.assert_close(after.value, source.advise(inputs).value)
    made.save(tmp_path)
    loaded = VisionStudent.load(tmp_path)
    torch.testing.assert_close(loaded(inputs, made.start(3)).value, after.value)
    assert (loaded.config.critic_activation, loaded.config.critic_clip) == ("Tanh", 5.0)


def test_files_of_older_versions_load(tmp_path: Path) -> None:
    """Critics were bare layers, and their activation was not said."""
    made, inputs = student(critic_view="privileged"), views(3)
    made.save(tmp_path)
    weights, description = tmp_path / "student.safetensors", tmp_path / "student.json"
    tensors = load_file(weights)
    old = {name: tensor for name, tensor in tensors.items() if not name.startswith("critic.")}
    for name, tensor in tensors.items():
        if name.startswith("critic.network.layers."):
            old["critic." + name.removeprefix("critic.network.layers.")] = tensor
    assert len(old) == len(tensors) - 6  # of mean, scale, value_mean, value_scale and two counts
    save_file(old, weights)
    values = json.loads(description.read_text())
    del values["config"]["critic_activation"], values["config"]["critic_clip"]
    description.write_text(json.dumps(values))
    loaded = VisionStudent.load(tmp_path)
    assert torch.equal(loaded(inputs, made.start(3)).value, made(inputs, made.start(3)).value)


def test_an_activation_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="did you mean 'Tanh'"):
        student(critic_view="privileged", critic_activation="Than")

"""Vision students: inputs, frame stacks, memory, output, files, ONNX, and Stable-Baselines3."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.envs.contract.state import StateError
from tutelage.students.vision.onnx_export import export_onnx, run_onnx
from tutelage.students.vision.pixels import input_size, opponent_colours, to_pixels
from tutelage.students.vision.student_state import StudentState
from tutelage.students.vision.vision_config import VisionConfig, vision_config_from_json
from tutelage.students.vision.vision_student import VisionStudent

SHAPES = {
    "front/rgb": (16, 16, 3),
    "front/depth": (16, 16),
    "wrist/rgb": (8, 16, 3),
    "front/segmentation": (16, 16),
    "policy": (5,),
    "privileged": (7,),
}
RGBD = ("front/rgb", "front/depth")


def student(seed: int = 0, **settings: Any) -> VisionStudent:
    return VisionStudent(VisionConfig(**{"precision": "float32", **settings}), SHAPES, 2, seed)


def views(n: int, *lead: int, seed: int = 0, stack: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = (stack,) if stack > 1 else ()
    depth = 4 * torch.rand(*lead, n, *frames, 16, 16, generator=generator)
    return {
        "front/rgb": torch.randint(
            0, 256, (*lead, n, *frames, 16, 16, 3), dtype=torch.uint8, generator=generator
        ),
        "front/depth": torch.where(depth > 3.5, torch.inf, depth),
        "policy": torch.randn(*lead, n, 5, generator=generator),
        "privileged": torch.randn(*lead, n, 7, generator=generator),
    }


# --- what is seen ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [("front/rgb",), ("front/depth",), RGBD, RGBD[::-1]])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("opponents", [False, True])
def test_inputs(images: tuple[str, ...], frames: int, opponents: bool) -> None:
    """Every view matters, and nothing that is not named does."""
    made = student(images=images, frames=frames, opponents=opponents)
    inputs = views(4, stack=frames)
    mean, std, value = made(inputs, made.start(4))[:3]
    assert mean.shape == (4, 2)
    assert std is None
    assert value is None
    assert torch.isfinite(mean).all()
    for name, view in inputs.items():
        changed = {**inputs, name: (255 - view) if view.dtype == torch.uint8 else view * 0.5}
        same = torch.equal(made(changed, made.start(4)).mean, mean)
        assert same == (name not in (*images, "policy")), name


def test_depth_in_numbers() -> None:
    """0 m, half and all of depth_far, and beyond it; bfloat16 has 8 bits."""
    made = student(images=("front/depth",), depth_far=2.0)
    seen: list[Tensor] = []
    made.encoders[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    depth = torch.zeros(1, 16, 16)
    depth[0, 0, :5] = torch.tensor([0.0, 1.0, 2.0, 2.5, torch.inf])
    made({"front/depth": depth, "policy": torch.zeros(1, 5)}, made.start(1))
    assert seen[0].shape == (1, 1, 16, 16)
    assert seen[0][0, 0, 0, :5].tolist() == [0.0, 127.5, 255.0, 255.0, 255.0]


def test_opponent_colours_by_hand() -> None:
    """|R - G|, |G - B|, |B - R| after red, green and blue; of bytes in one pass, else by tensors."""
    rgb = torch.tensor([200, 30, 90])
    wanted = [200.0, 30.0, 90.0, 170.0, 60.0, 110.0]
    assert opponent_colours(rgb.float()).tolist() == wanted
    two = opponent_colours(torch.tensor([200.0, 30.0, 90.0, 0.0, 255.0, 1.0]))
    assert two.tolist() == [*wanted, 0.0, 255.0, 1.0, 255.0, 254.0, 1.0]
    # How far red stands out, which pink (200, 30, 90) has less of than red (200, 30, 30):
    assert wanted[0] - (wanted[1] + wanted[2] + wanted[4]) / 2 == 200 - max(30, 90)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_opponent_colours_are_of_each_picture(kind: torch.dtype) -> None:
    """Two frames of two cameras; with depth beside them, where no kernel does it, the same."""
    shapes = {"a/rgb": (4, 5, 3), "b/rgb": (4, 5, 3), "b/depth": (4, 5)}
    generator = torch.Generator().manual_seed(0)
    inputs = {
        name: torch.randint(0, 256, (3, 2, 4, 5, 3), dtype=torch.uint8, generator=generator)
        for name in ("a/rgb", "b/rgb")
    }
    inputs["b/depth"] = torch.rand(3, 2, 4, 5, generator=generator)
    pair = ("a/rgb", "b/rgb")
    found = to_pixels(pair, inputs, shapes, 2, 1.0, kind, opponents=True)
    assert found.shape == (3, *input_size(pair, shapes, 2, opponents=True)) == (3, 24, 4, 5)
    for picture, name in enumerate(pair):
        for frame in range(2):
            rgb = inputs[name][:, frame].to(kind).permute(0, 3, 1, 2)
            first = 12 * picture + 6 * frame
            assert torch.equal(found[:, first : first + 3], rgb)
            assert torch.equal(found[:, first + 3 : first + 6], (rgb - rgb[:, [1, 2, 0]]).abs())
    deep = to_pixels((*pair, "b/depth"), inputs, shapes, 2, 1.0, kind, opponents=True)
    assert deep.shape == (3, *input_size((*pair, "b/depth"), shapes, 2, opponents=True)) == (3, 26, 4, 5)
    assert torch.equal(deep[:, :24], found)


def test_channels_are_in_order() -> None:
    """The oldest frame is first; RGB is used as it lies in memory."""
    made = student(frames=2, images=RGBD)
    seen: list[Tensor] = []
    made.encoders[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    inputs = views(3, stack=2)
    made(inputs, made.start(3))
    colours = inputs["front/rgb"].permute(0, 1, 4, 2, 3).flatten(1, 2).float()
    depth = inputs["front/depth"].clamp(max=3) * 85
    torch.testing.assert_close(seen.pop(), torch.cat([colours, depth], 1))
    single = student()
    single.encoders[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    single(views(3), single.start(3))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_each_camera_has_its_encoder() -> None:
    """Late fusion of two cameras: two encoders, features in their order, each of one camera alone."""
    shapes = {"a/rgb": (16, 16, 3), "a/depth": (16, 16), "b/rgb": (8, 12, 3), "policy": (5,)}
    config = VisionConfig(images=("a/rgb", "b/rgb", "a/depth"), frames=2)
    assert config.inputs == (("a/rgb", "a/depth"), ("b/rgb",))
    made = VisionStudent(config, shapes, 2, seed=0)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        name: torch.randint(0, 256, (3, 2, *shape), dtype=torch.uint8, generator=generator)
        for name, shape in shapes.items()
        if name.endswith("rgb")
    }
    inputs["a/depth"] = torch.rand(3, 2, 16, 16, generator=generator)
    inputs["policy"] = torch.randn(3, 5, generator=generator)
    seen = made.see(inputs)
    assert seen.shape == (3, 2 * 128 + 5)
    for camera, names in enumerate(config.inputs):
        for name in names:
            changed = {**inputs, name: 255 - inputs[name] if "rgb" in name else inputs[name] * 0.5}
            same = (made.see(changed) == seen).all(0)
            first = 128 * camera
            assert same[:first].all()
            assert same[first + 128 :].all()
            assert not same[first : first + 128].all()
    early = VisionConfig(images=("a/rgb", "b/rgb"), fusion="early")
    with pytest.raises(ValueError, match=r"so of one size, not 'a/rgb' 16 x 16, 'b/rgb' 8 x 12"):
        VisionStudent(early, shapes, 2)


@pytest.mark.parametrize("images", [("front/rgb",), RGBD])
def test_fusions_are_the_same_of_one_input(images: tuple[str, ...]) -> None:
    early, late = (student(images=images, fusion=fusion) for fusion in ("early", "late"))
    inputs = views(4)
    assert torch.equal(early(inputs, early.start(4)).mean, late(inputs, late.start(4)).mean)


@pytest.mark.parametrize("encoder", ["fast", "nature", "impala"])
def test_bfloat16_is_close(encoder: Any) -> None:
    shapes = {"front/rgb": (40, 40, 3), "policy": (5,)}
    config = VisionConfig(encoder=encoder, precision="bfloat16")
    made = VisionStudent(config, shapes, 2)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (8, 40, 40, 3), dtype=torch.uint8, generator=generator)
    inputs = {"front/rgb": image, "policy": torch.zeros(8, 5)}
    low = made.see(inputs)
    made.config = dataclasses.replace(config, precision="float32")
    high = made.see(inputs)
    assert low.dtype == torch.float32
    assert not torch.equal(low, high)
    assert (low - high).abs().max() < 0.02 * high.abs().max()


def test_points_are_never_bfloat16() -> None:
    assert not student(encoder="points", images=RGBD, precision="auto").computes_bfloat16
    with pytest.raises(ValueError, match="millimetres"):
        student(encoder="points", images=RGBD, precision="bfloat16")
    with pytest.raises(ValueError, match="needs depth"):
        student(encoder="points", images=RGBD[::-1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": ("front/rbg",)}, "did you mean 'front/rgb'"),
        ({"vector": "polcy"}, "did you mean 'policy'"),
        (
            {"images": ("front/rgb", "wrist/rgb"), "fusion": "early"},
            "of one size, not 'front/rgb' 16 x 16, 'wrist/rgb' 8 x 16",
        ),
        ({"images": ("front/segmentation",)}, "is neither"),
        ({"images": ("policy",)}, "is neither"),
        ({"images": "front/rgb"}, "give a tuple"),
        ({"images": ("front/rgb", "front/rgb")}, "name each once"),
        ({"vector": "front/rgb"}, "must be a vector"),
        ({"critic_view": "front/depth"}, "must be a vector"),
        ({"encoder": "fats"}, "did you mean 'fast'"),
        ({"head": "gauss"}, "did you mean 'gaussian'"),
        ({"frames": 0}, "frames must be at least 1"),
        ({"depth_far": 0.0}, "depth_far must be above 0"),
        ({"encoder": "nature"}, "at least 36 x 36"),
        ({"encoder": "points", "images": RGBD, "opponents": True}, "opponents=False"),
        ({"encoder": "points", "images": ("front/depth", "wrist/depth")}, "needs depth of one camera"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        student(**settings)


def test_wrong_inputs() -> None:
    made, right = student(), views(2)
    wrong = {
        "front/rgb": [right["front/rgb"].float(), right["front/rgb"][:, :8], right["front/rgb"][:, None]],
        "policy": [right["privileged"]],
    }
    for name, parts in wrong.items():
        for part in parts:
            with pytest.raises(ValueError, match=f"{name}.*this student sees"):
                made({**right, name: part}, made.start(2))


# --- frame stacks and memory -----------------------------------------------------------------------------


def test_frame_stacks_by_hand() -> None:
    """Environment 1 ends after its second step: its third frame fills the stack."""
    made = student(frames=3)
    seen: list[Tensor] = []
    made.encoders[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    state = made.start(2)
    for t, done in enumerate([0, 1, 0, 0]):
        image = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
        image[0], image[1] = 10 + t, 20 + t
        _, state = made.act({"front/rgb": image, "policy": torch.zeros(2, 5)}, state)
        state = state.reset(torch.tensor([0, done]))
    stacks = [channels[:, ::3, 0, 0].tolist() for channels in seen]
    assert stacks == [
        [[10, 10, 10], [20, 20, 20]],
        [[10, 10, 11], [20, 20, 21]],
        [[10, 11, 12], [22, 22, 22]],
        [[11, 12, 13], [22, 22, 23]],
    ]


def test_acting_is_forward_of_stacks() -> None:
    made = student(frames=2, memory=8, images=RGBD)
    first, second = views(3, seed=1), views(3, seed=2)
    state = made.start(3)
    one, state = made.act(first, state)
    two, state = made.act(second, state)
    stacks = {name: torch.stack([first[name], first[name]], 1) for name in RGBD}
    output = made({**first, **stacks}, made.start(3))
    torch.testing.assert_close(one, output.mean.clamp(-1, 1))
    stacks = {name: torch.stack([first[name], second[name]], 1) for name in RGBD}
    output = made({**second, **stacks}, output.state)
    torch.testing.assert_close(two, output.mean.clamp(-1, 1))
    torch.testing.assert_close(state.memory, output.state.memory)


def test_a_reset_cuts_a_sequence_in_two() -> None:
    """One sequence of 6 steps, cut after 2 in environment 0 alone, against its parts."""
    made = student(memory=8, head="gaussian", critic_view="privileged")
    inputs = views(2, 6)
    started = torch.zeros(6, 2, dtype=torch.bool)
    started[2, 0] = True
    whole = made.forward_sequence(inputs, made.start(2), started)
    uncut = made.forward_sequence(inputs, made.start(2))
    assert torch.equal(whole.mean[:, 1], uncut.mean[:, 1])
    assert torch.equal(whole.mean[:2], uncut.mean[:2])
    assert not torch.isclose(whole.mean[2:, 0], uncut.mean[2:, 0]).any()

    tail = made.forward_sequence({name: view[2:] for name, view in inputs.items()}, made.start(2))
    torch.testing.assert_close(whole.mean[2:, 0], tail.mean[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.state.memory[0], tail.state.memory[0], rtol=1e-5, atol=1e-6)
    assert whole.std is not None
    assert whole.value is not None
    assert whole.std.shape == (6, 2, 2)
    assert whole.value.shape == (6, 2)


def test_two_sequences_exactly_where_the_images_are_encoded_alike() -> None:
    """The memory itself is cut exactly: what came before the reset changes no bit after it."""
    made = student(memory=8)
    inputs, other = views(2, 6), views(2, 6, seed=9)
    started = torch.zeros(6, 2, dtype=torch.bool)
    started[3] = True
    mixed = {name: torch.cat([other[name][:3], view[3:]]) for name, view in inputs.items()}
    one = made.forward_sequence(inputs, made.start(2), started)
    two = made.forward_sequence(mixed, made.start(2), started)
    assert not torch.equal(one.mean[:3], two.mean[:3])
    assert torch.equal(one.mean[3:], two.mean[3:])
    assert torch.equal(one.state.memory, two.state.memory)
    one.mean[3:].sum().backward()  # and no gradient goes back through it
    whole = [parameter.grad.clone() for parameter in made.gru.parameters()]  # type: ignore[union-attr]
    made.zero_grad()
    two.mean[3:].sum().backward()
    again = [parameter.grad for parameter in made.gru.parameters()]  # type: ignore[union-attr]
    for ours, theirs in zip(whole, again, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_episode_after_a_reset_is_exactly_one_of_its_own() -> None:
    """Six steps with a reset after three, against three and three from the start."""
    made, inputs = student(memory=8), views(2, 6)

    def play(steps: range, reset_before: int) -> list[Tensor]:
        state, means = made.start(2), []
        for t in steps:
            state = state.reset(torch.full((2,), t == reset_before))
            output = made({name: view[t] for name, view in inputs.items()}, state)
            means.append(output.mean)
            state = output.state
        return means

    whole = play(range(6), reset_before=3)
    for ours, theirs in zip(whole, play(range(3), -1) + play(range(3, 6), -1), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(whole[5], play(range(6), reset_before=-1)[5])


def test_sequences_are_steps() -> None:
    made = student(memory=8)
    inputs = views(3, 4)
    started = torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]).bool()
    sequence = made.forward_sequence(inputs, made.start(3), started)
    state = made.start(3)
    for t in range(4):
        output = made({name: view[t] for name, view in inputs.items()}, state.reset(started[t]))
        torch.testing.assert_close(output.mean, sequence.mean[t], rtol=1e-5, atol=1e-6)
        state = output.state
    torch.testing.assert_close(state.memory, sequence.state.memory)


def test_back_propagation_is_truncated_where_it_is_detached() -> None:
    made, inputs = student(memory=8), views(2)
    first = made(inputs, made.start(2)).state
    assert first.memory.requires_grad
    assert not first.detach().memory.requires_grad
    assert torch.equal(first.detach().memory, first.memory)
    (whole,) = torch.autograd.grad(made(inputs, first).mean.sum(), [made.gru.bias_ih])  # type: ignore[union-attr]
    (cut,) = torch.autograd.grad(made(inputs, first.detach()).mean.sum(), [made.gru.bias_ih])  # type: ignore[union-attr]
    assert not torch.allclose(whole, cut)


def test_memory_after_reset_is_that_of_the_start() -> None:
    state = StudentState({}, torch.ones(3, 2), torch.zeros(3, dtype=torch.bool))
    reset = state.reset(torch.tensor([0, 1, 0]))
    assert reset.memory.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert reset.started.tolist() == [False, True, False]
    assert state.memory.tolist() == [[1, 1]] * 3  # not in place
    nan = StudentState({}, torch.full((1, 2), torch.nan), torch.zeros(1, dtype=torch.bool))
    assert nan.reset(torch.ones(1)).memory.tolist() == [[0, 0]]


# --- output -----------------------------------------------------------------------------------------------


def test_actions_are_drawn_from_a_generator() -> None:
    made = student(head="gaussian", init_std=0.5)
    inputs = {name: view.expand(4000, *view.shape[1:]) for name, view in views(1).items()}
    before = torch.get_rng_state()
    mean, _ = made.act(inputs, made.start(4000))
    drawn, _ = made.act(inputs, made.start(4000), False, torch.Generator().manual_seed(3))
    again, _ = made.act(inputs, made.start(4000), False, torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, again)
    assert drawn.abs().max() == 1  # clipped: 2 standard deviations
    inner = drawn[drawn.abs() < 1]
    assert torch.median(drawn - mean).abs() < 0.05
    assert 0.35 < inner.std() < 0.5  # of a normal distribution cut at about 2 standard deviations: 0.44
    with pytest.raises(ValueError, match="generator"):
        made.act(inputs, made.start(4000), deterministic=False)
    with pytest.raises(ValueError, match="head='gaussian'"):
        student().act(views(2), student().start(2), False, torch.Generator())


def test_critic_sees_its_view_alone() -> None:
    made = student(critic_view="privileged")
    inputs = views(3)
    value = made(inputs, made.start(3)).value
    assert value is not None
    assert value.shape == (3,)
    blind = made({**inputs, "front/rgb": inputs["front/rgb"] * 0}, made.start(3))
    assert blind.value is not None
    torch.testing.assert_close(blind.value, value)
    del inputs["privileged"]  # a robot does not have it
    assert made(inputs, made.start(3)).value is None
    made.act(inputs, made.start(3))


def test_seeds() -> None:
    before = torch.get_rng_state()
    one, same, other = student(0), student(0), student(1)
    assert torch.equal(torch.get_rng_state(), before)
    mean = one(views(2), one.start(2)).mean
    assert torch.equal(same(views(2), one.start(2)).mean, mean)
    assert not torch.isclose(other(views(2), one.start(2)).mean, mean).any()


def test_it_learns_where_a_square_is() -> None:
    """A white square on noise: after 60 steps the action is its place, within a quarter of its spread."""
    made = VisionStudent(VisionConfig(vector=None, hidden=(64,)), {"front/rgb": (32, 32, 3)}, 2)
    optimizer = torch.optim.Adam(made.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)

    def batch(n: int) -> tuple[dict[str, Tensor], Tensor]:
        images = torch.randint(0, 120, (n, 32, 32, 3), dtype=torch.uint8, generator=generator)
        corner = torch.randint(0, 27, (n, 2), generator=generator)
        rows = torch.arange(32)
        inside = (rows >= corner[..., None]) & (rows < corner[..., None] + 6)
        images[inside[:, 0, :, None] & inside[:, 1, None, :]] = 255
        return {"front/rgb": images}, (corner - 13) / 13

    for _ in range(60):
        inputs, place = batch(128)
        loss = (made(inputs, made.start(128)).mean - place).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    inputs, place = batch(256)
    error = (made.act(inputs, made.start(256))[0] - place).square().mean().sqrt()
    assert error < place.std() / 4


# --- files -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(
    opponents=st.booleans(),
    images=st.sampled_from([("front/rgb",), ("front/depth",), RGBD]),
    vector=st.sampled_from([None, "policy"]),
    frames=st.integers(1, 3),
    memory=st.sampled_from([0, 4]),
    hidden=st.lists(st.integers(1, 8), max_size=2).map(tuple),
    head=st.sampled_from(["deterministic", "gaussian"]),
    critic_view=st.sampled_from([None, "privileged", "policy"]),
    seed=st.integers(0, 9),
)
def test_saved_students_are_the_same(tmp_path_factory: Any, seed: int, **chosen: Any) -> None:
    made = student(seed, **chosen)
    folder = tmp_path_factory.mktemp("student") / "new"
    made.save(folder)
    loaded = VisionStudent.load(folder)
    assert loaded.config == made.config
    assert loaded.shapes == made.shapes
    inputs = views(2, stack=made.config.frames)
    for ours, theirs in zip(made(inputs, made.start(2))[:3], loaded(inputs, made.start(2))[:3], strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        VisionStudent.load(tmp_path)
    made = student()
    made.save(tmp_path)
    description, weights = tmp_path / "student.json", tmp_path / "student.safetensors"
    good, whole = description.read_text(), weights.read_bytes()

    def refused(text: str, message: str) -> None:
        description.write_text(text)
        with pytest.raises(StateError, match=message):
            VisionStudent.load(tmp_path)

    values = json.loads(good)
    refused(good[:-20], "holds no vision student")
    refused("[]", "holds no vision student")
    refused(json.dumps({**values, "num_actions": 3}), "size mismatch")
    refused(json.dumps({**values, "shapes": {**values["shapes"], "policy": [6]}}), "size mismatch")
    refused(json.dumps({**values, "config": {**values["config"], "memry": 3}}), "did you mean 'memory'")
    refused(json.dumps({**values, "config": {**values["config"], "images": ["side/rgb"]}}), "side/rgb")
    description.write_text(good)
    for broken in (whole[: len(whole) // 2], b"", b"\x80\x04pickle"):
        weights.write_bytes(broken)
        with pytest.raises(StateError, match="holds no vision student"):
            VisionStudent.load(tmp_path)
    weights.write_bytes(whole)
    assert VisionStudent.load(tmp_path).config == made.config
    older = {name: value for name, value in values["config"].items() if name != "opponents"}
    description.write_text(json.dumps({**values, "config": older}))
    assert VisionStudent.load(tmp_path).config == made.config  # of before there was such a setting


def test_config_is_json() -> None:
    config = VisionConfig(images=RGBD, memory=16, hidden=(8,), critic_view="privileged", head="gaussian")
    assert vision_config_from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert config.views == ("front/rgb", "front/depth", "policy", "privileged")
    with pytest.raises(ValueError, match="did you mean 'frames'"):
        vision_config_from_json({"frame": 2})


# --- elsewhere -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"frames": 2, "memory": 8, "images": RGBD, "head": "gaussian"},
        {"encoder": "points", "images": ("front/depth",), "vector": None},
        {"opponents": True},
        {"encoder": "fine", "frames": 3, "images": ("front/rgb", "wrist/rgb"), "predicts": "privileged"},
    ],
)
def test_onnx_acts_as_torch(settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    made = student(**settings)
    with torch.no_grad():
        made.actor[-1].bias.copy_(torch.tensor([0.5, 2.0]))  # the second is clipped
    path = tmp_path / "deep" / "student.onnx"
    assert export_onnx(made, path) < 1e-5
    assert path.exists()
    inputs = views(4, stack=made.config.frames)
    inputs["wrist/rgb"] = 255 - inputs["front/rgb"][..., :8, :, :]
    config = made.config
    asked = {name: inputs[name].numpy() for name in config.views if name != config.predicts}
    memory = torch.rand(4, made.config.memory)
    if made.config.memory:
        asked["memory"] = memory.numpy()
    found = run_onnx(path, asked)
    state = dataclasses.replace(made.start(4), memory=memory)
    with torch.no_grad():
        output = made(inputs, state)
    np.testing.assert_allclose(found[0], output.mean.clamp(-1, 1).numpy(), atol=1e-5)
    assert (found[0][:, 1] == 1).all()
    if made.config.memory:
        np.testing.assert_allclose(found[1], output.state.memory.numpy(), atol=1e-5)


def test_onnx_that_deviates_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("tutelage.students.vision.onnx_export.run_onnx", lambda _, inputs: [np.array(9.0)])
    with pytest.raises(RuntimeError, match="deviates from torch"):
        export_onnx(student(), tmp_path / "student.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
def test_same_on_a_gpu(tmp_path: Path) -> None:
    made = student(images=RGBD, frames=2, memory=8, opponents=True)
    expected, state = made.act(views(3), made.start(3))
    made.save(tmp_path)
    moved = VisionStudent.load(tmp_path, "cuda")
    found, _ = moved.act({name: view.cuda() for name, view in views(3).items()}, moved.start(3))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)
    assert state.memory.device.type == "cpu"

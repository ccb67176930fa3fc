"""A learner's updates: the mean over the whole minibatch, the same with any number of threads."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.looks.image_augmentation import ImageAugmentation
from tutelage.students.distillation import LearningConfig
from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.learner import LABEL, Learner, augmented
from tutelage.students.torch_tools import sharded_gradients
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent

SHAPES = {"front/rgb": (16, 16, 3), "policy": (3,)}
CONFIG = LearningConfig(batch_size=20, sequence_length=5, burn_in=1, shard_size=8)
KINDS: list[dict[str, Any]] = [{}, {"memory": 4}, {"frames": 2, "head": "gaussian"}]


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads, however many cores there are."""
    monkeypatch.setattr(sharded_gradients, "available_cores", lambda: 3)


def student(**config: Any) -> VisionStudent:
    return VisionStudent(VisionConfig(hidden=(16,), precision="float32", **config), SHAPES, 2)


def filled(learner: Learner) -> FrameBuffer:
    """A ring of 12 steps of 4 environments, whose episodes last 5, 6, 7 and 8."""
    generator = torch.Generator().manual_seed(3)
    buffer = None
    for step in range(12):
        obs_dict = {
            "front/rgb": torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8, generator=generator),
            "policy": torch.randn(4, 3, generator=generator),
        }
        fields = learner.fields(obs_dict, torch.rand(4, 2, generator=generator) - 0.5, torch.ones(4, 2))
        buffer = buffer or FrameBuffer(48, 4, fields, "cpu")
        buffer.add(fields, torch.tensor([step % length == 0 for length in (5, 6, 7, 8)]))
    assert buffer is not None
    return buffer


def learnt(config: LearningConfig, updates: int = 3, **kind: Any) -> Tensor:
    """Losses, and then weights, of a new student after some updates."""
    learner = Learner(student(**kind), config, torch.Generator().manual_seed(1))
    buffer = filled(learner)
    losses = [learner.update(buffer)[0] for _ in range(updates)]
    return torch.cat([torch.stack(losses), *(p.detach().flatten() for p in learner.student.parameters())])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_results_do_not_depend_on_the_number_of_threads(kind: dict[str, Any]) -> None:
    config = replace(CONFIG, augmentation=ImageAugmentation(shift=2, hue=0.1, cutouts=1))
    state = torch.random.get_rng_state()
    one, *others = (learnt(replace(config, threads=threads), **kind) for threads in (1, 2, 3, 3, 0))
    for other in others:
        assert torch.equal(one, other)
    assert one.isfinite().all()
    assert not torch.equal(one, learnt(replace(config, shard_size=20), **kind))  # other draws
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_an_update_follows_the_mean_gradient_of_all_shards(kind: dict[str, Any]) -> None:
    """20 frames in shards of at most 8 are 7, 7 and 6; 4 sequences of 5 are 2, 1 and 1."""
    learner = Learner(student(**kind), CONFIG, torch.Generator().manual_seed(1))
    buffer = filled(learner)
    loss, frames = learner.update(buffer)
    found = {name: p.grad.clone() for name, p in learner.student.named_parameters() if p.grad is not None}
    assert frames == 20
    # The same by hand: the frames that the shards drew, as one batch.
    fresh = Learner(student(**kind), CONFIG, torch.Generator().manual_seed(1))
    seeds = torch.randint(2**62, (3,), generator=fresh.generator).tolist()
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    if learner.recurrent:
        parts = [
            buffer.sample_sequences(n, 5, g, fresh.stacks) for n, g in zip((2, 1, 1), generators, strict=True)
        ]
        expected = fresh.sequence_loss({name: torch.cat([p[name] for p in parts], 1) for name in parts[0]})
    else:
        parts = [buffer.sample(n, g, fresh.stacks) for n, g in zip((7, 7, 6), generators, strict=True)]
        expected = fresh.losses({name: torch.cat([p[name] for p in parts]) for name in parts[0]}, None)[
            0
        ].mean()
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.nn.utils.clip_grad_norm_(fresh.student.parameters(), CONFIG.max_grad_norm)
    for name, parameter in fresh.student.named_parameters():
        if parameter.grad is None:
            assert name not in found
        else:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


class Numbering(ImageAugmentation):
    """Paints each picture with the number of those that it is to be augmented alike with."""

    def __call__(self, images: Tensor, generator: torch.Generator, alike: Tensor | None = None) -> Tensor:
        assert alike is not None
        return alike[:, None, None, None].expand(images.shape).to(torch.uint8)


@pytest.mark.parametrize(
    ("kind", "painted"),
    [
        ({}, [0, 1, 2]),  # (n,): each its own
        ({"frames": 2}, [[0, 0], [1, 1], [2, 2]]),  # (n, k): a sample's stack alike
        ({"memory": 4}, [[0, 1, 2]] * 5),  # (T, n): a sequence's steps alike
        ({"memory": 4, "frames": 2}, [[[0, 0], [1, 1], [2, 2]]] * 5),  # (T, n, k)
    ],
    ids=str,
)
def test_frames_of_a_sample_are_augmented_alike(
    kind: dict[str, Any], painted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How far a thing moved from frame to frame is what stack and memory are for; a shift would be added."""
    learner = Learner(student(**kind), replace(CONFIG, augmentation=Numbering()), torch.Generator())
    buffer, generator = filled(learner), torch.Generator()
    seen: list[dict[str, Tensor]] = []
    see = learner.student.see
    monkeypatch.setattr(learner.student, "see", lambda inputs: (seen.append(inputs), see(inputs))[1])
    if learner.recurrent:
        batch = buffer.sample_sequences(3, 5, generator, learner.stacks)
        learner.losses(batch, learner.student.start(3))
    else:
        learner.losses(buffer.sample(3, generator, learner.stacks), None)
    pictures = seen[0]["front/rgb"].float().mean((-1, -2, -3))
    wanted = torch.tensor(painted).float()
    assert torch.equal(pictures, wanted.flatten(0, 1) if learner.recurrent else wanted)


def test_rgb_and_depth_of_a_camera_are_augmented_alike() -> None:
    """Depth that is the red of the same picture stays so, in each sample and each frame of its stack."""
    shapes = {**{f"{c}/rgb": (16, 16, 3) for c in "ab"}, "a/depth": (16, 16), "policy": (3,)}
    pair = VisionStudent(VisionConfig(images=("a/rgb", "b/rgb", "a/depth"), frames=2), shapes, 2)
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randint(1, 256, (5, 2, 16, 16, 3), dtype=torch.uint8, generator=generator)
    inputs = {"a/rgb": rgb, "b/rgb": rgb, "a/depth": rgb[..., 0].float()}
    shifts = ImageAugmentation(shift=6)
    found = augmented(shifts, inputs, pair, 0, generator)
    assert torch.equal(found["a/rgb"][..., 0].float(), found["a/depth"])
    assert not torch.equal(found["a/rgb"], found["b/rgb"])  # another camera sees from elsewhere
    assert not torch.equal(found["a/rgb"], rgb)
    again = augmented(shifts, inputs, pair, 0, generator)
    assert not torch.equal(again["a/rgb"], found["a/rgb"])  # the generator has moved on


def test_more_shards_than_samples_are_not_made() -> None:
    one_sequence = replace(CONFIG, batch_size=5, shard_size=2)
    assert torch.equal(
        learnt(one_sequence, memory=4), learnt(replace(one_sequence, shard_size=100), memory=4)
    )


def test_a_label_is_learnt() -> None:
    learner = Learner(student(), replace(CONFIG, learning_rate=3e-3), torch.Generator().manual_seed(1))
    buffer = filled(learner)
    losses = torch.stack([learner.update(buffer)[0] for _ in range(150)])
    assert losses[-10:].mean() < 0.3 * losses[:10].mean()
    assert LABEL in buffer.sample(1, learner.generator)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": -1}, "threads must be at least 1, or 0 for all cores, not -1"),
        ({"shard_size": 0}, "shard_size must be above 0, not 0"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearningConfig(**changes)  # type: ignore[arg-type]

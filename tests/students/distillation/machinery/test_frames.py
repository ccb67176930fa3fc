"""The ring of frames: what is in it after any number of steps, stacks, sequences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.students.distillation.machinery.frames import FrameBuffer

ENVS = 3


def fill(buffer: FrameBuffer, starts: list[list[bool]]) -> None:
    """Step t of environment e is the number 10 t + e."""
    for t, started in enumerate(starts):
        values = 10.0 * t + torch.arange(ENVS)
        buffer.add({"x": values[:, None], "i": values.to(torch.uint8)[:, None]}, torch.tensor(started))


def make(capacity: int) -> FrameBuffer:
    fields = {"x": torch.zeros(ENVS, 1), "i": torch.zeros(ENVS, 1, dtype=torch.uint8)}
    return FrameBuffer(capacity, ENVS, fields, "cpu")


episodes = st.lists(st.lists(st.booleans(), min_size=ENVS, max_size=ENVS), min_size=1, max_size=14)


@settings(max_examples=60, deadline=None)
@given(episodes, st.integers(1, 6), st.integers(1, 4))
def test_ring_holds_the_last_steps_and_stacks_stay_within_an_episode(
    starts: list[list[bool]], steps: int, stack: int
) -> None:
    buffer = make(steps * ENVS + 1)  # not a whole step more
    fill(buffer, starts)
    kept = min(len(starts), steps)
    assert (buffer.steps, buffer.size, buffer.frames) == (steps, kept, kept * ENVS)
    oldest = len(starts) - kept
    for step in range(kept):
        for env in range(ENVS):
            t = oldest + step
            begun = max(u for u in range(t + 1) if starts[u][env] or u == 0)
            wanted = [max(u, begun, oldest) for u in range(t - stack + 1, t + 1)]
            found = buffer.gather(torch.tensor(step), torch.tensor(env), {"x": stack}, age=True)
            assert found["x"].flatten().tolist() == [10.0 * u + env for u in wanted]
            assert found["i"].tolist() == [10 * t + env]
            assert int(found["age"]) == t - begun


@settings(max_examples=30, deadline=None)
@given(episodes, st.integers(1, 6), st.integers(0, 2**31))
def test_samples_are_stored_frames_and_sequences_are_consecutive(
    starts: list[list[bool]], steps: int, seed: int
) -> None:
    buffer = make(steps * ENVS)
    fill(buffer, starts)
    generator = torch.Generator().manual_seed(seed)
    oldest = len(starts) - buffer.size
    x = buffer.sample(20, generator)["x"]
    assert bool((x >= 10 * oldest).all())
    assert bool((x < 10 * len(starts)).all())
    length = buffer.size
    found = buffer.sample_sequences(5, length, generator)
    assert found["x"].shape == (length, 5, 1)
    assert bool((found["x"].diff(dim=0) == 10).all())
    assert bool((found["x"][0] < 10 * oldest + ENVS).all())  # there is but one place for a whole one


def test_sampled_stacks_of_a_full_ring_miss_no_frame() -> None:
    buffer = make(4 * ENVS)
    fill(buffer, [[True] * ENVS] + [[False] * ENVS] * 8)  # one long episode; steps 5 to 8 are left
    found = buffer.sample(200, torch.Generator().manual_seed(0), {"x": 3})["x"][..., 0]
    assert set(found[:, -1].div(10, rounding_mode="floor").tolist()) == {7.0, 8.0}
    assert bool((found.diff(dim=1) == 10).all())


def test_all_frames_are_sampled_alike() -> None:
    buffer = make(4 * ENVS)
    fill(buffer, [[False] * ENVS] * 6)
    draws = 12_000
    counts = buffer.sample(draws, torch.Generator().manual_seed(3))["x"].unique(return_counts=True)[1]
    assert len(counts) == 12
    # chi square with 11 degrees of freedom: above 31.3 in one of 1,000
    assert float(((counts - draws / 12) ** 2 / (draws / 12)).sum()) < 31.3


def test_the_ring_copies_and_clears() -> None:
    buffer = make(2 * ENVS)
    x = torch.ones(ENVS, 1)
    buffer.add({"x": x, "i": x.to(torch.uint8)}, torch.zeros(ENVS, dtype=torch.bool))
    x.fill_(5)
    assert buffer.gather(torch.tensor(0), torch.tensor(0))["x"].item() == 1
    buffer.clear()
    assert buffer.frames == 0
    with pytest.raises(ValueError, match="1 consecutive steps were asked for, and 0 are stored"):
        buffer.sample(4, torch.Generator())
    buffer.add({"x": x, "i": x.to(torch.uint8)}, torch.zeros(ENVS, dtype=torch.bool))
    assert int(buffer.gather(torch.tensor(0), torch.tensor(0), age=True)["age"]) == 0


def test_depth_is_kept_in_half_the_memory_and_nothing_stays_infinite() -> None:
    depth = torch.tensor([[[0.5, 1.25], [2.0, float("inf")]]])
    buffer = FrameBuffer(2, 1, {"depth": depth}, "cpu")
    buffer.add({"depth": depth}, torch.tensor([True]))
    found = buffer.gather(torch.tensor([0]), torch.tensor([0]))["depth"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, depth, rtol=2**-11, atol=0)


def test_a_ring_smaller_than_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="2 frames holds no step of 3 environments"):
        make(2)


rounds = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(rounds, st.integers(1, 6), st.integers(1, 4))
def test_a_ring_read_in_parts_is_the_same_ring(added: list[int], steps: int, length: int) -> None:
    fields = {"x": torch.zeros(2, 1), "depth": torch.zeros(2, 2, 2)}
    ring, other = (FrameBuffer(2 * steps, 2, fields, "cpu") for _ in range(2))
    t = 0
    for count in added:
        for _ in range(count):
            x = torch.tensor([[10.0 * t], [10.0 * t + 1]])
            ring.add({"x": x, "depth": x[:, :, None].expand(2, 2, 2)}, torch.tensor([t % 3 == 0, False]))
            t += 1
    assert (ring.added, ring.oldest) == (t, max(0, t - steps))
    other.load_state_dict(ring.state_dict(frames=False))
    for first in range(ring.oldest, ring.added, length):
        other.write(first, ring.read(first, min(first + length, ring.added)))
    step = torch.arange(ring.size)[:, None].expand(-1, 2)
    env = torch.arange(2).expand(ring.size, -1)
    for _ in range(2):
        one, two = (buffer.gather(step, env, {"x": 3}, age=True) for buffer in (ring, other))
        assert all(torch.equal(one[name], two[name]) for name in one)
        for buffer in (ring, other):  # and goes on alike
            buffer.add({"x": torch.ones(2, 1), "depth": torch.ones(2, 2, 2)}, torch.tensor([False, True]))
    with pytest.raises(ValueError, match=f"{ring.oldest} to {ring.added - 1} are stored"):
        ring.read(ring.oldest - 1, ring.added)

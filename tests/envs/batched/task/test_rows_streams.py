"""Rows chosen by index and by mask do the same; streams are those of `noise`, one each."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.streams import RandomStreams
from tutelage.envs.contract.noise import stream_keys, uniforms

choices = st.lists(st.booleans(), min_size=1, max_size=9)


def both(chosen: list[bool]) -> tuple[Rows, Rows]:
    mask = torch.tensor(chosen)
    return Rows.of_indices(mask.nonzero().flatten(), len(chosen)), Rows.of_mask(mask)


@given(choices, st.sampled_from([(), (2,), (2, 3)]), st.sampled_from([torch.float32, torch.int64]))
def test_putting_by_index_and_by_mask_is_the_same(chosen, shape, dtype):
    by_index, by_mask = both(chosen)
    buffer = torch.arange(len(chosen) * math.prod(shape), dtype=dtype).view(-1, *shape)
    new = -1.0 - torch.arange(buffer.numel(), dtype=torch.float64).view(buffer.shape)
    one, other = buffer.clone(), buffer.clone()
    by_index.put(one, new[chosen])
    by_mask.put(other, new)
    assert one.dtype == dtype
    assert torch.equal(one, other)
    assert torch.equal(one[chosen], new[chosen].to(dtype))
    unchosen = ~torch.tensor(chosen)
    assert torch.equal(one[unchosen], buffer[unchosen])


@given(choices)
def test_putting_one_number(chosen):
    for rows in both(chosen):
        buffer = torch.full((len(chosen), 2), 3.0)
        rows.put(buffer, 7)
        assert buffer[:, 1].tolist() == [7.0 if c else 3.0 for c in chosen]


@given(choices)
def test_rows_know_their_mask_indices_and_count(chosen):
    by_index, by_mask = both(chosen)
    assert by_index.mask.tolist() == by_mask.mask.tolist() == chosen
    assert by_index.indices.tolist() == [i for i, c in enumerate(chosen) if c]
    assert by_mask.indices.tolist() == list(range(len(chosen)))
    assert (by_index.n, by_mask.n) == (sum(chosen), len(chosen))
    buffer = torch.arange(len(chosen)) * 10
    assert by_index.take(buffer).tolist() == [10 * i for i, c in enumerate(chosen) if c]
    assert by_mask.take(buffer) is buffer


def test_rows_need_indices_or_a_mask():
    with pytest.raises(ValueError, match="of_indices"):
        Rows(3, None, None)


def test_all_rows():
    rows = Rows.all(3)
    assert (rows.n, rows.mask.tolist(), rows.masked) == (3, [True] * 3, False)


@given(st.lists(st.integers(0, 2**63), min_size=1, max_size=5), st.integers(1, 6))
def test_uniform64_are_the_numbers_of_noise(seeds, count):
    streams = RandomStreams(len(seeds), 0)
    rows = Rows.all(len(seeds))
    streams.seed(rows, seeds)
    expected = uniforms(stream_keys(seeds), 0, 2 * count).T
    drawn = torch.cat([streams.uniform64(rows, count), streams.uniform64(rows, count)], 1)
    assert np.array_equal(drawn.numpy(), expected)


@given(choices, choices, st.integers(1, 4))
def test_a_stream_does_not_depend_on_its_neighbours_or_on_masks(first, second, count):
    n = min(len(first), len(second))
    alone = [RandomStreams(n, 5) for _ in range(2)]
    for draws in (first[:n], second[:n]):
        by_index, by_mask = both(draws)
        numbers = alone[0].uniform(by_index, count)
        assert torch.equal(numbers, alone[1].uniform(by_mask, count)[draws])
    assert torch.equal(alone[0].positions, alone[1].positions)
    assert alone[0].positions.tolist() == [
        count * (a + b) for a, b in zip(first[:n], second[:n], strict=True)
    ]


@given(st.integers(1, 5), st.integers(1, 5))
def test_many_at_once_are_as_one_after_the_other(a, b):
    streams, rows = [RandomStreams(3, 1) for _ in range(2)], Rows.all(3)
    together = streams[0].uniform(rows, a + b)
    apart = [streams[1].uniform(rows, a), streams[1].uniform(rows, b)]
    assert torch.equal(together, torch.cat(apart, 1))


def test_environments_seeds_and_batches():
    small, large, other = RandomStreams(2, 3), RandomStreams(4, 3), RandomStreams(2, 4)
    assert torch.equal(small.keys, large.keys[:2])
    assert len({*large.keys.tolist(), *other.keys.tolist()}) == 6
    zero = RandomStreams(2, 0)
    assert torch.equal(zero.keys, RandomStreams(2, 0).keys)
    with pytest.raises(ValueError, match="2 environments were given 1 seeds"):
        zero.seed(Rows.all(2), [1])


def test_uniform_keeps_24_bits_and_scales():
    streams, rows = RandomStreams(4, 2), Rows.all(4)
    exact = RandomStreams(4, 2).uniform64(rows, 3)
    # 2 + 3 u, with u cut to multiples of 2^-24
    expected = 2 + 3 * torch.floor(exact * 2**24) / 2**24
    assert torch.allclose(streams.uniform(rows, 3, 2.0, 5.0).double(), expected, atol=1e-6, rtol=0)


def test_normal_is_box_and_muller_of_the_uniform_numbers():
    rows = Rows.all(3)
    u = RandomStreams(3, 9).uniform(rows, 4).double()
    radius = torch.sqrt(-2 * torch.log(1 - u[:, :2]))
    angle = 2 * math.pi * u[:, 2:]
    expected = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)
    drawn = RandomStreams(3, 9).normal(rows, 3)
    assert drawn.shape == (3, 3)
    assert torch.allclose(drawn.double(), expected[:, :3], atol=1e-5)


def test_normal_has_mean_0_and_deviation_1():
    numbers = RandomStreams(200, 1).normal(Rows.all(200), 200).double()
    # 40,000 numbers: standard errors 0.005 of the mean, 0.0035 of the deviation; five of each
    assert abs(float(numbers.mean())) < 0.025
    assert abs(float(numbers.std()) - 1) < 0.018
    across = torch.corrcoef(numbers[:20])
    assert float((across - torch.eye(20)).abs().max()) < 5 / math.sqrt(200)

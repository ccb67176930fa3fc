"""Gradients of shards add up to those of the whole, bit for bit the same with any number of threads."""

import threading

import pytest
import torch
from torch import nn

from tutelage.students.torch_tools import sharded_gradients
from tutelage.students.torch_tools.sharded_gradients import ShardedGradients, ShardLoss


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads, however many cores there are."""
    monkeypatch.setattr(sharded_gradients, "available_cores", lambda: 4)


def squares(inputs: list[float], weights: list[float] | None = None) -> ShardLoss[nn.Module]:
    """Weighted sum of ``net(x)^2``."""
    column = torch.tensor(inputs)[:, None]
    weight = torch.ones(len(inputs)) if weights is None else torch.tensor(weights)
    return lambda net: ((net(column)[:, 0].square() * weight).sum(), weight.sum())


def line(weight: float) -> nn.Linear:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, weight)
    return net


@pytest.mark.parametrize("threads", [1, 3])
def test_gradient_by_hand(threads: int) -> None:
    """loss = mean (w x)^2, so its gradient is 2 w mean x^2; x = 1, 2, 3 in shards of 1 and 2, w = 2."""
    net = line(2.0)
    loss = ShardedGradients(net, threads)([squares([1.0]), squares([2.0, 3.0])])
    assert loss.item() == pytest.approx(4 * 14 / 3)
    assert net.weight.grad is not None
    assert net.weight.grad.item() == pytest.approx(4 * 14 / 3)


def test_weights_by_hand() -> None:
    """x = 1 counts half, 2 and 5 not at all, 3 once: the mean of x^2 is (0.5 + 9) / 1.5."""
    net = line(1.0)
    loss = ShardedGradients(net, 2)([squares([1.0, 2.0], [0.5, 0.0]), squares([3.0]), squares([5.0], [0.0])])
    assert loss.item() == pytest.approx(9.5 / 1.5)
    assert net.weight.grad is not None
    assert net.weight.grad.item() == pytest.approx(2 * 9.5 / 1.5)
    assert ShardedGradients(net, 2)([squares([5.0], [0.0])] * 2).item() == 0  # and no division by 0


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))


def test_same_bits_with_any_number_of_threads() -> None:
    parts = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)).tolist()
    found = []
    for threads in (1, 2, 4, 4):
        net = network()
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        gradients = ShardedGradients(net, threads)
        losses = []
        for _ in range(5):
            losses.append(gradients([squares(part) for part in parts]))
            optimizer.step()
        found.append(torch.cat([torch.stack(losses), *(p.detach().flatten() for p in net.parameters())]))
    for other in found[1:]:
        assert torch.equal(found[0], other)


def test_shards_equal_the_whole() -> None:
    parts = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)).tolist()
    one, other = network(), network()
    ShardedGradients(one, 4)([squares(part) for part in parts])
    ShardedGradients(other, 1)([squares([x for part in parts for x in part])])
    for mine, whole in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, whole.grad)


def test_shards_are_worked_at_side_by_side() -> None:
    meeting = threading.Barrier(2, timeout=20)

    def shard(net: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        meeting.wait()  # fails unless the other comes, too
        assert torch.get_num_threads() == 1
        return squares([1.0])(net)

    before = torch.get_num_threads()
    ShardedGradients(line(1.0), 2)([shard, shard])
    assert torch.get_num_threads() == before


def test_parameters_without_a_gradient_get_none() -> None:
    net = nn.ModuleDict({"used": line(1.0), "later": line(1.0), "never": line(1.0)})
    both = lambda net: (net["used"](torch.ones(1, 1)) + net["later"](torch.ones(1, 1))).sum()  # noqa: E731
    one = lambda net: net["used"](torch.ones(1, 1)).sum()  # noqa: E731
    gradients = ShardedGradients(net, 2)
    gradients([lambda net: (one(net), torch.ones(())), lambda net: (both(net), torch.ones(()))])
    found = [parameter.grad for parameter in net.parameters()]
    assert found[:2] == [torch.ones(1, 1), torch.full((1, 1), 0.5)]
    assert found[2] is None


def test_replaced_parameters_are_noticed() -> None:
    net = line(1.0)
    gradients = ShardedGradients(net, 2)
    shards = [squares([1.0]), squares([1.0])]
    assert gradients(shards).item() == 1
    with torch.no_grad():
        net.weight.mul_(3)  # in place, as optimisers do
    assert gradients(shards).item() == 9
    net.weight = nn.Parameter(torch.full((1, 1), 5.0))
    assert gradients(shards).item() == 25


def test_frozen_parameters_and_replaced_buffers_are_noticed() -> None:
    net = nn.ModuleDict({"kept": line(2.0), "frozen": line(3.0)})
    net.register_buffer("scale", torch.ones(1, 1))
    shard = lambda net: (net["frozen"](net["kept"](net.scale)).sum(), torch.ones(()))  # noqa: E731
    gradients = ShardedGradients(net, 2)
    assert gradients([shard, shard]).item() == 6
    net["frozen"].requires_grad_(False)
    net.scale = torch.full((1, 1), 5.0)
    assert gradients([shard, shard]).item() == 30
    kept, frozen = net.parameters()
    assert frozen.grad is None
    assert kept.grad is not None
    assert kept.grad.item() == 15


def test_an_error_in_a_shard_is_raised() -> None:
    def broken(net: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        raise ValueError("no such frame")

    with pytest.raises(ValueError, match="no such frame"):
        ShardedGradients(line(1.0), 2)([squares([1.0]), broken])
    with pytest.raises(ValueError, match="threads must be at least 1, or 0 for all cores, not -1"):
        ShardedGradients(line(1.0), -1)

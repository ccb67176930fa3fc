"""Time limits of single episodes: of `start`, and of what is proposed."""

from typing import Any

import numpy as np
import pytest
import torch

from tutelage.envs.contract.proposals import Proposals
from tutelage.envs.contract.tasks import TaskError

FAR = (1.5, 4.0)  # of goal and mass: never reached without a push


def ends(task: Any, steps: int) -> list[list[int]]:
    """In which of the next steps each environment's episodes were truncated, counted from 1."""
    ended: list[list[int]] = [[] for _ in range(task.num_envs)]
    for step in range(1, steps + 1):
        _, _, reset, extras = task.step(task.zero_actions())
        assert torch.equal(extras["time_outs"], reset.bool())
        for row in reset.nonzero().flatten().tolist():
            ended[row].append(step)
    return ended


def test_the_earlier_of_horizon_and_time_limit_ends_an_episode(sliding_mass: Any) -> None:
    task = sliding_mass(4, threads=1)
    assert task.horizon_buf.dtype == torch.int64
    assert task.horizon_buf.tolist() == [12] * 4
    task.start([2, 0, 1], np.array([FAR] * 3), horizon=[3, 5, 50])
    assert task.horizon_buf.tolist() == [5, 50, 3, 12]
    assert ends(task, 13) == [[5], [12], [3], [12]]  # what follows has the time limit alone: 3 + 12 > 13
    assert task.horizon_buf.tolist() == [12] * 4
    task.max_episode_length = 2
    assert ends(task, 2)[2] == [1]  # it has run for 10 steps


def test_a_horizon_of_one_ends_an_episode_in_its_first_step(sliding_mass: Any) -> None:
    task = sliding_mass(1, threads=1)
    task.propose = lambda n: Proposals(np.array([FAR] * n), horizon=np.ones(n, np.int64))
    task.reset()
    assert ends(task, 3) == [[1, 2, 3]]


def test_success_at_a_horizon_is_that_of_a_time_limit(sliding_mass: Any) -> None:
    class Staying(sliding_mass):  # type: ignore[misc]
        """Success is to be beyond the goal when time is over."""

        def compute_outcomes(self) -> Any:
            reached = super().compute_outcomes()[1]
            return torch.zeros_like(reached), reached

    task = Staying(3, threads=1)
    task.start(range(3), np.array([[0.5, 1.0]] * 3), horizon=[3, 4, 9])
    task.sim.write("qpos", torch.zeros(3, 1))
    for step in range(1, 5):
        _, _, reset, extras = task.step(torch.ones(3, 1))
        # after 3 steps of four 0.01 s at 40 m/s2: 0.004 * (1 + ... + 12) = 0.312 m; after 4: 0.544 m
        assert reset.tolist() == [int(step == 3), int(step == 4), 0]
        assert extras["success"].tolist() == [False, step == 4, False]
        if step == 4:
            assert extras["time_outs"].tolist() == [False, True, False]
            assert extras["terminal_obs"]["raw"][1, 0] == pytest.approx(0.544)
            assert abs(float(task.obs_dict["raw"][1, 0])) <= 0.1


def test_what_ends_at_its_horizon_is_no_time_out(sliding_mass: Any) -> None:
    task = sliding_mass(1, threads=1)
    task.start([0], np.array([[0.5, 1.0]]), horizon=[4])
    task.sim.write("qpos", torch.zeros(1, 1))
    for _ in range(4):
        task.step(torch.ones(1, 1))
    assert task.terminated.item()
    assert task.success.item()
    assert not task.truncated.item()


def test_horizons_of_proposals_hold_for_their_episodes(sliding_mass: Any) -> None:
    for by_mask in (False, True):
        task = sliding_mass(2, threads=1)
        if by_mask:
            task._rows_of = type(task._everyone).of_mask
        horizons = iter([np.array([2, 4]), None, np.array([3]), None, None])

        def propose(n: int, horizons: Any = horizons) -> Any:
            horizon, tasks = next(horizons), np.array([FAR] * n)
            return tasks if horizon is None else Proposals(tasks, horizon)

        task.propose = propose
        task.reset()
        assert ends(task, 14) == [[2, 14], [4, 7]]


@pytest.mark.parametrize(
    ("horizon", "message"),
    [
        ([3, 0], "a horizon is 0; it must be at least 1 step"),
        ([3], r"horizon is int64 of shape \(1,\); .* each of the 2 environments"),
        (3, r"horizon is int64 of shape \(\)"),
        ([3.5, 4.0], "horizon is float64 of shape .* give whole numbers"),
        ([True, True], "horizon is bool"),
    ],
)
def test_wrong_horizons_change_nothing(sliding_mass: Any, horizon: Any, message: str) -> None:
    task = sliding_mass(3, threads=1)
    before = task.state_dict()
    with pytest.raises(ValueError, match=message):
        task.start([2, 1], np.array([FAR] * 2), horizon=horizon)
    np.testing.assert_equal(task.state_dict(), before)


def test_wrong_proposals_are_refused(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1)
    task.propose = lambda n: Proposals(np.full((n, 2), 9.0), np.ones(n, np.int64))
    with pytest.raises(TaskError, match=r"tasks proposed by SlidingMass: goal = 9\.0"):
        task.reset()
    task.propose = lambda n: Proposals(np.array([FAR] * n), trains=np.arange(n) > 0)
    with pytest.raises(ValueError, match=r"with trains=False, but .* use TaughtVecEnv"):
        task.reset()
    task.propose = lambda n: Proposals(np.array([FAR] * n), trains=np.ones(n, bool))
    task.reset()


def test_horizons_are_saved(sliding_mass: Any) -> None:
    task, other = sliding_mass(2, threads=1), sliding_mass(2, threads=1, seed=1)
    task.start([0, 1], np.array([FAR] * 2), horizon=[6, 9])
    ends(task, 4)
    other.load_state_dict(task.state_dict())
    assert ends(other, 12) == [[2], [5]]

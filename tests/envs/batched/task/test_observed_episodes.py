"""Task teachers that a batched task itself asks and tells: what they observe, and when."""

from typing import Any

import numpy as np
import pytest
import torch

from tutelage.envs.batched.adaptors.gymnasium_env import GymnasiumVecTask
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.contract.episodes import Episodes

NEAR, FAR = (0.5, 1.0), (1.5, 4.0)


class Recorder:
    """Proposes NEAR for the first environment that ends in a step, FAR for others; notes every call."""

    def __init__(self) -> None:
        self.calls: list[int | Episodes] = []

    def propose(self, n: int) -> Any:
        self.calls.append(n)
        return np.array([NEAR, *[FAR] * (n - 1)])

    def observe(self, episodes: Episodes) -> None:
        self.calls.append(episodes)

    @property
    def episodes(self) -> list[Episodes]:
        return [call for call in self.calls if isinstance(call, Episodes)]


def taught(task: Any) -> Recorder:
    """A recorder that teaches the task, in episodes that begin at x = 0 now."""
    recorder = Recorder()
    task.teach(recorder)
    task.reset()
    at_zero(task)
    return recorder


def at_zero(task: Any) -> None:
    task.sim.write("qpos", torch.zeros(task.num_envs, 1))
    task.sim.forward()
    task.post_physics_step()


def push_the_first(task: Any, steps: int) -> None:
    actions = task.zero_actions()
    actions[0] = 1
    for _ in range(steps):
        task.step(actions)


@pytest.mark.parametrize("by_mask", [False, True])
def test_episodes_are_observed_before_their_successors_are_proposed(sliding_mass: Any, by_mask: bool) -> None:
    task = sliding_mass(2, threads=1)
    if by_mask:  # as on a GPU
        task._rows_of = Rows.of_mask
    recorder = taught(task)
    push_the_first(task, 3)
    assert recorder.calls == [2]
    push_the_first(task, 1)
    first_two, episodes, one = recorder.calls
    assert (first_two, one) == (2, 1)
    # 4 steps: x = 0.544 (see test_horizons), so progress 2 * 0.544, effort 4 * -0.1, goal 3
    assert episodes.tasks.tolist() == [list(NEAR)]
    np.testing.assert_allclose(episodes.returns, [1.088 - 0.4 + 3], rtol=1e-6)
    assert episodes.returns.dtype == np.float64
    assert (episodes.lengths.tolist(), episodes.successes.tolist()) == ([4], [1.0])
    assert (episodes.ids.tolist(), episodes.environments.tolist(), episodes.started.tolist()) == (
        [0],
        [0],
        [0],
    )
    assert task.num_proposed == 3

    for _ in range(8):  # the second ends by time, in the 12th step
        task.step(task.zero_actions())
    assert len(recorder.episodes) == 2
    last = recorder.episodes[1]
    assert (last.ids.tolist(), last.environments.tolist(), last.started.tolist()) == ([1], [1], [0])
    assert (last.lengths.tolist(), last.successes.tolist()) == ([12], [0.0])
    for _ in range(4):
        task.step(task.zero_actions())
    assert recorder.episodes[2].ids.tolist() == [2]
    assert recorder.episodes[2].started.tolist() == [4 * 2]  # of both environments together


def test_all_that_end_in_one_step_come_in_one_call(sliding_mass: Any) -> None:
    task = sliding_mass(4, threads=1)
    recorder = taught(task)
    for _ in range(24):
        task.step(task.zero_actions())
    assert [call if isinstance(call, int) else len(call) for call in recorder.calls] == [4, 4, 4, 4, 4]
    first, second = recorder.episodes
    assert first.ids.tolist() == first.environments.tolist() == second.environments.tolist() == [0, 1, 2, 3]
    assert second.ids.tolist() == [4, 5, 6, 7]
    assert second.started.tolist() == [12 * 4] * 4


def test_what_was_not_observed_whole_is_not_reported(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1)
    recorder = Recorder()
    push_the_first(task, 2)
    task.teach(recorder)  # in mid-episode
    for _ in range(10):
        task.step(task.zero_actions())
    assert recorder.calls == [2]  # they ended, and their successors were proposed
    task.progress_buf[0] = 7  # as rsl_rl spreads the first ends
    for _ in range(5):
        task.step(task.zero_actions())
    assert recorder.calls == [2, 1]
    task.observe = None
    task.step(task.zero_actions())
    task.observe = recorder.observe
    for _ in range(12):
        task.step(task.zero_actions())
    assert recorder.episodes == []
    for _ in range(12):
        task.step(task.zero_actions())
    assert [len(episodes) for episodes in recorder.episodes] == [1, 1]
    assert {int(episodes.lengths[0]) for episodes in recorder.episodes} == {12}


def test_without_an_observer_nothing_is_added_up(sliding_mass: Any, monkeypatch: Any) -> None:
    task = sliding_mass(2, threads=1)
    for name in ("add", "begin", "settle", "take_finished"):
        monkeypatch.setattr(task.observed, name, None)  # to call it is an error
    for _ in range(13):
        task.step(task.zero_actions())
    assert task.observed.returns.tolist() == [0, 0]


def test_chosen_and_drawn_tasks_are_observed_without_an_id(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1)
    seen: list[Episodes] = []
    task.observe = seen.append
    task.reset()
    drawn = task.tasks.numpy().copy()
    task.start([1], np.array([FAR]), horizon=[5])
    for _ in range(12):
        task.step(task.zero_actions())
    assert [episodes.tasks.tolist() for episodes in seen] == [[list(FAR)], [drawn[0].tolist()]]
    assert [episodes.lengths.tolist() for episodes in seen] == [[5], [12]]
    assert [episodes.ids.tolist() for episodes in seen] == [[-1], [-1]]


def test_an_episode_is_reported_once_whoever_resets_it(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1)
    task.auto_reset = False
    recorder = taught(task)
    for _ in range(15):
        task.step(task.zero_actions())  # three steps too many
    assert [call if isinstance(call, int) else len(call) for call in recorder.calls] == [2, 2]
    task.reset_done()
    assert recorder.calls[-1] == 2
    for _ in range(12):
        task.step(task.zero_actions())
    assert recorder.episodes[1].lengths.tolist() == [12, 12]


def test_an_observer_that_fails_is_not_asked_twice(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1)
    recorder = taught(task)

    def fail(episodes: Episodes) -> None:
        raise RuntimeError("cannot")

    task.observe, task.horizon_buf[:] = fail, 3  # before the first reaches its goal
    with pytest.raises(RuntimeError, match="cannot"):
        push_the_first(task, 12)
    assert task.reset_buf.tolist() == [1, 1]
    task.observe = recorder.observe
    task.reset_done()
    for _ in range(12):
        task.step(task.zero_actions())
    assert [episodes.ids.tolist() for episodes in recorder.episodes] == [[2, 3]]


def test_a_return_that_is_no_number_is_named(sliding_mass: Any) -> None:
    class Wrong(sliding_mass):  # type: ignore[misc]
        def compute_rewards(self) -> Any:
            return {"bad": torch.full((self.num_envs,), torch.nan)}

    task = Wrong(2, threads=1)
    taught(task)
    with pytest.raises(ValueError, match=r"return nan of task .* is not finite"):
        push_the_first(task, 12)


def test_a_diverged_episode_is_one_without_success(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1)
    recorder = taught(task)
    task.step(task.zero_actions())
    task.sim.write("qvel", torch.tensor([[torch.nan]]), Rows.of_indices(torch.tensor([1]), 2))
    task.step(task.zero_actions())
    [episodes] = recorder.episodes
    assert (episodes.environments.tolist(), episodes.lengths.tolist()) == ([1], [2])
    assert (episodes.returns.tolist(), episodes.successes.tolist()) == ([0.0], [0.0])


def test_task_teachers_may_compute_gradients(sliding_mass: Any) -> None:
    task = sliding_mass(1, threads=1)
    modes: list[tuple[bool, bool]] = []

    class Network(Recorder):
        def propose(self, n: int) -> Any:
            modes.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
            return super().propose(n)

        def observe(self, episodes: Episodes) -> None:
            self.propose(1)

    with torch.inference_mode():
        task.teach(Network())
        task.reset()
        for _ in range(12):
            task.step(task.zero_actions())
    assert set(modes) == {(True, False)}
    assert len(modes) == 3


def test_nobody_teaches_any_more(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1)
    recorder = taught(task)
    task.teach(None)
    for _ in range(24):
        task.step(task.zero_actions())
    assert recorder.calls == [2]


def same(ours: list[Episodes], theirs: list[Episodes]) -> bool:
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        for name in ("tasks", "returns", "lengths", "successes", "ids", "environments", "started"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(other, name), name)
    return True


def test_resumed_episodes_are_reported_as_they_would_have_been(sliding_mass: Any) -> None:
    task, later = sliding_mass(3, threads=1, seed=1), sliding_mass(3, threads=1, seed=2)
    recorder = taught(task)
    push_the_first(task, 7)
    state, known = task.state_dict(), len(recorder.episodes)
    push_the_first(task, 20)

    resumed = Recorder()
    for before in (True, False):  # it does not matter whether one teaches before or after loading
        resumed.calls.clear()
        later.teach(resumed if before else None)
        push_the_first(later, 3)
        later.load_state_dict(state)
        later.teach(resumed)
        resumed.calls.clear()
        push_the_first(later, 20)
        assert same(resumed.episodes, recorder.episodes[known:])
    assert later.num_proposed == task.num_proposed


def test_states_of_before_are_loaded(sliding_mass: Any) -> None:
    task, twin, later = (sliding_mass(3, threads=1, seed=seed) for seed in (1, 1, 2))
    for each in (task, twin):
        push_the_first(each, 7)
    state = task.state_dict()
    for name in ("steps", "proposals"):
        del state[name]
    for name in ("horizon_buf", "observed_return", "observed_steps", "proposal_id", "episode_started"):
        del state["buffers"][name]
    later.start(range(3), np.array([FAR] * 3), horizon=[2] * 3)
    recorder = Recorder()
    later.teach(recorder)
    later.load_state_dict(state)
    assert later.horizon_buf.tolist() == [12] * 3
    later.propose = None
    for _ in range(30):
        push_the_first(later, 1)
        push_the_first(twin, 1)
        assert torch.equal(later.obs_buf, twin.obs_buf)
        assert torch.equal(later.reset_buf, twin.reset_buf)
    lengths = np.concatenate([episodes.lengths for episodes in recorder.episodes])
    assert 2 <= (lengths == 12).sum() <= len(lengths)  # those that ran when it was saved are missing
    assert min(np.concatenate([episodes.started for episodes in recorder.episodes])) > 0


def test_a_gymnasium_adaptor_needs_nothing_more(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1)
    env, recorder = GymnasiumVecTask(task), Recorder()
    task.teach(recorder)
    env.reset(seed=0)
    for _ in range(12):
        env.step(np.zeros((2, 1), np.float32))
    assert [episodes.ids.tolist() for episodes in recorder.episodes] == [[0, 1]]

"""Rows of running episodes: saved, restored elsewhere, and gone on with as their originals do."""

from typing import Any

import numpy as np
import pytest
import torch

from tutelage.envs.batched.cameras.camera_config import CameraConfig
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.worlds.catalogue import VEC_TASKS, make_vec_task
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateError, load_state, save_state

OBSERVED = ("tasks", "returns", "lengths", "successes", "ids", "started")


def actions_of(task: Any, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(task.num_envs, task.num_actions, generator=generator) - 1


def run(task: Any, steps: int, seed: int = 0) -> Any:
    for step in range(steps):
        task.step(actions_of(task, seed + step))
    return task


def goes_on_as(task: Any, original: Any, ids: list[int], originals: list[int], steps: int) -> None:
    """Step both: rows `ids` of the one must do what rows `originals` of the other do."""
    seen: dict[Any, list[Episodes]] = {task: [], original: []}
    for each in seen:
        each.observe = seen[each].append
    for step in range(steps):
        actions, other_actions = actions_of(original, 1000 + step), actions_of(task, 5000 + step)
        other_actions[ids] = actions[originals]
        expected, expected_rew, expected_reset, expected_extras = original.step(actions)
        obs, rew, reset, extras = task.step(other_actions)
        for name, view in expected.items():
            assert torch.equal(obs[name][ids], view[originals]), (name, step)
            last, expected_last = extras["terminal_obs"][name], expected_extras["terminal_obs"][name]
            assert torch.equal(last[ids], expected_last[originals])
        assert torch.equal(rew[ids], expected_rew[originals])
        assert torch.equal(reset[ids], expected_reset[originals])
        for name in ("time_outs", "success", "diverged", "ended_tasks"):
            assert torch.equal(extras[name][ids], expected_extras[name][originals])
        assert torch.equal(task.tasks[ids], original.tasks[originals])
    for term, sums in original.log.sums.items():
        assert torch.equal(task.log.sums[term][ids], sums[originals])
    for mine, its in zip(ids, originals, strict=True):
        ours, theirs = (
            [one for batch in seen[each] for one in each_row(batch) if one["environments"] == row]
            for each, row in ((task, mine), (original, its))
        )
        assert [one["values"][:4] for one in ours] == [one["values"][:4] for one in theirs]


def each_row(batch: Episodes) -> list[dict[str, Any]]:
    return [
        {
            "environments": batch.environments[i],
            "values": [getattr(batch, name)[i].tolist() for name in OBSERVED],
        }
        for i in range(len(batch))
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", [{}, {"view_noise": {"policy": 0.1, "raw": 0.0}}])
def test_random_rows_go_on_bit_for_bit(sliding_mass: Any, seed: int, options: dict[str, Any]) -> None:
    """For 200 steps, 16 episodes or more, at other indices than they were saved from."""
    rng = np.random.default_rng(seed)
    original, task = (sliding_mass(7, threads=1, seed=s, **options) for s in (seed, seed + 50))
    for each in (original, task):
        each.observe = lambda episodes: None
        each.reset()
    count = int(rng.integers(1, 7))
    originals, ids = (rng.permutation(7)[:count].tolist() for _ in range(2))
    original.start([3], np.array([[1.5, 4.0]]), horizon=[int(rng.integers(6, 12))])
    run(original, int(rng.integers(0, 30)), seed)
    state = original.save_rows(originals)
    run(task, int(rng.integers(0, 30)), seed + 100)
    assert task.restore_rows(ids, state) is task.obs_dict
    for name, view in original.obs_dict.items():
        assert torch.equal(task.obs_dict[name][ids], view[originals])
    goes_on_as(task, original, ids, originals, 200)


@pytest.mark.parametrize("name", VEC_TASKS)
def test_rows_of_every_task_go_on_bit_for_bit(name: str) -> None:
    original, task = (make_vec_task(name, 4, threads=1, seed=seed) for seed in (1, 2))
    for each in (original, task):
        each.max_episode_length = 11
        each.reset()
    run(task, 3, 7)
    run(original, 8)
    state = original.save_rows([3, 0])
    run(task, 2, 9)
    task.restore_rows([1, 3], state)
    goes_on_as(task, original, [1, 3], [3, 0], 25)


def test_neighbours_are_left_alone(sliding_mass: Any) -> None:
    task, twin = (sliding_mass(4, threads=1, seed=3, view_noise={"policy": 0.1}) for _ in range(2))
    for each in (task, twin):
        run(each, 5)
    state = run(sliding_mass(4, threads=1, seed=9, view_noise={"policy": 0.1}), 8).save_rows([0, 2])
    kept = {name: view.clone() for name, view in task.obs_dict.items()}
    task.restore_rows([1, 3], state)
    for name, view in kept.items():
        assert torch.equal(task.obs_dict[name][[0, 2]], view[[0, 2]])
    goes_on_as(task, twin, [0, 2], [0, 2], 40)


def test_one_row_is_restored_into_several(sliding_mass: Any, tmp_path: Any) -> None:
    """As a start teacher does: an archive of rows on disk, some of them picked out, one of them twice."""
    original, task = (sliding_mass(5, threads=1, seed=seed) for seed in (1, 2))
    run(original, 6)
    save_state(tmp_path / "rows.npz", original.save_rows([4, 1, 2]))
    archive, picked = load_state(tmp_path / "rows.npz"), [2, 0, 2]

    def pick(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: pick(value) for name, value in node.items()}
        return node[picked] if isinstance(node, np.ndarray) else node

    task.restore_rows([0, 3, 1], pick(archive))
    goes_on_as(task, original, [0, 3, 1], [2, 4, 2], 60)


def test_rows_are_chosen_by_mask_too_and_none_is_none(sliding_mass: Any) -> None:
    task = run(sliding_mass(3, threads=1), 2)
    by_index, by_mask = task.save_rows([0, 2]), task.save_rows(torch.tensor([True, False, True]))
    np.testing.assert_equal(by_mask, by_index)
    before = task.state_dict()
    task.restore_rows([], task.save_rows([]))
    np.testing.assert_equal(task.state_dict(), before)


def test_all_rows_are_the_whole(sliding_mass: Any) -> None:
    task = run(sliding_mass(3, threads=1, view_noise={"policy": 0.1}), 5)
    whole, rows = task.state_dict(), task.save_rows([0, 1, 2])
    assert {name for name in whole if name not in rows} == {"num_diverged", "steps", "proposals"}
    np.testing.assert_equal({name: whole[name] for name in rows}, rows)


def test_a_state_does_not_change_with_the_task(sliding_mass: Any) -> None:
    task = run(sliding_mass(3, threads=1), 5)
    state, again = task.save_rows([1]), task.save_rows([1])
    run(task, 3)
    np.testing.assert_equal(state, again)


def test_a_restored_row_is_as_well_as_it_was(sliding_mass: Any) -> None:
    """It may replace one that diverged; one that was saved after its end waits for a reset again."""
    task, original = sliding_mass(3, threads=1), sliding_mass(3, threads=1, seed=1)
    state = run(original, 2).save_rows([0])
    task.auto_reset = False
    task.sim.write("qvel", torch.full((3, 1), torch.nan))
    task.step(task.zero_actions())
    assert task.diverged.all()
    task.restore_rows([1], state)
    assert task.diverged.tolist() == [True, False, True]
    assert task.reset_buf.tolist() == [1, 0, 1]
    assert torch.equal(task.obs_dict["policy"][1], original.obs_dict["policy"][0])
    task.step(task.zero_actions())
    original.step(original.zero_actions())
    assert task.reset_buf.tolist() == [1, 0, 1]
    assert torch.equal(task.obs_dict["policy"][1], original.obs_dict["policy"][0])
    ended = task.save_rows([0])
    run(original, 1).restore_rows([2], ended)
    assert original.reset_buf[2] == 1
    original.reset_done()
    assert original.progress_buf.tolist()[2] == 0


def test_pictures_show_restored_rows(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1, cameras=[CameraConfig("front", 16, 16)])
    task.start([0, 1], np.array([[1.5, 1.0]] * 2))
    first = {name: view.clone() for name, view in task.obs_dict.items()}
    state = task.save_rows([0])
    for _ in range(6):
        task.step(torch.ones(2, 1))
    assert not torch.equal(task.obs_dict["front/rgb"][1], first["front/rgb"][0])
    task.restore_rows([1], state)
    assert torch.equal(task.obs_dict["front/rgb"][1], first["front/rgb"][0])


def test_sums_of_terms_start_with_those_that_are_known(sliding_mass: Any) -> None:
    unborn, task = sliding_mass(2, threads=1), run(sliding_mass(2, threads=1, seed=1), 5)
    state = task.save_rows([1])
    task.restore_rows([0], unborn.save_rows([0]))  # no term has been added there
    assert {float(sums[0]) for sums in task.log.sums.values()} == {0.0}
    unborn.restore_rows([0], state)
    for term, sums in unborn.log.sums.items():
        assert sums[0] == state["term_sums"][term][0]
        assert sums[1] == 0


def test_states_that_do_not_fit_are_refused(sliding_mass: Any) -> None:
    task, other = sliding_mass(3, threads=1), sliding_mass(3, threads=1, seed=1)
    foreign = make_vec_task("reach", 2, threads=1).save_rows([0, 1])
    damaged = other.save_rows([0, 1])
    damaged["buffers"]["actions"] = np.zeros((2, 2), np.float32)
    coarse = other.save_rows([0, 1])
    coarse["physics"] = coarse["physics"][:, :3]
    noisy = sliding_mass(3, threads=1, view_noise={"policy": 0.1}).save_rows([0, 1])
    before = task.state_dict()
    for state, message in (
        (foreign, "the state is of the task Reach; these environments are SlidingMass"),
        (other.save_rows([0]), "the state is of 1 environments; expected 2 of SlidingMass"),
        (damaged, r"'buffers/actions' of the state is float32 of shape \(2, 2\), not .* \(2, 1\)"),
        (coarse, "'physics' of the state .* the model or the simulator is another"),
        (noisy, "has unknown 'policy'; make them with the same view_noise"),
        (other.state_dict(), "unknown 'num_diverged', .*; what state_dict returned is for load_state_dict"),
        ([], "the state is a list, not the dict of a saved task"),
    ):
        with pytest.raises(StateError, match=message):
            task.restore_rows([2, 0], state)
    with pytest.raises(StateError, match="lacks 'num_diverged'; what save_rows returned is for restore_rows"):
        task.load_state_dict(other.save_rows([0, 1, 2]))
    with pytest.raises(StateError, match="the state is a list"):
        task.load_state_dict([])  # type: ignore[arg-type]
    for call in (task.save_rows, lambda ids: task.restore_rows(ids, other.save_rows([0, 1]))):
        with pytest.raises(ValueError, match="there is no environment 3"):
            call([0, 3])
        with pytest.raises(ValueError, match="environment 1 is in env_ids more than once"):
            call([1, 1])
    np.testing.assert_equal(task.state_dict(), before)


@pytest.mark.xdist_group("warp")
@pytest.mark.parametrize("options", [{}, {"view_noise": {"policy": 0.1}}])
def test_on_warp(sliding_mass: Any, options: dict[str, Any]) -> None:
    """Bit for bit on Warp's CPU device as well; stepped by mask, as on a GPU."""
    original, task = (sliding_mass(5, seed=seed, backend="warp", **options) for seed in (1, 2))
    for each in (original, task):
        each._rows_of = Rows.of_mask
    run(original, 7)
    state = original.save_rows([4, 2])
    run(task, 5, 40)
    task.sim.write("qvel", torch.tensor([[torch.nan]]), Rows.of_indices(torch.tensor([3]), 5))
    task.sim.step(1)  # that it diverged is still to be noticed
    task.restore_rows([3, 0], state)
    goes_on_as(task, original, [3, 0], [4, 2], 60)
    assert int(task.num_diverged) == 0


@pytest.mark.xdist_group("warp")
def test_contacts_and_sizes_on_warp() -> None:
    original, task = (make_vec_task("push-cube", 3, threads=1, seed=seed, backend="warp") for seed in (1, 2))
    run(original, 9)
    run(task, 4, 40)
    task.restore_rows([0, 2], original.save_rows([2, 1]))
    goes_on_as(task, original, [0, 2], [2, 1], 30)

"""The analytic student on the cube toy."""

import numpy as np
import pytest

from tutelage.envs.contract.state import StateError, load_state, save_state
from tutelage.envs.contract.tasks import TaskError
from tutelage.envs.toy.cube_toy import CHALLENGES, CubeToy, CubeToyConfig, cube_toy_config


def make(seed=0, **settings):
    return CubeToy(CubeToyConfig(**settings), np.random.default_rng(seed))


def at(toy, *position):
    """A task in the middle of the cube at `position`."""
    return np.array([[(i + 0.5) / toy.config.cubes_per_side for i in position]])


def practise(toy, task, times):
    return toy.attempt(np.repeat(task, times, axis=0))


def test_the_corner_is_learnt_and_unlocks_its_neighbours_at_75():
    toy = make()
    assert toy.attempt(at(toy, 0, 0)).returns == [0.01]
    assert toy.attempt(at(toy, 1, 1)).returns == [0.0]
    practise(toy, at(toy, 0, 0), 73)  # 74 now
    assert toy.attempt(at(toy, 0, 1)).returns == [0.0]
    practise(toy, at(toy, 0, 0), 1)  # 75: unlocks, but is not yet above 75
    assert toy.score() == 0.0
    for neighbour in ((0, 1), (1, 0), (1, 1)):
        assert toy.attempt(at(toy, *neighbour)).returns == [0.01]
    assert toy.attempt(at(toy, 2, 0)).returns == [0.0]
    assert toy.attempt(at(toy, 0, 0)).successes == [1.0]  # 76
    assert toy.score() == pytest.approx(1.0)  # 1 of 100 cubes


def test_competence_stops_at_100_and_returns_follow_each_rise():
    toy = make()
    returns = practise(toy, at(toy, 0, 0), 120).returns
    np.testing.assert_allclose(returns, np.minimum(np.arange(1, 121), 100) / 100)
    assert toy.competence[0, 0] == 100
    assert toy.competence.sum() == 100


def test_a_harder_neighbour_does_not_unlock_an_easier_cube():
    toy = make(dims=1, cubes_per_side=3)
    toy._competence = [0, 0, 90]
    assert toy.attempt(at(toy, 1)).returns == [0.0]


def test_three_dimensions_unlock_seven_neighbours():
    toy = make(dims=3, cubes_per_side=4)
    practise(toy, at(toy, 0, 0, 0), 75)
    grid = np.stack(np.meshgrid(*[range(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    learnt = [tuple(i) for i in grid.tolist() if toy.attempt(at(toy, *i)).returns[0] > 0]
    assert len(learnt) == 8
    assert all(max(i) <= 1 for i in learnt)


def test_irrelevant_dimensions_change_nothing():
    toy = make(irrelevant_dims=2)
    assert toy.task_space.dim == 4
    tasks = np.concatenate([np.full((50, 2), 0.05), np.random.default_rng(0).random((50, 2))], axis=1)
    np.testing.assert_allclose(toy.attempt(tasks).returns, np.arange(1, 51) / 100)


def test_unlearnable_cubes_stay_at_zero_and_do_not_count():
    toy = make(dims=1, cubes_per_side=5, unlearnable=0.6)
    for position in range(5):
        practise(toy, at(toy, position), 100)
    assert toy.competence.tolist() == [100, 100, 0, 0, 0]
    assert toy.score() == 100.0


def test_noise_has_the_standard_deviation_asked_for():
    toy = make(noise=0.1)
    practise(toy, at(toy, 0, 0), 100)
    noise = practise(toy, at(toy, 0, 0), 4000).returns - 1.0
    assert abs(noise.mean()) < 4 * 0.1 / np.sqrt(4000)
    assert noise.std() == pytest.approx(0.1, rel=0.06)


def test_forgetting_resets_the_student_within_a_batch():
    toy = make(forget_at=(80,))
    returns = practise(toy, at(toy, 0, 0), 83).returns
    np.testing.assert_allclose(returns[-4:], [0.80, 0.01, 0.02, 0.03])


def test_a_shuffled_landscape_is_one_permutation_of_all_cubes():
    toy = make(shuffled=True)
    assert sorted(toy._cube_at.tolist()) == list(range(100))
    rows = toy._cube_at.reshape(10, 10) // 10
    assert any(len(set(row.tolist())) > 1 for row in rows)  # no mere permutation of slabs
    assert toy.attempt(toy.easy_task[None]).returns == [0.01]
    assert (toy.attempt(toy.task_space.grid(10)).returns > 0).sum() == 1


@pytest.mark.parametrize("name", sorted(CHALLENGES))
def test_challenges_are_deterministic_and_batches_do_not_matter(name):
    one, many = (CubeToy(cube_toy_config(name), np.random.default_rng(3)) for _ in range(2))
    tasks = many.task_space.sample(np.random.default_rng(0), 400) * 0.3
    singles = np.concatenate([one.attempt(tasks[i : i + 1]).returns for i in range(400)])
    np.testing.assert_array_equal(many.attempt(tasks).returns, singles)


@pytest.mark.parametrize("name", sorted(CHALLENGES))
def test_goes_on_from_a_saved_state(name, tmp_path):
    toy, resumed = (CubeToy(cube_toy_config(name), np.random.default_rng(seed)) for seed in (3, 4))
    tasks = toy.task_space.sample(np.random.default_rng(0), 500) * 0.3
    toy.attempt(tasks)
    save_state(tmp_path / "toy.npz", toy.state_dict())
    resumed.load_state_dict(load_state(tmp_path / "toy.npz"))
    np.testing.assert_array_equal(resumed.attempt(tasks).returns, toy.attempt(tasks).returns)
    assert resumed.score() == toy.score()
    np.testing.assert_array_equal(resumed.competence, toy.competence)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="did you mean 'shuffled'"):
        cube_toy_config("shufled")
    with pytest.raises(ValueError, match="unlearnable"):
        make(unlearnable=1.0)
    with pytest.raises(TaskError, match="cube_1"):
        make().attempt([[0.5, 1.5]])
    with pytest.raises(StateError):
        make().load_state_dict(make(cubes_per_side=5).state_dict())

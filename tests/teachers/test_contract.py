"""What every registered task teacher promises."""

import numpy as np
import pytest

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.interface import TaskTeacher
from tutelage.envs.contract.state import StateError, load_state, save_state
from tutelage.envs.contract.tasks import BoxTasks, DiscreteTasks, TaskSpace
from tutelage.envs.toy.cube_toy import CubeToy, CubeToyConfig
from tutelage.teachers import TASK_TEACHERS, TaskKnowledge, accepts, make_task_teacher, needs_knowledge

SPACE = BoxTasks({"height": (0.0, 3.0), "spacing": (-1.0, 5.0)})
KNOWLEDGE = TaskKnowledge((0.3, 4.4), (0.3, 0.6), (2.7, -0.4), (0.1, 0.2), 60.0, (0.0, 100.0))
NAMES = sorted(TASK_TEACHERS)


def build(name, seed=0, space=SPACE, knowledge=KNOWLEDGE):
    return make_task_teacher(name, space, np.random.default_rng(seed), knowledge=knowledge)


def improving(tasks, episode, space=SPACE):
    """Returns, 0 to 100, of a student that improves, first at low height and wide spacing."""
    unit = space.to_unit(tasks)
    difficulty = unit[:, 0] + 1.0 - unit[:, 1]
    skill = 0.2 + (episode + np.arange(len(tasks))) / 1000
    return 100.0 * np.clip(skill - difficulty + 0.5, 0.0, 1.0) + np.sin(37.0 * unit[:, 0])


def teach(task_teacher, episodes, batch, start=0, returns=improving):
    """Run episodes; return all tasks, shape (episodes, d)."""
    proposed = []
    for episode in range(start, start + episodes, batch):
        tasks = task_teacher.propose(batch)
        proposed.append(tasks)
        task_teacher.observe(Episodes.of(tasks, returns(tasks, episode)))
    return np.concatenate(proposed)


@pytest.mark.parametrize("name", NAMES)
def test_interface_bounds_and_finite_metrics(name):
    task_teacher = build(name)
    assert isinstance(task_teacher, TaskTeacher)
    for _ in range(12):
        tasks = teach(task_teacher, 100, 25)
        assert tasks.shape == (100, 2)
        assert SPACE.contains(tasks).all()
        metrics = task_teacher.metrics()
        assert all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())
    assert task_teacher.propose(0).shape == (0, 2)
    task_teacher.observe(Episodes.of(np.zeros((0, 2)), []))


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_tasks_and_seed_zero_is_a_seed(name):
    first, again, other = (teach(build(name, seed), 700, 10) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_as_if_never_interrupted(name, tmp_path):
    whole = build(name)
    teach(whole, 640, 8)
    save_state(tmp_path / "task_teacher.npz", whole.state_dict())
    resumed = build(name, seed=99)
    resumed.load_state_dict(load_state(tmp_path / "task_teacher.npz"))
    in_memory = build(name, seed=98)
    in_memory.load_state_dict(whole.state_dict())
    assert resumed.metrics() == whole.metrics()
    expected = teach(whole, 800, 8, start=640)
    np.testing.assert_array_equal(teach(resumed, 800, 8, start=640), expected)
    np.testing.assert_array_equal(teach(in_memory, 800, 8, start=640), expected)
    assert resumed.metrics() == whole.metrics()


@pytest.mark.parametrize("name", NAMES)
def test_state_is_by_value(name):
    task_teacher = build(name)
    teach(task_teacher, 300, 10)
    state = task_teacher.state_dict()
    resumed = build(name, seed=5)
    expected = teach(task_teacher, 600, 10, start=300)  # must not reach into the state taken before
    resumed.load_state_dict(state)
    np.testing.assert_array_equal(teach(resumed, 600, 10, start=300), expected)


@pytest.mark.parametrize("name", NAMES)
def test_batch_sizes_of_proposals_do_not_matter(name):
    one, many = build(name), build(name)
    for episode in range(0, 1200, 24):
        singles = np.concatenate([one.propose(1) for _ in range(24)])
        batches = np.concatenate([many.propose(8), many.propose(0), many.propose(15), many.propose(1)])
        np.testing.assert_array_equal(singles, batches)
        finished = Episodes.of(singles, improving(singles, episode))
        one.observe(finished)
        many.observe(finished)


@pytest.mark.parametrize("name", NAMES)
def test_batch_sizes_of_observations_do_not_matter(name):
    one, many = build(name), build(name)
    for episode in range(0, 1200, 100):
        tasks = one.propose(100)
        np.testing.assert_array_equal(many.propose(100), tasks)
        finished = Episodes.of(tasks, improving(tasks, episode))
        for row in range(100):
            one.observe(finished[row : row + 1])
        many.observe(finished)
    assert one.metrics() == many.metrics()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("scale", "shift"), [(500.0, -150.0), (0.01, 3.0)])
def test_units_of_returns_and_tasks_do_not_matter(name, scale, shift):
    stretch, offset = np.array([0.37, 250.0]), np.array([-4.0, 90.0])
    low, high = SPACE.low * stretch + offset, SPACE.high * stretch + offset
    space = BoxTasks({n: (lo, hi) for n, lo, hi in zip(SPACE.names, low, high, strict=True)})
    move = lambda task: tuple((np.array(task) * stretch + offset).tolist())  # noqa: E731
    knowledge = TaskKnowledge(
        easy_task=move(KNOWLEDGE.easy_task),
        easy_std=tuple((np.array(KNOWLEDGE.easy_std) * stretch).tolist()),
        target_mean=move(KNOWLEDGE.target_mean),
        target_std=tuple((np.array(KNOWLEDGE.target_std) * stretch).tolist()),
        mastered_return=60.0 * scale + shift,
        return_range=(shift, 100.0 * scale + shift),
    )
    plain = teach(build(name), 1500, 10)
    other = teach(
        build(name, space=space, knowledge=knowledge),
        1500,
        10,
        returns=lambda tasks, episode: scale * improving(tasks, episode, space) + shift,
    )
    np.testing.assert_allclose(space.to_unit(other), SPACE.to_unit(plain), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_global_random_state_is_untouched(name):
    np.random.seed(7)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    teach(build(name), 600, 20)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("name", NAMES)
def test_foreign_states_are_refused(name):
    task_teacher = build(name)
    stranger = build("random" if name != "random" else "alp-gmm")
    with pytest.raises(StateError, match="task_teacher"):
        task_teacher.load_state_dict(stranger.state_dict())
    elsewhere = BoxTasks({"height": (0.0, 4.0), "spacing": (-1.0, 5.0)})
    with pytest.raises(StateError, match="space"):
        build(name, space=elsewhere).load_state_dict(task_teacher.state_dict())
    with pytest.raises(StateError):
        task_teacher.load_state_dict({})


@pytest.mark.parametrize("name", NAMES)
def test_task_spaces_without_parameters(name):
    if name == "random":
        tasks = build(name, space=DiscreteTasks(4)).propose(200)
        assert set(tasks.tolist()) == {0, 1, 2, 3}
    else:
        with pytest.raises(TypeError, match="BoxTasks"):
            build(name, space=DiscreteTasks(4))


@pytest.mark.parametrize("name", NAMES)
def test_returns_that_never_change_and_tasks_that_repeat(name):
    task_teacher = build(name)
    for _ in range(4):
        tasks = np.tile(task_teacher.propose(1), (300, 1))
        task_teacher.observe(Episodes.of(tasks, np.full(300, 7.0)))
        assert SPACE.contains(task_teacher.propose(20)).all()
    assert all(np.isfinite(value) for value in task_teacher.metrics().values())


@pytest.mark.parametrize("name", NAMES)
def test_one_enormous_return(name):
    task_teacher = build(name)
    for _ in range(3):
        tasks = task_teacher.propose(250)
        returns = np.r_[1e12, np.zeros(248), -1e12]
        task_teacher.observe(Episodes.of(tasks, returns))
        assert SPACE.contains(task_teacher.propose(50)).all()


@pytest.mark.parametrize("name", NAMES)
def test_picture_is_in_task_units(name):
    task_teacher = build(name)
    teach(task_teacher, 600, 20)
    for kind, shapes in task_teacher.picture().items():
        weights = shapes["weights"]
        assert weights.sum() == pytest.approx(1.0)
        if kind == "boxes":
            assert shapes["low"].shape == shapes["high"].shape == (len(weights), 2)
            assert SPACE.contains(shapes["low"]).all()
            assert SPACE.contains(shapes["high"]).all()
            assert (shapes["low"] <= shapes["high"]).all()
        else:
            assert kind == "gaussians"
            assert SPACE.contains(shapes["means"]).all()
            assert (np.linalg.eigvalsh(shapes["covariances"]) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_and_many_parameters(name):
    for dim in (1, 6):
        space = BoxTasks({f"p{i}": (0.0, 1.0) for i in range(dim)})
        knowledge = TaskKnowledge((0.1,) * dim, (0.1,) * dim, (0.9,) * dim, (0.05,) * dim, 0.6, (0.0, 1.0))
        task_teacher = build(name, space=space, knowledge=knowledge)
        tasks = teach(task_teacher, 600, 50, returns=lambda tasks, episode: 1.0 - tasks.mean(axis=1))
        assert space.contains(tasks).all()


def test_unknown_names_and_missing_knowledge():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="did you mean 'covar-gmm'"):
        make_task_teacher("covar_gmm", SPACE, rng)
    with pytest.raises(ValueError, match="ADRConfig"):
        make_task_teacher("adr", SPACE, rng)
    with pytest.raises(TypeError, match="RIACConfig"):
        make_task_teacher("riac", SPACE, rng, config=TASK_TEACHERS["alp-gmm"][1]())
    assert {name for name in NAMES if needs_knowledge(name)} == {"adr", "oracle", "target"}


def test_importing_task_teachers_is_light():
    import subprocess
    import sys

    code = (
        "import sys, tutelage.teachers; print(*({'torch', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", ["adr", "riac", "covar-gmm", "alp-gmm"])
def test_masters_more_of_a_small_toy_than_random_tasks_do(name):
    """Over 5 seeds every run with the task teacher beats every random one (chance of that: 1 in 252)."""

    def score(which, seed):
        toy = CubeToy(CubeToyConfig(cubes_per_side=6), np.random.default_rng(seed))
        knowledge = TaskKnowledge((0.08, 0.08), (0.05, 0.05), (0.92, 0.92), (0.05, 0.05), 0.75, (0.0, 1.0))
        task_teacher = build(which, seed, toy.task_space, knowledge)
        for _ in range(400):
            task_teacher.observe(toy.attempt(task_teacher.propose(10)))
        return toy.score()

    scores = [score(name, seed) for seed in range(5)]
    random_scores = [score("random", seed) for seed in range(5)]
    assert min(scores) > max(random_scores)


class OwnBox:
    """A user's box: what `BoxTasks` offers, `grid` excepted, without being one."""

    kind = "own"

    def __init__(self, box):
        for name in (
            "shape", "dtype", "names", "low", "high", "dim", "axes", "describe", "sample", "contains",
            "check", "to_unit", "from_unit", "to_json",
        ):  # fmt: skip
            setattr(self, name, getattr(box, name))


class Mazes(TaskSpace):
    shape, dtype = (3, 3), np.dtype(np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_a_users_own_box_is_taught_as_ours_is(name):
    own = OwnBox(SPACE)
    assert accepts(name, own)
    np.testing.assert_array_equal(teach(build(name, space=own), 600, 10), teach(build(name), 600, 10))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("space", [DiscreteTasks(3), Mazes()], ids=["discrete", "levels"])
def test_what_a_task_teacher_says_that_it_accepts_it_takes(name, space):
    if accepts(name, space):
        assert name == "random"
        build(name, space=space)
    else:
        with pytest.raises(TypeError, match=r"proposes from a box of named parameters .* which lacks dim, "):
            build(name, space=space)

"""ALP-GMM's learning progress by hand, and where it proposes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.teachers import ALPGMM, ALPGMMConfig
from tutelage.teachers.continuous.alp_gmm import NearestReturns


def column(*values):
    return np.array(values, dtype=float)[:, None]


def test_progress_of_a_hand_made_history():
    history = NearestReturns(dim=1, max_history=100)
    # 0.1: first, 0.  0.9: nearest 0.1, |5 - 2| = 3.  0.2: nearest 0.1, |2.5 - 2| = 0.5.
    np.testing.assert_allclose(
        history.progress(column(0.1, 0.9, 0.2), np.array([2.0, 5.0, 2.5])), [0.0, 3.0, 0.5]
    )
    # 0.8: nearest 0.9, |1 - 5| = 4.  0.81: nearest 0.8, of the same batch, |1.5 - 1| = 0.5.
    np.testing.assert_allclose(history.progress(column(0.8, 0.81), np.array([1.0, 1.5])), [4.0, 0.5])


def test_the_newest_of_equally_near_tasks_counts():
    history = NearestReturns(dim=1, max_history=100)
    history.remember(column(1.0, 1.0, 1.0), np.array([0.0, 1.0, 2.0]))
    assert history.progress(column(1.0), np.array([2.0])).tolist() == [0.0]
    history = NearestReturns(dim=1, max_history=100)
    history.remember(column(0.25, 0.75, 0.0), np.array([10.0, 20.0, 99.0]))
    assert history.progress(column(0.5), np.array([0.0])).tolist() == [20.0]  # 0.75 is newer than 0.25
    # Attempting 0.25 again makes it the newer one.
    history = NearestReturns(dim=1, max_history=100)
    history.remember(column(0.25, 0.75, 0.25), np.array([10.0, 20.0, 30.0]))
    assert history.progress(column(0.5), np.array([0.0])).tolist() == [30.0]
    # Within a batch, and an older batch at the same distance.
    history = NearestReturns(dim=1, max_history=100)
    history.remember(column(0.25), np.array([10.0]))
    assert history.progress(column(0.75, 0.5), np.array([20.0, 0.0])).tolist() == [10.0, 20.0]


def test_history_is_bounded_and_forgets_the_oldest():
    history = NearestReturns(dim=1, max_history=3)
    history.remember(column(0.0, 0.3, 0.6, 0.9), np.array([1.0, 2.0, 3.0, 4.0]))
    assert len(history) == 3
    assert history.progress(column(0.05), np.array([0.0])).tolist() == [2.0]  # 0.0 is forgotten, 0.3 nearest


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(-3, 3)), min_size=1, max_size=40),
    st.integers(1, 9),
)
def test_progress_equals_the_definition_on_grids_full_of_ties(episodes, batch):
    # Multiples of 1/4, so that distances, and thus ties, are exact.
    tasks = np.array([(x / 4, y / 4) for x, y, _ in episodes])
    returns = np.array([float(r) for _, _, r in episodes])
    history = NearestReturns(dim=2, max_history=1000)
    ours = np.concatenate(
        [history.progress(tasks[i : i + batch], returns[i : i + batch]) for i in range(0, len(tasks), batch)]
    )
    for i in range(1, len(tasks)):
        earlier = ((tasks[:i] - tasks[i]) ** 2).sum(axis=1)
        newest = max(j for j in range(i) if earlier[j] == earlier.min())
        assert ours[i] == abs(returns[i] - returns[newest])
    assert ours[0] == 0


def test_proposes_where_returns_change():
    space = BoxTasks({"x": (0, 10), "y": (0, 1)})
    task_teacher = ALPGMM(space, np.random.default_rng(0), ALPGMMConfig(random_ratio=0.0))
    rng = np.random.default_rng(1)
    for _ in range(10):
        tasks = task_teacher.propose(125)
        task_teacher.observe(Episodes.of(tasks, np.where(tasks[:, 0] > 7.0, 100.0 * rng.random(125), 50.0)))
    assert (task_teacher.propose(1000)[:, 0] > 6.5).mean() > 0.9
    assert task_teacher.metrics()["mean_alp"] > 20


def test_random_ratio_and_first_window_are_uniform():
    space = BoxTasks({"x": (0, 1)})
    task_teacher = ALPGMM(space, np.random.default_rng(0), ALPGMMConfig(random_ratio=0.4))
    first = task_teacher.propose(250)
    assert task_teacher.picture() == {}
    assert np.histogram(first, bins=5, range=(0, 1))[0].min() > 25
    # All progress at x < 0.1: of the uniform 40 %, nine tenths are elsewhere.
    returns = np.where(first[:, 0] < 0.1, np.random.default_rng(1).random(250), 0.0)
    task_teacher.observe(Episodes.of(first, returns))
    elsewhere = (task_teacher.propose(4000)[:, 0] > 0.4).mean()
    assert elsewhere == pytest.approx(0.4 * 0.6, abs=0.05)


def test_presets_are_the_benchmarks():
    preset = ALPGMMConfig.teachmyagent()
    assert (preset.fit_rate, preset.random_ratio, preset.max_components) == (150, 0.05, 9)

"""The environment benchmark names its cases, and relates them to the baseline of the same run."""

from __future__ import annotations

import pytest

from tutelage.experiments.bench.envs import _random_steps, bench_envs


def test_measurements():
    baseline, *bodies = bench_envs(bodies=("classic-bipedal", "spider"), steps=60, runs=2)
    assert baseline.case == "gymnasium/BipedalWalker-v3"
    assert baseline.ratio == 1.0
    assert [m.case for m in bodies] == ["stump-tracks/classic-bipedal", "stump-tracks/spider"]
    for measurement in bodies:
        assert (measurement.metric, measurement.unit) == ("steps_per_s", "steps/s")
        assert measurement.ratio == pytest.approx(measurement.value / baseline.value)


def test_unknown_bodies_are_refused():
    with pytest.raises(ValueError, match="did you mean 'spider'"):
        list(bench_envs(bodies=("spyder",), steps=1, runs=1))


def test_episodes_are_cut_and_resets_counted():
    class Endless:
        class action_space:
            shape = (1,)

        resets = 0

        def reset(self, seed=None):
            self.resets += 1

        def step(self, action):
            return None, 0.0, False, False, {}

    env = Endless()
    _, resets = _random_steps(env, steps=10, cap=4, seed=0)
    assert resets == 2  # after the 4th and the 8th step
    assert env.resets == 3  # and one before the first

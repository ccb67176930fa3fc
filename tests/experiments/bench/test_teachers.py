"""The benchmark of the task teachers, on very short runs."""

import pytest

from tutelage.experiments.bench.teachers import PUBLIC, bench_teachers, run_toy


def test_every_case_yields_its_three_metrics():
    measured = list(bench_teachers(episodes=300, seeds=2))
    assert {m.case for m in measured} == set(PUBLIC)
    for case in PUBLIC:
        values = {m.metric: m for m in measured if m.case == case}
        assert set(values) == {"us_per_episode", "worst_stall_ms", "mastered_pct"}
        assert values["us_per_episode"].value > 0
        # One stall cannot be longer than all episodes together.
        assert values["worst_stall_ms"].value <= 300 * values["us_per_episode"].value / 1000
        assert "2 seeds" in values["mastered_pct"].note


def test_ratios_are_to_the_public_code():
    for m in bench_teachers(["random"], episodes=50, seeds=1):
        assert m.ratio == pytest.approx(m.value / PUBLIC["random"][m.metric])
    assert all(m.ratio is None for m in bench_teachers(["oracle"], episodes=50, seeds=1))


def test_scores_repeat_under_a_seed():
    first, again, other = (run_toy("riac", seed, 3000)[0] for seed in (0, 0, 1))
    assert first == again
    assert 0 < first <= 100
    assert 0 < other <= 100


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="did you mean 'riac'"):
        list(bench_teachers(["riacc"], episodes=10, seeds=1))
    with pytest.raises(ValueError, match="seed"):
        list(bench_teachers(seeds=0))

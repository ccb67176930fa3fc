"""Cost and strength of the task teachers on the cube toy: the cases of ``tutelage bench teachers``.

One process, one episode at a time, default configs. Only `propose` and `observe` are timed. The public code's
figures that the ratios refer to are TeachMyAgent's on the same toy (2-D, 10 x 10 cubes, 20,000 episodes, 3
seeds; the better of its class defaults and its command line's), measured on another machine: read the ratios
of cost as orders of magnitude.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from tutelage.envs.contract.proposals import tasks_of
from tutelage.envs.toy.cube_toy import CubeToy, CubeToyConfig
from tutelage.experiments.bench.measurement import Measurement
from tutelage.teachers import TaskKnowledge, make_task_teacher

PUBLIC = {
    "random": {"us_per_episode": 17, "worst_stall_ms": 0.1, "mastered_pct": 4.3},
    "adr": {"us_per_episode": 26, "worst_stall_ms": 1.5, "mastered_pct": 60.0},
    "riac": {"us_per_episode": 1248, "worst_stall_ms": 98, "mastered_pct": 64.0},
    "covar-gmm": {"us_per_episode": 381, "worst_stall_ms": 136, "mastered_pct": 79.3},
    "alp-gmm": {"us_per_episode": 473, "worst_stall_ms": 81, "mastered_pct": 33.3},
    "oracle": {},
}
"""The public code's figures by case and metric; it has no Oracle for this toy."""

UNITS = {"us_per_episode": "us", "worst_stall_ms": "ms", "mastered_pct": "%"}


def toy_knowledge(toy: CubeToy) -> TaskKnowledge:
    """Expert knowledge of the plain toy: it begins in one corner and ends in the opposite one."""
    dim = toy.task_space.dim
    return TaskKnowledge(
        easy_task=tuple(toy.easy_task.tolist()),
        easy_std=(0.05,) * dim,
        target_mean=(0.95,) * dim,
        target_std=(0.05,) * dim,
        mastered_return=0.75,
        return_range=(0.0, 1.0),
    )


def run_toy(
    name: str, seed: int, episodes: int, config: CubeToyConfig | None = None
) -> tuple[float, float, float]:
    """Teach one toy student.

    Args:
        name: the task teacher.
        seed: of the toy and, independently, of the task teacher.
        episodes: how many to run.
        config: which toy; by default the plain one.

    Returns:
        Score in per cent, mean cost of an episode in microseconds, worst single stall in milliseconds.
    """
    toy_rng, teacher_rng = np.random.default_rng(seed).spawn(2)
    toy = CubeToy(config or CubeToyConfig(), toy_rng)
    task_teacher = make_task_teacher(name, toy.task_space, teacher_rng, knowledge=toy_knowledge(toy))
    clock, total, worst = time.perf_counter, 0.0, 0.0
    for _ in range(episodes):
        start = clock()
        tasks = tasks_of(task_teacher.propose(1))
        cost = clock() - start
        finished = toy.attempt(tasks)
        start = clock()
        task_teacher.observe(finished)
        cost += clock() - start
        total += cost
        worst = max(worst, cost)
    return toy.score(), 1e6 * total / episodes, 1e3 * worst


def bench_teachers(
    names: Sequence[str] | None = None, episodes: int = 20_000, seeds: int = 5
) -> Iterator[Measurement]:
    """Measure the task teachers on the 2-D cube toy with 10 x 10 cubes.

    Args:
        names: cases, by default all of `PUBLIC`.
        episodes: episodes of each run.
        seeds: runs of each case, with seeds 0, 1, ....

    Yields:
        For each case `us_per_episode` and `worst_stall_ms` (both the median over the seeds, since a busy
        machine only ever adds to them) and `mastered_pct` (mean over the seeds, with its 95 % t interval).

    Raises:
        ValueError: when `seeds` or `episodes` is less than 1.
    """
    from scipy import stats

    if seeds < 1 or episodes < 1:
        raise ValueError(f"need at least one seed and one episode, got {seeds} and {episodes}")
    for name in names or tuple(PUBLIC):
        if name != "random":
            run_toy(name, seed=seeds, episodes=600)  # imports and caches are not the method's cost
        scores, costs, stalls = np.array([run_toy(name, seed, episodes) for seed in range(seeds)]).T
        half_width = stats.t.ppf(0.975, seeds - 1) * scores.std(ddof=1) / seeds**0.5 if seeds > 1 else np.nan
        measured = {
            "us_per_episode": (np.median(costs), f"range {costs.min():.3g} to {costs.max():.3g}"),
            "worst_stall_ms": (np.median(stalls), f"range {stalls.min():.3g} to {stalls.max():.3g}"),
            "mastered_pct": (scores.mean(), f"95 % interval +-{half_width:.2g}"),
        }
        for metric, (value, spread) in measured.items():
            public = PUBLIC.get(name, {}).get(metric)
            note = f"{seeds} seeds, {spread}" + (f"; public code {public:g}" if public else "")
            ratio = float(value / public) if public else None
            yield Measurement(name, metric, float(value), UNITS[metric], ratio, note)

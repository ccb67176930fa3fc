"""Benchmark of the Box2D environments: steps a second beside Gymnasium's BipedalWalker-v3."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tutelage.experiments.bench.measurement import Measurement


def bench_envs(
    bodies: Sequence[str] = ("classic-bipedal", "small-bipedal", "spider"), steps: int = 3000, runs: int = 5
) -> Iterator[Measurement]:
    """Measure StumpTracks with each body, resets included, random actions, uniform tasks.

    Every run steps BipedalWalker-v3 and then each body for `steps` steps with fresh seeds, so that a busy
    machine slows all of them alike. Both sides are stepped without Gymnasium's wrappers, and an episode of
    BipedalWalker-v3 is cut at the 1,600 steps of its registration.

    Args:
        bodies: which bodies to measure.
        steps: environment steps in each run.
        runs: how often; the medians are reported.

    Yields:
        ``gymnasium/BipedalWalker-v3`` and then ``stump-tracks/<body>``, metric ``steps_per_s``; `ratio` is
        that of the medians.

    Raises:
        ValueError: for an unknown body.
    """
    import gymnasium

    from tutelage.envs.stumps.stump_tracks import StumpTracks

    envs: dict[str, tuple[gymnasium.Env[Any, Any], int]] = {
        "gymnasium/BipedalWalker-v3": (gymnasium.make("BipedalWalker-v3").unwrapped, 1600)
    }
    for body in bodies:
        envs[f"stump-tracks/{body.replace('_', '-')}"] = (StumpTracks(body), 2000)
    rates: dict[str, list[float]] = {case: [] for case in envs}
    lengths: dict[str, list[float]] = {case: [] for case in envs}
    for run in range(runs):
        for case, (env, cap) in envs.items():
            seconds, episodes = _random_steps(env, steps, cap, seed=run)
            rates[case].append(steps / seconds)
            lengths[case].append(steps / (episodes + 1))

    baseline = statistics.median(rates["gymnasium/BipedalWalker-v3"])
    for case, values in rates.items():
        median = statistics.median(values)
        yield Measurement(
            case=case,
            metric="steps_per_s",
            value=median,
            unit="steps/s",
            ratio=median / baseline,
            note=f"to BipedalWalker-v3; {runs} runs from {min(values):,.0f} to {max(values):,.0f}, "
            f"about {statistics.median(lengths[case]):,.0f} steps an episode",
        )


def _random_steps(env: Any, steps: int, cap: int, seed: int) -> tuple[float, int]:
    """Take uniformly random actions; return the seconds that it took and the number of resets on the way."""
    shape = env.action_space.shape
    actions = np.random.default_rng(seed).uniform(-1.0, 1.0, (steps, *shape)).astype(np.float32)
    env.reset(seed=seed)
    length = resets = 0
    start = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        length += 1
        if terminated or truncated or length >= cap:
            env.reset()
            length = 0
            resets += 1
    return time.perf_counter() - start, resets

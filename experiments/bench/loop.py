"""Cost of a task teacher in a training loop: the same environments with and without one.

Random actions and short episodes are the worst case: nothing but the environments themselves hides the cost.
A training loop with PPO shows what is left of it for a user.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from tutelage.envs.contract.tasks import BoxTasks
from tutelage.experiments.bench.measurement import Measurement

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

METRICS = {"random": "relative_speed", "alp-gmm": "relative_speed_alp_gmm"}
"""Metric of the loop with each task teacher: `random` shows what the loop costs, ALP-GMM adds its own."""


class PoleLength(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole whose task is the length of the pole."""

    task_space = BoxTasks({"length": (0.3, 1.0)})

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start with the task's pole, or with a random one."""
        observation, info = self.env.reset(seed=seed)
        task = (
            options["task"] if options and "task" in options else self.task_space.sample(self.np_random, 1)[0]
        )
        self.unwrapped.length = float(task[0])  # type: ignore[attr-defined]
        return observation, {**info, "task": task}


def bench_loop(runs: int = 7, steps: int = 40_000) -> Iterator[Measurement]:
    """Yield speeds relative to the loop without a task teacher: 1 is no cost, 0.5 is half as fast.

    CartPole x 4: SB3's `DummyVecEnv`, bare (`relative_speed`'s baseline) and with SB3's `Monitor`, which
    counts episodes as every loop must that logs returns. PointMassGate, 64 environments, native: with random
    actions (``point-mass-gate/random-actions``), and trained by PPO with its preset (``point-mass-gate``).

    Args:
        runs: repetitions, alternating with and without; the median of the ratios counts.
        steps: environment steps of one repetition.
    """
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    from tutelage.envs.point_mass.point_mass_gate import PointMassGateVecEnv
    from tutelage.envs.teaching.taught import TaughtVecEnv
    from tutelage.teachers import make_task_teacher

    def taught(venv: VecEnv, name: str) -> TaughtVecEnv:
        space = venv.get_attr("task_space")[0]
        return TaughtVecEnv(venv, make_task_teacher(name, space, np.random.default_rng(0)), space)

    def cartpole(wrap: Callable[[Any], Any] = lambda env: env) -> VecEnv:
        return DummyVecEnv([lambda: wrap(PoleLength())] * 4)

    def gate() -> VecEnv:
        return PointMassGateVecEnv(64)

    gates = "point-mass-gate/random-actions"
    for case, make, n in (("cartpole-x4", cartpole, steps), (gates, gate, 10 * steps)):
        loops: dict[str, Callable[[], VecEnv]] = {"none": make}
        if case == "cartpole-x4":
            loops["monitor"] = lambda: cartpole(Monitor)
        for name in METRICS:
            loops[name] = lambda make=make, name=name: taught(make(), name)  # type: ignore[misc]
        for build in loops.values():
            _steps_per_second(build(), n // 4, 0)  # imports and caches
        speeds: dict[str, list[float]] = {name: [] for name in loops}
        for run in range(runs):
            for name, build in loops.items():
                speeds[name].append(_steps_per_second(build(), n, run))
        median = {name: float(np.median(values)) for name, values in speeds.items()}
        yield Measurement(case, "steps_per_s", median["none"], "steps/s", note="without a task teacher")
        for name in METRICS:
            ratio = float(np.median(np.array(speeds[name]) / np.array(speeds["none"])))
            note = f"{name} against none"
            if "monitor" in median:
                against = float(np.median(np.array(speeds[name]) / np.array(speeds["monitor"])))
                note += f"; {against:.3f} against none with SB3's Monitor"
            yield Measurement(case, METRICS[name], ratio, "x", ratio, note)
    yield from _training_loop(gate, taught, runs)


def _training_loop(
    gate: Callable[[], VecEnv], taught: Callable[[VecEnv, str], VecEnv], runs: int
) -> Iterator[Measurement]:
    """PointMassGate with its PPO preset: what a user waits for."""
    import torch

    from tutelage.students.sb3.presets import student_preset
    from tutelage.students.sb3.student import make_student, train_until

    torch.set_num_threads(1)

    def seconds(venv: VecEnv, steps: int = 16_384) -> float:
        model = make_student(student_preset("point-mass-gate", "ppo"), venv, seed=0, total_steps=steps)
        begin = time.perf_counter()
        train_until(model, steps)
        return time.perf_counter() - begin

    spent = [(seconds(gate()), seconds(taught(gate(), "alp-gmm"))) for _ in range(runs + 1)][1:]
    ratio = float(np.median([without / with_ for without, with_ in spent]))
    note = "PPO on PointMassGate: alp-gmm against none"
    yield Measurement("point-mass-gate", "relative_speed", ratio, "x", ratio, note)


def _steps_per_second(venv: Any, steps: int, seed: int) -> float:
    """Speed with random actions, drawn beforehand."""
    n = max(1, steps // venv.num_envs)
    venv.action_space.seed(seed)
    actions = [
        np.stack([venv.action_space.sample() for _ in range(venv.num_envs)]) for _ in range(min(n, 256))
    ]
    venv.seed(seed)
    venv.reset()
    begin = time.perf_counter()
    for i in range(n):
        venv.step(actions[i % len(actions)])
    elapsed = time.perf_counter() - begin
    venv.close()
    return n * venv.num_envs / elapsed

"""Benchmark of the batched simulations: environment steps a second beside raw physics and Gymnasium."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from tutelage.experiments.bench.measurement import Measurement

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask

TASKS = ("stump-walker", "reach")
GYMNASIUM_ENVS = 8  # at once in Gymnasium's vector environments
GPU_SIZES = (256, 1024, 4096, 16_384)
WARP_CPU_SIZES = (16, 64)


def bench_sim(
    device: str = "cpu", num_envs: int = 256, runs: int = 5, steps: int = 100
) -> Iterator[Measurement]:
    """Measure whole environment steps: actions, physics, observations, rewards, resets, task draws.

    Both sides of a ratio are measured in turns, so that a busy machine slows them alike; medians of `runs`.

    Args:
        device: ``cpu``: all cores this process may use. ``cuda``: `num_envs` is ignored, `GPU_SIZES` are run.
            ``warp-cpu``: the GPU's code on the CPU, `WARP_CPU_SIZES`, to see that it works.
        num_envs: environments at once.
        runs: repetitions.
        steps: environment steps of a repetition.

    Yields:
        On the CPU: for each of `TASKS` ``env_steps_per_s``; ``relative_to_physics``, the share of the time of
        these very steps that the simulator takes; and ``raw_relative_to_mujoco_batch``, the simulator's speed
        beside ``mujoco.batch`` called directly. Then Gymnasium's models beside Gymnasium, with `ratio`. On a
        GPU: speed and memory by number of environments.
    """
    if device != "cpu":
        yield from _on_warp("cuda" if device == "cuda" else "cpu", runs, steps)
        return
    for name in TASKS:
        yield from _beside_physics(name, num_envs, runs, steps)
    for name in ("hopper", "walker2d"):
        yield from _beside_gymnasium(name, num_envs, runs, steps)


def _beside_physics(name: str, num_envs: int, runs: int, steps: int) -> Iterator[Measurement]:
    from mujoco import mjtStage

    from tutelage.envs.batched.worlds.catalogue import make_vec_task

    task = make_vec_task(name, num_envs)
    actions = _random_actions(task, steps)
    batch = task.sim.batch  # type: ignore[attr-defined]  # the simulator of CPU threads
    ctrl = batch.bind("ctrl")
    controls = [_controls(task, action) for action in actions]
    plain = [control.numpy() for control in controls]
    stage = int(mjtStage.mjSTAGE_VEL)

    def simulator(step: int) -> None:
        task.sim.write("ctrl", controls[step])
        task.sim.step(task.decimation)

    def direct(step: int) -> None:
        ctrl[:] = plain[step]
        batch.step(nstep=task.decimation, stage=stage)

    whole, shares, raw = [], [], []
    for _ in range(runs):
        task.reset()
        rate, share = _rate_and_share(task, actions)
        whole.append(num_envs * rate)
        shares.append(share)
        rates = []
        for step in (simulator, direct):
            task.reset()  # physics alone resets nothing: both begin alike
            rates.append(_rate(step, steps))
        raw.append(rates[0] / rates[1])
    speed, share = statistics.median(whole), statistics.median(shares)
    yield Measurement(
        name,
        "env_steps_per_s",
        speed,
        "steps/s",
        note=f"{runs} runs from {min(whole):,.0f} to {max(whole):,.0f}; {num_envs} environments",
    )
    yield Measurement(
        name,
        "relative_to_physics",
        share,
        "",
        note=f"of {speed / share:,.0f} steps/s of the physics alone, {task.decimation} time steps each",
    )
    yield Measurement(
        name,
        "raw_relative_to_mujoco_batch",
        statistics.median(raw),
        "",
        note="the simulator beside mujoco.batch called directly",
    )
    task.close()


def _rate_and_share(task: VecTask, actions: Sequence[torch.Tensor]) -> tuple[float, float]:
    """Steps a second of the whole task, and the share of that time which its simulator's steps take."""
    step, physics = task.sim.step, 0.0

    def timed(substeps: int) -> None:
        nonlocal physics
        begin = time.perf_counter()
        step(substeps)
        physics += time.perf_counter() - begin

    task.sim.step = timed  # type: ignore[method-assign]
    begin = time.perf_counter()
    for action in actions:
        task.step(action)
    seconds = time.perf_counter() - begin
    task.sim.step = step  # type: ignore[method-assign]
    return len(actions) / seconds, physics / seconds


def _beside_gymnasium(name: str, num_envs: int, runs: int, steps: int) -> Iterator[Measurement]:
    import gymnasium

    from tutelage.envs.batched.worlds.gymnasium_models import Hopper, Walker2d

    task_class, env_id = {"hopper": (Hopper, "Hopper-v5"), "walker2d": (Walker2d, "Walker2d-v5")}[name]
    makes = [lambda: gymnasium.make(env_id)] * GYMNASIUM_ENVS
    sync, parallel = gymnasium.vector.SyncVectorEnv(makes), gymnasium.vector.AsyncVectorEnv(makes)
    tasks = {"": task_class(num_envs), "-rk4": task_class(num_envs, integrator="RK4")}
    actions = _random_actions(tasks[""], steps)
    few = [action[:GYMNASIUM_ENVS].numpy() for action in actions]
    sync.reset(seed=0)
    parallel.reset(seed=0)
    rates: dict[str, list[float]] = {"": [], "-rk4": [], "sync": [], "async": []}
    for _ in range(runs):
        for suffix, task in tasks.items():
            rates[suffix].append(num_envs * _rate(partial(_step, task, actions), steps))
        rates["sync"].append(GYMNASIUM_ENVS * _rate(lambda i: sync.step(few[i]), steps))
        rates["async"].append(GYMNASIUM_ENVS * _rate(lambda i: parallel.step(few[i]), steps))
    sync.close()
    parallel.close()
    for suffix, kind in (("", "implicitfast"), ("-rk4", "RK4, as Gymnasium ships it")):
        for other in ("sync", "async"):
            yield Measurement(
                f"{name}{suffix}-vs-gymnasium-{other}",
                "env_steps_per_s",
                statistics.median(rates[suffix]),
                "steps/s",
                ratio=_ratio(rates[suffix], rates[other]),
                note=f"integrator {kind}; to {statistics.median(rates[other]):,.0f} steps/s of "
                f"{env_id} (RK4), {GYMNASIUM_ENVS} environments, same frame skip",
            )


def _on_warp(device: str, runs: int, steps: int) -> Iterator[Measurement]:
    on_gpu = device == "cuda"
    for name in TASKS:
        if on_gpu:
            _on_warp_at(name, 1, device, runs=1, steps=1)  # kernels and the driver's own memory are no task's
        for num_envs in GPU_SIZES if on_gpu else WARP_CPU_SIZES:
            yield from _on_warp_at(name, num_envs, device, runs, steps)


def _on_warp_at(name: str, num_envs: int, device: str, runs: int, steps: int) -> list[Measurement]:
    """One case; no generator, so that the task and its memory are gone when the next one is made."""
    from tutelage.envs.batched.worlds.catalogue import make_vec_task

    on_gpu = device == "cuda"
    free = free_gpu_memory() if on_gpu else 0
    task = make_vec_task(name, num_envs, device=device, backend="warp")
    task.step(task.zero_actions())
    used = free - free_gpu_memory() if on_gpu else 0
    actions = _random_actions(task, steps)
    rates: dict[str, list[float]] = {"whole": [], "physics": []}
    for _ in range(runs):
        task.reset()
        rates["whole"].append(num_envs * _rate(partial(_step, task, actions), steps))
        rates["physics"].append(num_envs * _rate(partial(_physics, task), steps))
    task.check()
    task.close()
    case = f"{name}-{device if on_gpu else 'warp-cpu'}-{num_envs}"
    measured = [
        Measurement(case, "env_steps_per_s", statistics.median(rates["whole"]), "steps/s"),
        Measurement(case, "relative_to_physics", _ratio(rates["whole"], rates["physics"]), ""),
    ]
    if on_gpu:
        measured.append(Measurement(case, "memory_per_env", used / num_envs / 1024, "KiB"))
    return measured


def free_gpu_memory() -> int:
    """Free bytes of the GPU, once nothing is kept that nobody uses: objects in cycles, torch's cache."""
    gc.collect()
    _wait()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def _step(task: VecTask, actions: Sequence[torch.Tensor], step: int) -> None:
    task.step(actions[step])


def _physics(task: VecTask, _: int) -> None:
    task.sim.step(task.decimation)


def _random_actions(task: VecTask, steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(steps, task.num_envs, task.num_actions, generator=generator) * 2 - 1
    return list(drawn.to(task.device))


def _controls(task: VecTask, actions: torch.Tensor) -> torch.Tensor:
    """The controls that these actions mean."""
    task.pre_physics_step(actions)
    return task.sim.read("ctrl").clone()


def _rate(step: Callable[[int], Any], steps: int) -> float:
    """Calls a second."""
    step(0)
    _wait()
    begin = time.perf_counter()
    for i in range(steps):
        step(i)
    _wait()
    return steps / (time.perf_counter() - begin)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of runs that followed each other."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))

"""Batched tasks on a GPU beside the CPU; for one task the same checks run on Warp's CPU device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.adaptors.gymnasium_env import GymnasiumVecTask, SingleVecTask
from tutelage.envs.batched.adaptors.isaac_tensors import IsaacTensors
from tutelage.envs.batched.adaptors.sb3 import SB3VecTask
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.streams import RandomStreams
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.batched.worlds.catalogue import VEC_TASKS, make_vec_task
from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.proposals import Proposals

pytest.importorskip("mujoco_warp")
pytestmark = pytest.mark.xdist_group("warp")

N, STEPS = 8, 20
CLOSE_STEPS = 3  # for which float32 and float64 stay near each other, whatever touches what
CLOSE = 0.02  # greatest difference of an observation in those steps; their scale is about 1


def make(name: str, device: str, n: int = N, **options: Any) -> VecTask:
    return make_vec_task(name, n, device=device, backend="warp", seed=5, **options)


def actions_of(task: VecTask, steps: int = STEPS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(2 * torch.rand(steps, task.num_envs, task.num_actions, generator=generator) - 1)


def end_next_step(task: VecTask, *envs: int) -> None:
    """Let these environments' time be over after one more step."""
    lengths = task.progress_buf.clone()
    lengths[list(envs)] = task.max_episode_length - 1
    task.progress_buf.copy_(lengths)


def runs_as_on_the_cpu(name: str, device: str, steps: int = STEPS) -> None:
    """Equal tasks and random streams, and near observations, for those whose episodes ended alike so far."""
    ours, reference = make(name, device), make_vec_task(name, N, seed=5, threads=1)
    assert torch.equal(ours.tasks.cpu(), reference.tasks)
    for task in (ours, reference):
        end_next_step(task, 2, 5)
    alike = torch.ones(N, dtype=torch.bool)
    for step, actions in enumerate(actions_of(reference, steps)):
        obs_dict, rewards, ends, extras = ours.step(actions.to(ours.device))
        expected, _, expected_ends, _ = reference.step(actions)
        for tensor in (*obs_dict.values(), rewards, ends, extras["time_outs"]):
            assert tensor.device.type == torch.device(device).type
        assert all(bool(torch.isfinite(view).all()) for view in (*obs_dict.values(), rewards))
        alike &= ends.cpu() == expected_ends
        assert torch.equal(ours.tasks.cpu()[alike], reference.tasks[alike])
        assert torch.equal(ours.streams.positions.cpu()[alike], reference.streams.positions[alike])
        if step < CLOSE_STEPS:
            assert alike.all()
            for view, values in expected.items():
                assert float((obs_dict[view].cpu() - values).abs().max()) < CLOSE, (step, view)
    assert alike.sum() >= N - 2
    assert int(ours.num_diverged) == int(reference.num_diverged) == 0


def saves_and_loads(name: str, device: str) -> None:
    """A loaded task goes on as the one that was saved: a GPU's sums differ in their last bits."""
    first, second = make(name, device), make(name, device)
    steps = actions_of(first, 6)
    for actions in steps[:4]:
        first.step(actions.to(first.device))
    end_next_step(first, 1)
    second.load_state_dict(first.state_dict())
    for view, values in first.obs_dict.items():
        torch.testing.assert_close(second.obs_dict[view], values, atol=1e-5, rtol=1e-4)
    for actions in steps[4:]:
        ends = [task.step(actions.to(task.device))[2] for task in (first, second)]
        assert torch.equal(ends[0], ends[1])
    assert torch.equal(first.tasks, second.tasks)
    assert torch.equal(first.streams.positions, second.streams.positions)
    torch.testing.assert_close(first.obs_buf, second.obs_buf, atol=CLOSE, rtol=0)


def proposes_under_a_mask(name: str, device: str) -> None:
    """Just as many tasks are asked for as episodes ended, and those environments get them, in order."""
    task = make(name, device)
    low, high = task.task_space.low, task.task_space.high
    asked: list[int] = []

    def propose(n: int) -> Any:
        asked.append(n)
        return low + (high - low) * np.linspace(0.25, 0.75, n)[:, None]

    task.propose = propose
    before = task.tasks.clone()
    task.step(task.zero_actions())
    assert asked == []
    end_next_step(task, 0, 6)
    _, _, ends, extras = task.step(task.zero_actions())
    assert ends.tolist() == [1, 0, 0, 0, 0, 0, 1, 0]
    assert asked == [2]
    assert torch.equal(extras["ended_tasks"], before)
    np.testing.assert_allclose(task.tasks[[0, 6]].cpu(), low + (high - low) * [[0.25], [0.75]])
    assert torch.equal(task.tasks[1:6], before[1:6])
    assert torch.equal(task.tasks[7], before[7])


def observes_under_a_mask(name: str, device: str) -> None:
    """Episodes that ended at their horizons come back by id, before their successors are proposed."""
    task = make(name, device)
    calls: list[Any] = []

    class Recorder:
        def propose(self, n: int) -> Proposals:
            calls.append(n)
            tasks = np.repeat((task.task_space.low + task.task_space.high)[None] / 2, n, 0)
            return Proposals(tasks, horizon=np.arange(2, n + 2))

        def observe(self, episodes: Episodes) -> None:
            calls.append((episodes.ids.tolist(), episodes.environments.tolist(), episodes.lengths.tolist()))
            returns.append(episodes.returns)

    returns: list[Any] = []
    task.teach(Recorder())  # type: ignore[arg-type]
    task.reset()
    rewards = [task.step(task.zero_actions())[1].cpu().double() for _ in range(3)]
    # horizons 2, 3, ..., 9; the first environment's next one is 2 again, after step 2
    assert calls == [N, ([0], [0], [2]), 1, ([1], [1], [3]), 1]
    np.testing.assert_allclose(returns[1], sum(rewards)[1], rtol=1e-12)
    task.step(task.zero_actions())
    assert calls[5:] == [([8, 2], [0, 2], [2, 4]), 2]


def restores_rows(name: str, device: str) -> None:
    """Rows go on elsewhere as their originals do: a GPU's sums differ in their last bits."""
    first, second = make(name, device), make(name, device)
    steps = actions_of(first, 8)
    for actions in steps[:4]:
        first.step(actions.to(first.device))
    second.reset()
    second.restore_rows([6, 1], first.save_rows([3, 5]))
    for actions in steps[4:]:
        moved = actions.clone()
        moved[[6, 1]] = actions[[3, 5]]
        first.step(actions.to(first.device))
        second.step(moved.to(second.device))
        assert torch.equal(first.progress_buf[[3, 5]], second.progress_buf[[6, 1]])
        torch.testing.assert_close(first.obs_buf[[3, 5]], second.obs_buf[[6, 1]], atol=CLOSE, rtol=0)
        torch.testing.assert_close(first.rew_buf[[3, 5]], second.rew_buf[[6, 1]], atol=CLOSE, rtol=0)
    assert torch.equal(first.streams.positions[[3, 5]], second.streams.positions[[6, 1]])


def streams_are_those_of_the_cpu(device: str) -> None:
    streams = [RandomStreams(6, 9, device=where) for where in ("cpu", device)]
    mask = torch.tensor([True, False, True, True, False, False])
    for chosen in (mask, ~mask, torch.ones_like(mask)):
        rows = [Rows.of_mask(chosen), Rows.of_mask(chosen.to(device))]
        for draw in ("uniform", "uniform64"):
            ours, theirs = (getattr(s, draw)(r, 3).cpu() for s, r in zip(streams, rows, strict=True))
            assert torch.equal(ours, theirs)
        ours, theirs = (s.normal(r, 3).cpu() for s, r in zip(streams, rows, strict=True))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        assert torch.equal(streams[0].positions, streams[1].positions.cpu())
    everyone = [Rows.all(6, where) for where in ("cpu", device)]
    for stream, rows in zip(streams, everyone, strict=True):
        stream.seed(rows, range(6))
    assert torch.equal(streams[0].keys, streams[1].keys.cpu())


def adaptors_step(name: str, device: str) -> None:
    """One step, in which an episode ends, of each adaptor."""
    task, one = make(name, device, n=3), make(name, device, n=1)
    actions = np.zeros((3, task.num_actions), dtype=np.float32)

    venv = SB3VecTask(task)
    venv.reset()
    end_next_step(task, 1)
    observations, rewards, dones, infos = venv.step(actions)
    assert observations.shape == (3, task.num_obs)
    assert rewards.dtype == np.float32
    assert dones.tolist() == [False, True, False]
    assert infos[1]["terminal_observation"].shape == (task.num_obs,)
    assert infos[1]["TimeLimit.truncated"]

    gym = GymnasiumVecTask(task)
    gym.reset(seed=0)
    end_next_step(task, 1)
    observations, _, terminations, truncations, infos = gym.step(actions)
    assert gym.observation_space.contains(observations)
    assert not terminations.any()
    assert truncations.tolist() == infos["_final_obs"].tolist() == [False, True, False]

    single = SingleVecTask(one)
    first, _ = single.reset(seed=0)
    assert single.observation_space.contains(first)
    assert single.step(actions[0])[2:4] == (False, False)

    isaac = IsaacTensors(task.sim)
    isaac.refresh_rigid_body_state()
    assert isaac.rigid_body_states.device == task.device
    assert bool(torch.isfinite(isaac.rigid_body_states).all())

    tensors = torch.from_numpy(actions).to(task.device)
    rsl_rl = pytest.importorskip("tutelage.envs.batched.adaptors.rsl_rl").RslRlVecTask(task)
    end_next_step(task, 1)
    groups, rewards, ends, extras = rsl_rl.step(tensors)
    assert groups["policy"].device == rewards.device == task.device
    assert ends.tolist() == [0, 1, 0]
    assert extras["time_outs"].tolist() == [False, True, False]

    skrl = pytest.importorskip("tutelage.envs.batched.adaptors.skrl").SkrlVecTask(task)
    skrl.reset()
    end_next_step(task, 1)
    observations, _, terminated, truncated, _ = skrl.step(tensors)
    assert observations.device == task.device
    assert not terminated.any()
    assert truncated.tolist() == [[False], [True], [False]]


def test_the_gpus_code_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VecTask, "_rows_of", lambda self, done: Rows.of_mask(done))
    runs_as_on_the_cpu("reach", "cpu")
    saves_and_loads("reach", "cpu")
    proposes_under_a_mask("reach", "cpu")
    observes_under_a_mask("reach", "cpu")
    restores_rows("reach", "cpu")
    streams_are_those_of_the_cpu("cpu")
    adaptors_step("reach", "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("name", VEC_TASKS)
def test_a_task_runs_as_on_the_cpu(name: str) -> None:
    runs_as_on_the_cpu(name, "cuda")


@pytest.mark.gpu
def test_a_task_runs_in_a_stream_of_the_users() -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        runs_as_on_the_cpu("reach", "cuda")


@pytest.mark.gpu
def test_a_task_moves_between_streams() -> None:
    """Made and stepped in one stream, then stepped in another, which waits for the first."""
    task = make("reach", "cuda")
    reference = make_vec_task("reach", N, seed=5, threads=1)
    stream = torch.cuda.Stream()
    for step, actions in enumerate(actions_of(reference, 6)):
        reference.step(actions)
        if step < 3:
            task.step(actions.cuda())
            stream.wait_stream(torch.cuda.current_stream())
        else:
            with torch.cuda.stream(stream):
                task.step(actions.cuda())
    stream.synchronize()
    assert float((task.obs_buf.cpu() - reference.obs_buf).abs().max()) < CLOSE


@pytest.mark.gpu
def test_random_streams() -> None:
    streams_are_those_of_the_cpu("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["reach", "stump-walker"])
def test_saving_and_loading(name: str) -> None:
    saves_and_loads(name, "cuda")


@pytest.mark.gpu
def test_proposing_under_a_mask() -> None:
    proposes_under_a_mask("reach", "cuda")
    observes_under_a_mask("reach", "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["reach", "stump-walker"])
def test_restoring_rows(name: str) -> None:
    restores_rows(name, "cuda")


@pytest.mark.gpu
def test_adaptors() -> None:
    adaptors_step("reach", "cuda")


@pytest.fixture
def waiting_fails() -> Iterator[Any]:
    """Call it from when on waiting for the GPU is an error."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("name", VEC_TASKS)
def test_steps_do_not_wait_for_the_gpu(name: str, waiting_fails: Any) -> None:
    names = {"parameters": ("height", "spacing", "gap", "stair", "slope")} if name == "stump-walker" else {}
    task = make(name, "cuda", view_noise={"policy": 0.1}, **names)
    actions = [action.to(task.device) for action in actions_of(task, 5)]
    end_next_step(task, 1)
    for action in actions[:2]:  # the first use of each graph captures it
        task.step(action)
    end_next_step(task, 2)
    waiting_fails()
    for action in actions[2:]:
        task.step(action)


@pytest.mark.gpu
def test_isaac_tensors_do_not_wait_for_the_gpu(waiting_fails: Any) -> None:
    task = make("lift-object", "cuda", n=3)
    isaac = IsaacTensors(task.sim)
    some = torch.tensor([0, 3], device=task.device)
    dofs = torch.zeros(3 * isaac.ndof, device=task.device)
    waiting_fails()
    isaac.refresh_actor_root_state()
    isaac.refresh_rigid_body_state()
    isaac.set_actor_root_state_tensor_indexed(isaac.root_states, some)
    isaac.set_dof_state_tensor_indexed(isaac.dof_state, some)
    isaac.set_dof_position_target_tensor_indexed(dofs, some)
    isaac.set_dof_actuation_force_tensor_indexed(dofs, some)

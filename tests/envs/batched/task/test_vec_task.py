"""The contract of `VecTask`, on a task whose numbers are computed by hand."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from tutelage.envs.batched.cameras.camera_config import CameraConfig
from tutelage.envs.batched.simulators import simulator
from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.batched.worlds.catalogue import make_vec_task
from tutelage.envs.contract.state import load_state, save_state
from tutelage.envs.contract.tasks import TaskError


def constant(task: Any, *pushes: float) -> torch.Tensor:
    return torch.tensor(pushes, dtype=torch.float32)[:, None].expand(task.num_envs, 1).contiguous()


def start(task: Any, *tasks: tuple[float, float]) -> Any:
    """Begin these tasks, at x = 0 exactly."""
    n = task.num_envs
    task.start(torch.arange(n), np.array(tasks), list(range(n)))
    task.sim.write("qpos", torch.zeros(n, 1))
    task.sim.forward()
    task.post_physics_step()
    return task


def pushed(force: float, mass: float, steps: int) -> float:
    """Where a mass at rest at 0 is: semi-implicit Euler, v_k = k h a, x_k = h^2 a (1 + 2 + ... + k)."""
    k = 4 * steps
    return 0.01**2 * force / mass * k * (k + 1) / 2


def actions_of(task: Any, seed: int) -> torch.Tensor:
    return torch.rand(task.num_envs, 1, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- the contract of IsaacGymEnvs ----------------------------------------------------------------------


def test_names_shapes_and_types(sliding_mass: Any) -> None:
    task = sliding_mass(3, threads=1)
    obs = task.reset()
    assert (task.num_envs, task.num_obs, task.num_states, task.num_actions) == (3, 3, 4, 1)
    assert task.observation_space.shape == (3,)
    assert task.state_space.shape == (4,)
    assert task.action_space.shape == (1,)
    assert set(obs) == {"obs", "states", "policy", "privileged", "raw"}
    assert obs["obs"] is task.obs_buf
    assert obs["states"] is task.states_buf is task.get_state()
    obs, rew, reset, extras = task.step(task.zero_actions())
    assert obs["obs"].shape == (3, 3)
    assert obs["states"].shape == (3, 4)
    assert obs["obs"].dtype == rew.dtype == torch.float32
    assert rew is task.rew_buf
    assert rew.shape == reset.shape == task.progress_buf.shape == (3,)
    assert reset is task.reset_buf
    assert reset.dtype == task.progress_buf.dtype == torch.int64
    assert extras["time_outs"] is task.timeout_buf
    assert task.timeout_buf.dtype == torch.bool
    assert task.progress_buf.tolist() == [1, 1, 1]
    assert task.tasks.dtype == torch.float64
    assert task.sim.read_model("body_mass")[:, 1].tolist() == task.tasks[:, 1].float().tolist()


def test_views_can_be_chosen(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1, obs_view="privileged", states_view="raw")
    assert (task.num_obs, task.num_states) == (4, 1)
    with pytest.raises(ValueError, match=r"view 'polcy'; did you mean 'policy'.*policy, privileged, raw"):
        sliding_mass(2, threads=1, obs_view="polcy")
    with pytest.raises(ValueError, match="view 'polcy'"):
        sliding_mass(2, threads=1, view_noise={"polcy": 0.1})


def test_task_is_in_its_space_before_the_first_reset(sliding_mass: Any) -> None:
    task = sliding_mass(16, threads=1)
    assert task.task_space.contains(task.tasks.numpy()).all()


# --- physics, rewards, ends ----------------------------------------------------------------------------


def test_motion_and_rewards_by_hand(sliding_mass: Any) -> None:
    task = start(sliding_mass(2, threads=1), (1.5, 1.0), (1.5, 4.0))
    for steps in range(1, 4):
        obs, rew, reset, _ = task.step(constant(task, 0.5, 1.0))
        x = [pushed(20, 1, steps), pushed(40, 4, steps)]  # 0.02 and 0.01 m after the first step
        np.testing.assert_allclose(obs["raw"][:, 0], x, rtol=1e-5)
        before = [pushed(20, 1, steps - 1), pushed(40, 4, steps - 1)]
        effort = [-0.1 * 0.25, -0.1 * 1.0]
        np.testing.assert_allclose(
            rew, [2 * (x[i] - before[i]) + effort[i] for i in range(2)], rtol=1e-5, atol=1e-7
        )
        np.testing.assert_allclose(obs["obs"][:, 2], [1.5 - x[0], 1.5 - x[1]], rtol=1e-5)
        assert reset.tolist() == [0, 0]


def test_actions_are_clipped(sliding_mass: Any) -> None:
    task = start(sliding_mass(2, threads=1), (1.5, 1.0), (1.5, 1.0))
    obs, *_ = task.step(constant(task, 1.0, 7.0))
    assert obs["raw"][0] == obs["raw"][1]


def test_goal_failure_and_time_limit(sliding_mass: Any) -> None:
    task = start(sliding_mass(3, threads=1), (0.5, 1.0), (0.5, 1.0), (0.5, 1.0))
    ends: dict[int, tuple[int, bool, bool, bool]] = {}
    for step in range(1, 13):
        _, _, reset, extras = task.step(constant(task, 1.0, -1.0, 0.0))
        assert not (task.success & (task.reset_buf == 0)).any()
        assert torch.equal(reset.bool(), task.terminated | task.truncated)
        assert torch.equal(extras["time_outs"], task.truncated)
        for i in reset.nonzero().flatten().tolist():
            ends.setdefault(
                i, (step, bool(task.success[i]), bool(task.terminated[i]), bool(task.truncated[i]))
            )
    # x = 0.004 k (k + 1) / 2 with k = 4 steps: 0.31 after 3 steps, 0.54 after 4; 0.84 after 5, 1.2 after 6
    assert pushed(40, 1, 3) < 0.5 <= pushed(40, 1, 4)
    assert pushed(40, 1, 5) < 1.0 <= pushed(40, 1, 6)
    assert ends == {0: (4, True, True, False), 1: (6, False, True, False), 2: (12, False, False, True)}


def test_success_on_the_last_step_is_a_termination(sliding_mass: Any) -> None:
    task = start(sliding_mass(1, threads=1), (0.5, 1.0))
    task.progress_buf.fill_(8)  # the goal is reached in the 4th step, which is then the 12th of 12
    for _ in range(4):
        task.step(constant(task, 1.0))
    assert task.terminated.tolist() == task.success.tolist() == [True]
    assert task.truncated.tolist() == [False]


def test_automatic_reset_keeps_the_last_observations(sliding_mass: Any) -> None:
    task = start(sliding_mass(2, threads=1), (0.5, 1.0), (1.5, 4.0))
    for _ in range(4):
        obs, _, reset, extras = task.step(constant(task, 1.0, 0.0))
    assert reset.tolist() == [1, 0]
    assert task.progress_buf.tolist() == [0, 4]
    assert extras["terminal_obs"]["raw"][0, 0] == pytest.approx(pushed(40, 1, 4), rel=1e-5)
    np.testing.assert_array_equal(extras["ended_tasks"], [[0.5, 1.0], [1.5, 4.0]])
    assert abs(float(obs["raw"][0, 0])) <= 0.1
    assert obs["obs"][0, 1] == 0  # at rest again
    assert task.tasks[0].tolist() != [0.5, 1.0]
    assert task.tasks[1].tolist() == [1.5, 4.0]
    assert torch.equal(obs["raw"][1], extras["terminal_obs"]["raw"][1])


def test_no_automatic_reset_when_switched_off(sliding_mass: Any) -> None:
    task = start(sliding_mass(2, threads=1), (0.5, 1.0), (1.5, 4.0))
    task.auto_reset = False
    for _ in range(4):
        obs, *_ = task.step(constant(task, 1.0, 0.0))
    assert obs["raw"][0, 0] == pytest.approx(pushed(40, 1, 4), rel=1e-5)
    assert task.tasks[0].tolist() == [0.5, 1.0]
    obs, ids = task.reset_done()
    assert ids.tolist() == [0]
    assert task.progress_buf.tolist() == [0, 4]
    assert abs(float(obs["raw"][0, 0])) <= 0.1
    assert task.reset_done()[1].tolist() == []  # reset once is enough


def test_reset_done_begins_no_second_episode_after_an_automatic_reset(sliding_mass: Any) -> None:
    task = start(sliding_mass(2, threads=1), (0.5, 1.0), (1.5, 4.0))
    for _ in range(4):
        obs, *_ = task.step(constant(task, 1.0, 0.0))
    tasks = task.tasks.clone()
    again, ids = task.reset_done()
    assert ids.tolist() == [0]
    assert torch.equal(again["raw"], obs["raw"])
    assert torch.equal(task.tasks, tasks)


class Pictures:
    """Cameras that overwrite one picture, of the number of times it was taken."""

    def __init__(self, num_envs: int) -> None:
        self.picture = torch.zeros(num_envs, 2, 2, 3, dtype=torch.uint8)

    def render(self, rows: Rows | None = None) -> dict[str, torch.Tensor]:
        self.picture += 1
        return {"front/rgb": self.picture}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("auto_reset", [False, True])
def test_what_is_returned_can_be_kept(sliding_mass: Any, masked: bool, auto_reset: bool) -> None:
    task = sliding_mass(3, threads=1)
    task.auto_reset, task.cameras = auto_reset, Pictures(3)
    if masked:
        task._rows_of = Rows.of_mask
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(values: Any) -> None:
        for value in values.values() if isinstance(values, dict) else values:
            if isinstance(value, torch.Tensor):
                kept.append((value, value.clone()))
            else:
                keep(value)

    keep(task.reset())
    for step in range(15):
        keep(task.step(actions_of(task, step)))
    keep(task.start([2, 0], np.array([[0.6, 2.0], [0.7, 3.0]])))
    keep(task.reset_done())
    state = task.state_dict()
    keep(task.step(actions_of(task, 0)))
    task.reset_idx([1])
    task.load_state_dict(state)
    assert len(kept) > 15 * 10
    for value, copied in kept:
        np.testing.assert_array_equal(value, copied)  # NaN equals NaN: means before the first end
    pictures = {int(value.max()) for value, _ in kept if value.dtype == torch.uint8}
    assert len(pictures) > 15


def test_autograd_and_inference_mode_stay_outside(sliding_mass: Any) -> None:
    with torch.inference_mode():
        task = sliding_mass(2, threads=1)
        for _ in range(13):
            task.step(task.zero_actions())
        task.seed([1, 2])
        task.start([0], np.array([[1.0, 2.0]]))
        task.reset_idx([1])
        task.load_state_dict(task.state_dict())
        task.reset()
    actions = torch.zeros(2, 1, requires_grad=True)
    for _ in range(13):
        obs, rew, _, extras = task.step(torch.tanh(actions))
        tensors = [
            *obs.values(),
            rew,
            task.actions,
            *task.log.sums.values(),
            *extras["terminal_obs"].values(),
        ]
        assert not any(tensor.requires_grad or tensor.is_inference() for tensor in tensors)


IDS = [[1, 3], torch.tensor([1, 3]), torch.tensor([3, 1], dtype=torch.int32), np.array([3, 1]), (1, 3)]
MASKS = [torch.tensor([False, True, False, True]), np.array([0, 1, 0, 1], bool), [False, True, False, True]]


@pytest.mark.parametrize("ids", [*IDS, *MASKS])
def test_environments_are_chosen_by_index_or_mask(sliding_mass: Any, ids: Any) -> None:
    task, expected = (sliding_mass(4, threads=1) for _ in range(2))
    for each, chosen in ((task, ids), (expected, torch.tensor([1, 3]))):
        run(each, 2)
        each.reset_idx(chosen)
        assert each.progress_buf.tolist() == [2, 0, 2, 0]
    assert torch.equal(task.obs_dict["privileged"], expected.obs_dict["privileged"])


def test_tasks_and_seeds_follow_the_order_of_the_environments(sliding_mass: Any) -> None:
    ascending, other = (sliding_mass(4, threads=1) for _ in range(2))
    ascending.start([1, 3], np.array([[0.6, 2.0], [0.7, 3.0]]), [7, 8])
    other.start([3, 1], np.array([[0.7, 3.0], [0.6, 2.0]]), [8, 7])
    assert other.tasks[[1, 3]].tolist() == [[0.6, 2.0], [0.7, 3.0]]
    assert torch.equal(ascending.obs_dict["privileged"], other.obs_dict["privileged"])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 1], "environment 1 is in env_ids more than once"),
        ([0, -1], "no environment -1; env_ids go from 0 to 3"),
        ([4, 0], "no environment 4"),
        ([0.0, 1.0], "float64 of shape"),
        ([[0, 1]], r"int64 of shape \(1, 2\)"),
        (torch.tensor([True, True]), r"bool of shape \(2,\).*bool of shape \(4,\)"),
    ],
)
def test_wrong_environments_are_refused_with_nothing_changed(
    sliding_mass: Any, ids: Any, message: str
) -> None:
    task = sliding_mass(4, threads=1)
    before = task.state_dict()
    with pytest.raises(ValueError, match=message):
        task.reset_idx(ids)
    with pytest.raises(ValueError, match=message):
        task.start(ids, np.array([[0.6, 2.0], [0.7, 3.0]]), [7, 8])
    with pytest.raises(ValueError, match="2 environments were given 2 tasks and 1 seeds"):
        task.start([3, 1], np.array([[0.6, 2.0], [0.7, 3.0]]), [7])
    with pytest.raises(TypeError):
        task.start([3, 1], np.array([[0.6, 2.0], [0.7, 3.0]]), [7, None])
    np.testing.assert_equal(task.state_dict(), before)


def test_reward_terms_are_logged_for_the_episodes_that_ended(sliding_mass: Any) -> None:
    task = start(sliding_mass(3, threads=1), (0.5, 1.0), (0.5, 1.0), (1.5, 4.0))
    task.progress_buf[1] = 8  # the second ends by time, in the 12th step, which is the 4th from here
    for step in range(4):
        _, _, _, extras = task.step(constant(task, 1.0, -0.5, 1.0))
        assert ("log" in extras) == (step == 3)
    log = {name: float(value) for name, value in extras["log"].items()}
    x = pushed(40, 1, 4), pushed(-20, 1, 4)
    assert log["reward/progress"] == pytest.approx((2 * x[0] + 2 * x[1]) / 2, rel=1e-5)
    assert log["reward/effort"] == pytest.approx((4 * -0.1 * 1.0 + 4 * -0.1 * 0.25) / 2, rel=1e-5)
    assert log["reward/goal"] == (3 + 0) / 2
    assert log["episode/length"] == (4 + 12) / 2
    assert log["episode/success"] == 1 / 2
    assert log["episode/diverged"] == 0
    assert log["episode/count"] == 2


# --- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((2, 1), np.float32), "ndarray, not a torch tensor"),
        (torch.zeros(2), r"shape \(2,\), not \(2, 1\)"),
        (torch.zeros(3, 1), r"shape \(3, 1\), not \(2, 1\)"),
        (torch.zeros(2, 1, dtype=torch.int64), "torch.int64, not floating-point"),
        (torch.zeros(2, 1, device="meta"), "on meta, the environments on cpu"),
        (torch.tensor([[0.0], [np.nan]]), r"environment 1 is not finite: \[nan\]"),
        (torch.tensor([[-np.inf], [0.0]]), r"environment 0 is not finite: \[-inf\]"),
    ],
)
def test_wrong_actions_are_refused_by_name(sliding_mass: Any, actions: Any, message: str) -> None:
    task = sliding_mass(2, threads=1)
    with pytest.raises(ValueError, match=message):
        task.step(actions)
    assert task.progress_buf.tolist() == [0, 0]


def test_wrong_tasks_are_refused_by_name(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1)
    with pytest.raises(TaskError, match=r"mass = 9\.0 in task 0 is outside"):
        task.start(torch.tensor([0]), np.array([[1.0, 9.0]]))
    with pytest.raises(ValueError, match="2 environments were given 1 tasks"):
        task.start(torch.arange(2), np.array([[1.0, 2.0]]))
    task.propose = lambda n: np.full((n, 2), np.nan)
    with pytest.raises(TaskError, match="tasks proposed by SlidingMass: goal = nan"):
        task.reset()
    task.propose = lambda n: np.ones((1, 2))
    with pytest.raises(ValueError, match=r"SlidingMass.propose\(2\) returned 1 tasks"):
        task.reset()


def test_bad_actions_found_late_are_named_once(sliding_mass: Any) -> None:
    task = sliding_mass(4, threads=1)
    task._bad_actions[[1, 3]] = True  # as on a GPU, where a step does not wait to know
    with pytest.raises(ValueError, match="actions of 2 environments, first 1, were NaN"):
        task.check()
    task.check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 2.5}, "num_envs must be a whole number, at least 1, not 2.5"),
        ({"num_envs": True}, "num_envs must be a whole number"),
        ({"num_envs": 0}, "num_envs must be .* at least 1, not 0"),
        ({"threads": -1}, "threads must be .* at least 0, not -1"),
        ({"max_contacts": 0}, "max_contacts must be .* at least 1, not 0"),
        ({"view_noise": {"policy": -0.1}}, "view_noise of 'policy' .* not -0.1"),
        ({"view_noise": {"policy": float("nan")}}, "view_noise of 'policy'"),
        ({"device": "cpux"}, "device must be 'cpu' or 'cuda', not 'cpux'"),
        ({"device": "meta"}, "not 'meta'"),
    ],
)
def test_wrong_options_are_refused(sliding_mass: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sliding_mass(**({"num_envs": 2, "threads": 1} | options))


def test_make_vec_task_names_wrong_options_and_classes() -> None:
    with pytest.raises(ValueError, match="unknown Reach option 'thread'; did you mean 'threads'"):
        make_vec_task("reach", 2, thread=1)
    with pytest.raises(ValueError, match=r"option 'parameter'; did you mean 'parameters'.*view_noise"):
        make_vec_task("stump-walker", 2, parameter=("height",))
    for path in ("json:JSONDecoder", "json:dumps"):
        with pytest.raises(ValueError, match="is not a subclass of VecTask"):
            make_vec_task(path, 2)


def test_names_of_isaacgymenvs(sliding_mass: Any) -> None:
    task = sliding_mass(2, threads=1)
    assert (task.num_environments, task.num_observations, task.control_freq_inv) == (2, 3, 4)
    assert task.reset_buf.tolist() == [0, 0]
    start(task, (1.5, 4.0), (1.5, 4.0))
    task.clip_obs = 0.25
    obs, *_ = task.step(constant(task, 1.0, -1.0))
    assert obs["obs"][:, 2].tolist() == obs["states"][:, 2].tolist() == [0.25, 0.25]
    assert obs["policy"][0, 2] == pytest.approx(1.5 - pushed(40, 4, 1))
    assert task.randomize_buf.tolist() == [1, 1]


@pytest.mark.parametrize(("chosen", "threads"), [(None, 1), ("2", 2)])
def test_torch_threads_are_settled_once(monkeypatch: Any, chosen: str | None, threads: int) -> None:
    called: list[int] = []
    monkeypatch.setattr(simulator, "_settled", False)
    monkeypatch.setattr(torch, "set_num_threads", called.append)
    monkeypatch.delenv("TUTELAGE_TORCH_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("TUTELAGE_TORCH_THREADS", chosen)
    simulator.settle_threads()
    simulator.settle_threads()
    assert called == [threads]


@pytest.mark.parametrize("chosen", ["many", "0", "", "-1"])
def test_a_wrong_number_of_torch_threads_is_refused(monkeypatch: Any, chosen: str) -> None:
    monkeypatch.setattr(simulator, "_settled", False)
    monkeypatch.setenv("TUTELAGE_TORCH_THREADS", chosen)
    with pytest.raises(simulator.SimulatorError, match="TUTELAGE_TORCH_THREADS is"):
        simulator.settle_threads()


# --- divergence ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("velocity", [float("nan"), float("inf"), 1e30, 2e4])
@pytest.mark.parametrize("auto_reset", [True, False])
def test_a_diverged_environment_ends_alone(sliding_mass: Any, velocity: float, auto_reset: bool) -> None:
    task, twin = (sliding_mass(4, threads=1, seed=3) for _ in range(2))
    for each in (task, twin):
        each.auto_reset = auto_reset
        each.reset()
        each.step(actions_of(each, 0))
    task.sim.write("qvel", torch.tensor([[velocity]]), Rows.of_indices(torch.tensor([2]), 4))
    actions = actions_of(task, 1)
    obs, rew, reset, extras = task.step(actions)
    expected, expected_rew, _, _ = twin.step(actions)
    others = [0, 1, 3]
    for name in expected:
        assert torch.equal(obs[name][others], expected[name][others])
    assert torch.equal(rew[others], expected_rew[others])
    assert reset.tolist() == [0, 0, 1, 0]
    assert extras["diverged"].tolist() == [False, False, True, False]
    assert task.terminated.tolist() == [False, False, True, False]
    assert not task.success.any()
    assert not extras["time_outs"].any()
    assert rew[2] == 0
    assert extras["terminal_obs"]["states"][2].tolist() == [0, 0, 0, 0]
    assert int(task.num_diverged) == int(extras["log"]["episode/diverged"]) == 1
    if not auto_reset:
        assert task.reset_done()[1].tolist() == [2]
    for step in range(3):
        actions = actions_of(task, 2 + step)
        obs, rew, reset, _ = task.step(actions)
        expected, *_ = twin.step(actions)
        assert torch.equal(obs["states"][others], expected["states"][others])
        assert torch.isfinite(obs["states"]).all()
        assert reset.tolist() == [0, 0, 0, 0]
    assert task.progress_buf[2] == 3
    assert int(task.num_diverged) == 1


def test_what_diverged_stays_ended_and_empty_until_it_begins_anew(sliding_mass: Any) -> None:
    task = sliding_mass(3, threads=1)
    task.auto_reset, task.cameras = False, Pictures(3)
    first = Rows.of_indices(torch.tensor([0]), 3)
    for _ in range(3):
        task.sim.write("qvel", torch.tensor([[torch.nan]]), first)
        obs, rew, reset, extras = task.step(constant(task, 1.0, 1.0, 1.0))
        assert reset.tolist() == [1, 0, 0]
        assert extras["diverged"].tolist() == [True, False, False]
        assert rew[0] == 0
        task.start([1], np.array([[1.0, 1.0]]))  # of another row: this one stays empty
        for views in (obs, extras["terminal_obs"], task.obs_dict):
            for view in views.values():
                assert not view[0].any()
            assert views["front/rgb"][1:].all()
            assert views["privileged"][1:].any()
        assert int(task.num_diverged) == 1
    other = sliding_mass(3, threads=1)
    other.load_state_dict(task.state_dict())
    assert other.diverged.tolist() == [True, False, False]
    assert not other.obs_dict["privileged"][0].any()
    obs = task.start([0], np.array([[1.0, 1.0]]))
    assert obs["privileged"][0, 3] == 1.0
    assert obs["front/rgb"][0].all()
    assert task.step(task.zero_actions())[2].tolist() == [0, 0, 0]


def test_a_late_divergence_of_an_episode_that_has_ended_is_not_counted(sliding_mass: Any) -> None:
    task = start(sliding_mass(1, threads=1), (0.5, 1.0))
    task.auto_reset = False
    run(task, 12)
    assert task.reset_buf.tolist() == [1]
    task.sim.write("qvel", torch.tensor([[torch.nan]]))
    task.step(task.zero_actions())
    assert int(task.num_diverged) == 0


# --- randomness, seeds, saving -------------------------------------------------------------------------


def run(task: Any, steps: int, first: int = 0) -> list[torch.Tensor]:
    came = []
    for step in range(steps):
        obs, rew, reset, _ = task.step(actions_of(task, first + step))
        came.append(torch.cat([obs["obs"], obs["raw"], rew[:, None], reset[:, None], task.tasks], 1).clone())
    return came


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


COUNTS = ("episode/count", "episode/diverged")
NOISE: list[dict[str, Any]] = [{}, {"view_noise": {"policy": 0.1}}]


@pytest.mark.parametrize("options", NOISE)
def test_a_seed_decides_everything(sliding_mass: Any, options: dict[str, Any]) -> None:
    once, again, other = (sliding_mass(5, threads=1, seed=seed, **options) for seed in (0, 0, 1))
    assert same(run(once, 30), run(again, 30))
    assert not same(run(once, 2, 30), run(other, 2, 30))


@pytest.mark.parametrize("options", NOISE)
def test_episodes_do_not_depend_on_neighbours(sliding_mass: Any, options: dict[str, Any]) -> None:
    """The same tasks, seeds and actions in a batch of eight and alone; neighbours end at other times."""
    batch = sliding_mass(8, threads=1, seed=1, **options)
    tasks = batch.task_space.sample(np.random.default_rng(0), 8)
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(30, 8, 1, generator=generator) * 2 - 0.5
    batch.start(torch.arange(8), tasks, [100 + i for i in range(8)])
    came = []
    for step in range(30):
        obs, rew, reset, _ = batch.step(actions[step])
        came.append((obs["obs"].clone(), rew.clone(), reset.clone()))
    assert sum(int(reset.sum()) for _, _, reset in came) > 0
    for row in (0, 5):
        alone = sliding_mass(1, threads=1, seed=2, **options)
        alone.start(torch.arange(1), tasks[row : row + 1], [100 + row])
        for step in range(30):
            obs, rew, reset, _ = alone.step(actions[step, row : row + 1])
            assert torch.equal(obs["obs"][0], came[step][0][row])
            assert rew[0] == came[step][1][row]
            assert reset[0] == came[step][2][row]


def test_start_begins_some_and_leaves_the_others(sliding_mass: Any) -> None:
    task = sliding_mass(4, threads=1)
    run(task, 3)
    before = task.obs_dict["states"].clone()
    obs = task.start(torch.tensor([1, 3]), np.array([[0.6, 2.0], [0.7, 3.0]]), [7, 7])
    assert torch.equal(obs["states"][[0, 2]], before[[0, 2]])
    assert task.progress_buf.tolist() == [3, 0, 3, 0]
    assert task.tasks[[1, 3]].tolist() == [[0.6, 2.0], [0.7, 3.0]]
    assert obs["raw"][1] == obs["raw"][3]  # the same seed
    assert task.sim.read_model("body_mass")[[1, 3], 1].tolist() == [2.0, 3.0]


def test_noise_is_on_the_named_view_alone(sliding_mass: Any) -> None:
    clean, noisy = (
        start(sliding_mass(512, threads=1, view_noise=noise), *[(1.5, 4.0)] * 512)
        for noise in ({}, {"policy": 0.1})
    )
    a, b = clean.step(clean.zero_actions())[0], noisy.step(noisy.zero_actions())[0]
    assert torch.equal(a["states"], b["states"])
    noise = b["obs"] - a["obs"]
    # 1,536 numbers: the deviation is known to 0.1 / sqrt(2 * 1536) = 0.0018, the mean to 0.0026
    assert abs(float(noise.std()) - 0.1) < 4 * 0.0018
    assert abs(float(noise.mean())) < 4 * 0.0026


def test_proposed_tasks_run_next(sliding_mass: Any) -> None:
    task = sliding_mass(3, threads=1)
    asked: list[int] = []

    def propose(n: int) -> np.ndarray:
        asked.append(n)
        return np.array([[0.5 + 0.1 * len(asked), 1.0 + 0.1 * i] for i in range(n)])

    task.propose = propose
    task.reset()
    np.testing.assert_allclose(task.tasks, [[0.6, 1.0], [0.6, 1.1], [0.6, 1.2]])
    for _ in range(12):
        task.step(constant(task, 1.0, 0.0, 0.0))
    # The first reaches goal after goal, alone; the others end by time together, in the 12th step.
    assert asked == [3, *[1] * (len(asked) - 2), 2]
    assert len(asked) > 3
    np.testing.assert_allclose(task.tasks[1:], [[0.5 + 0.1 * len(asked), m] for m in (1.0, 1.1)])


@pytest.mark.parametrize("options", NOISE)
def test_rows_by_mask_as_on_a_gpu_give_the_same(sliding_mass: Any, options: dict[str, Any]) -> None:
    by_index, by_mask = (sliding_mass(6, threads=1, seed=4, **options) for _ in range(2))
    by_mask._rows_of = Rows.of_mask
    log = None
    for step in range(40):
        actions = actions_of(by_index, step)
        obs, rew, reset, extras = by_index.step(actions)
        masked = by_mask.step(actions)
        for name, view in obs.items():
            assert torch.equal(view, masked[0][name])
        assert torch.equal(rew, masked[1])
        assert torch.equal(reset, masked[2])
        for name, view in extras.get("terminal_obs", {}).items():
            assert torch.equal(view, masked[3]["terminal_obs"][name])
        assert set(extras) | {"log"} == set(masked[3])
        masked_log = masked[3]["log"]
        assert masked_log["episode/count"] == reset.sum()
        log = extras.get("log", log)  # where no episode ended, the means stay the last ones
        for name, value in (log or {}).items():
            assert name == "episode/count" or torch.equal(value, masked_log[name])
        if log is None:
            means = [value for name, value in masked_log.items() if name not in COUNTS]
            assert len(means) == 5
            assert torch.stack(means).isnan().all()
    assert log is not None
    assert int(by_index.num_diverged) == int(by_mask.num_diverged) == 0


def test_by_mask_as_many_tasks_are_proposed_as_episodes_ended(sliding_mass: Any) -> None:
    task = start(sliding_mass(3, threads=1), (0.5, 1.0), (1.5, 4.0), (1.5, 4.0))
    asked: list[int] = []
    task._rows_of = Rows.of_mask
    task.propose = lambda n: asked.append(n) or np.full((n, 2), 1.25)
    for _ in range(4):
        assert asked == []
        task.step(constant(task, 1.0, 0.0, 0.0))
    assert asked == [1]
    assert task.tasks.tolist() == [[1.25, 1.25], [1.5, 4.0], [1.5, 4.0]]


def test_after_proposing_failed_reset_and_reset_done_recover(sliding_mass: Any) -> None:
    def bad(n: int) -> np.ndarray:
        raise RuntimeError("no idea")

    for recover in ("reset", "reset_done"):
        task, twin = (sliding_mass(2, threads=1) for _ in range(2))
        task.propose = bad
        with pytest.raises(RuntimeError, match="no idea"):
            run(task, 12)
        assert task.reset_buf.tolist() == [1, 1]
        assert task.progress_buf.tolist() == [12, 12]
        task.propose = None
        for each in (task, twin):
            each.seed([7, 8])
        twin.reset()
        getattr(task, recover)()
        assert task.reset_buf.tolist() == [0, 0]
        assert same(run(task, 30), run(twin, 30))


@pytest.mark.xdist_group("warp")
@pytest.mark.parametrize("options", NOISE)
def test_on_warp(sliding_mass: Any, options: dict[str, Any]) -> None:
    """The same episodes as on the CPU simulator; saved ones go on bit for bit; a diverged one ends alone."""
    cpu, warp = (
        sliding_mass(5, threads=1, seed=4, backend=backend, **options) for backend in ("batch", "warp")
    )
    for step in range(30):
        actions = actions_of(cpu, step)
        obs, rew, reset, _ = cpu.step(actions)
        others, other_rew, other_reset, _ = warp.step(actions)
        for name, view in obs.items():
            torch.testing.assert_close(view, others[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(rew, other_rew, rtol=1e-5, atol=1e-5)
        assert torch.equal(reset, other_reset)
    state = warp.state_dict()
    going_on = run(warp, 20)
    warp.sim.write("qvel", torch.tensor([[torch.nan]]), Rows.of_indices(torch.tensor([2]), 5))
    _, rew, reset, extras = warp.step(actions_of(warp, 0))
    assert extras["diverged"].tolist() == [False, False, True, False, False]
    assert rew[2] == 0
    assert not warp.step(actions_of(warp, 1))[3]["diverged"].any()
    warp.load_state_dict(state)
    assert same(run(warp, 20), going_on)


@pytest.mark.parametrize("options", NOISE)
def test_a_saved_task_goes_on_bit_for_bit(sliding_mass: Any, options: dict[str, Any], tmp_path: Any) -> None:
    task = sliding_mass(5, threads=1, seed=0, **options)
    run(task, 7)
    save_state(tmp_path / "task.npz", task.state_dict())
    seen = {name: view.clone() for name, view in task.obs_dict.items()}
    going_on = run(task, 30, 7)
    log = {name: float(value) for name, value in task.extras.get("log", {}).items()}

    other = sliding_mass(5, threads=1, seed=9, **options)
    run(other, 4)
    other.sim.write("qvel", torch.full((5, 1), torch.nan))
    other.step(actions_of(other, 0))  # whatever went on there must not matter
    other.load_state_dict(load_state(tmp_path / "task.npz"))
    for name, view in seen.items():
        assert torch.equal(other.obs_dict[name], view)
    assert same(run(other, 30, 7), going_on)
    assert {name: float(value) for name, value in other.extras.get("log", {}).items()} == log
    assert int(other.num_diverged) == 0


def test_a_state_does_not_change_with_the_task(sliding_mass: Any) -> None:
    task = sliding_mass(3, threads=1)
    state = task.state_dict()
    before = copy.deepcopy(state)
    run(task, 5)
    for name in ("physics", "keys", "positions"):
        np.testing.assert_array_equal(state[name], before[name])
    for part in ("buffers", "model", "term_sums"):
        np.testing.assert_equal(state[part], before[part])


def test_under_a_mask_terminal_images_are_taken_on_request(sliding_mass: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(VecTask, "_rows_of", lambda self, done: Rows.of_mask(done))  # as on a GPU
    for wanted in (False, True):
        task = sliding_mass(2, threads=1, cameras=[CameraConfig("front", 8, 8)])
        task.terminal_images = wanted
        for _ in range(task.max_episode_length):
            obs_dict, _, reset, extras = task.step(task.zero_actions())
        assert reset.all()
        assert obs_dict["front/rgb"].shape == (2, 8, 8, 3)
        assert ("front/rgb" in extras["terminal_obs"]) == wanted
        assert "obs" in extras["terminal_obs"]

"""Distilling experts into one that sees the same: labels, returns of the critic, and that it learns both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows
from tutelage.envs.batched.task.vec_task import VecTask
from tutelage.envs.contract.tasks import BoxTasks
from tutelage.students.distillation import state_distillation
from tutelage.students.distillation.state_distillation import (
    StateDaggerConfig,
    StateDaggerProgress,
    distil_state,
    reachable_label,
)
from tutelage.teachers.experts.expert_router import ExpertRouter, box_rule
from tutelage.teachers.experts.mlp_expert import Advice, ExpertConfig, MLPExpert


class Count(VecTask):
    """Nothing moves; an episode ends truly after 2 steps where the task is above 0, else by time after 3."""

    task_space = BoxTasks({"end": (-1.0, 1.0)})
    num_actions = 2
    max_episode_length = 3
    default_obs_view = "privileged"

    def build_spec(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.gravity = [0, 0, 0]
        body = spec.worldbody.add_body(name="mass")
        body.add_joint(name="slide", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[1, 0, 0])
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0, 0], mass=1)
        return spec

    def start_episodes(self, rows: Rows) -> None:
        pass

    def pre_physics_step(self, actions: Tensor) -> None:
        self.taken = actions.clone()

    def compute_outcomes(self) -> tuple[Tensor, Tensor]:
        return (self.parameter("end") > 0) & (self.progress_buf >= 2), self.parameter("end") > 0

    def compute_rewards(self) -> dict[str, Tensor]:
        return {"one": torch.full((self.num_envs,), 2.0)}

    def compute_views(self) -> dict[str, Tensor]:
        now = torch.stack([self.parameter("end"), self.progress_buf.to(torch.float32)], 1)
        return {"policy": now[:, :1].clone(), "privileged": now}


def constant(value: float, critic: bool = True, facts: Mapping[str, Any] | None = None) -> MLPExpert:
    """An expert whose actions are `value`, and whose critic says 5 times the number of the step."""
    config = ExpertConfig("privileged", 2, 2, (16,), "privileged" if critic else None, 2, ())
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "actor.layers.0.weight": torch.randn(16, 2, generator=generator),
        "actor.layers.0.bias": torch.zeros(16),
        "actor.layers.2.weight": torch.zeros(2, 16),
        "actor.layers.2.bias": torch.full((2,), value),
        "log_std": torch.zeros(2),
    }
    parts = ["actor"]
    if critic:
        parts.append("critic")
        tensors |= {
            "critic.layers.0.weight": torch.tensor([[0.0, 5.0]]),
            "critic.layers.0.bias": torch.zeros(1),
        }
    for part in parts:
        tensors |= {f"{part}.mean": torch.zeros(2), f"{part}.scale": torch.ones(2)}
    return MLPExpert(config, tensors, facts)


def make(num_envs: int = 32, seed: int = 0) -> Count:
    return Count(num_envs, threads=1, seed=seed)


SMALL = StateDaggerConfig(frames=32 * 30, rollout_steps=6, updates=30, batch_size=64, noise=0.0)


def test_labels_beyond_the_limits_ask_for_no_more_than_the_limit() -> None:
    label = torch.tensor([0.3, 1.0, 4.0, 4.0, -4.0, -4.0, -0.5])
    mean = torch.tensor([9.0, 0.0, 0.5, 2.5, -0.5, -2.5, -9.0])
    expected = [0.3, 1.0, 1.0, 2.5, -1.0, -2.5, -0.5]
    torch.testing.assert_close(reachable_label(label, mean), torch.tensor(expected))


def test_returns_by_hand() -> None:
    """gamma 0.5, lambda 0.5, rewards 2 at scale 4, V(s_t) = 5 t."""
    task = make(2)
    task.propose = lambda n: np.array([[1.0], [-1.0]])[:n]
    obs = task.reset()
    config = StateDaggerConfig(rollout_steps=3, gae_lambda=0.5, noise=0.0)
    student = constant(0.0, facts={"gamma": 0.5, "reward_scale": 4.0})
    _, rolled = state_distillation._roll_out(task, obs, constant(0.1), student, config, torch.Generator())
    # environment 1 reaches its time limit: values V = 0, 5, 10, and 15 of the terminal state, bootstrapped
    d0, d1, d2 = 0.5 + 0.5 * 5 - 0, 0.5 + 0.5 * 10 - 5, 0.5 + 0.5 * 15 - 10
    limited = [d0 + 0.25 * (d1 + 0.25 * d2) + 0, d1 + 0.25 * d2 + 5, d2 + 10]
    # environment 0 ends truly after its second step: nothing beyond; then a new episode, cut by the round
    e1 = 0.5 - 5
    ended = [d0 + 0.25 * e1 + 0, e1 + 5, d0 + 0]
    expected = torch.tensor([[ended[i], limited[i]] for i in range(3)])
    torch.testing.assert_close(rolled.returns.view(3, 2), expected)
    torch.testing.assert_close(rolled.observations.view(3, 2, 2)[:, 1, 1], torch.tensor([0.0, 1.0, 2.0]))
    assert rolled.success == 0.5


def test_noise_is_on_actions_alone_and_the_oldest_rounds_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[Tensor] = []
    sizes: list[int] = []
    learn = state_distillation._learn

    def watched(student: Any, optimizer: Any, memory: Any, rolled: Any, *others: Any) -> tuple[float, float]:
        sizes.append(sum(len(labels) for _, labels in memory))
        assert all((labels == 0.25).all() for _, labels in memory)
        taken.append(task.taken)
        return learn(student, optimizer, memory, rolled, *others)

    monkeypatch.setattr(state_distillation, "_learn", watched)
    task = make()
    config = replace(SMALL, frames=32 * 24, updates=1, noise=0.1, buffer_frames=32 * 6 * 2 + 31)
    distil_state(task, constant(0.25), constant(0.0), config, seed=0)
    assert sizes == [192, 384, 384, 384]
    assert float(taken[0].std()) == pytest.approx(0.1, abs=0.04)  # of 64 numbers


def test_gradients_are_scaled_down(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[list[float]] = []

    class Watched(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            parameters = [p for group in self.param_groups for p in group["params"]]
            norms.append([float(p.grad.norm()) for p in parameters])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    distil_state(make(), constant(0.9), constant(0.0), replace(SMALL, frames=1, max_grad_norm=1e-3), seed=0)
    assert norms
    assert max(map(max, norms)) <= 1.001e-3


def test_it_learns_what_the_expert_of_each_task_does() -> None:
    task, start = make(), constant(0.0, facts={"task": "count"})
    experts = [constant(-0.6), constant(3.0)]
    regions = [{"end": (-1.0, 0.0)}, {"end": (0.0, 1.0)}]
    router = ExpertRouter(experts, box_rule(task.task_space, regions), lambda: task.tasks)
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    seen: list[StateDaggerProgress] = []
    config = replace(SMALL, frames=32 * 60, updates=60, learning_rate=1e-2)
    student = distil_state(task, router, start, config, seed=0, on_progress=seen.append)
    actions = student.act({"privileged": torch.tensor([[-0.6, 1.0], [0.6, 1.0]])})
    torch.testing.assert_close(actions, torch.tensor([[-0.6] * 2, [1.0] * 2]), rtol=0, atol=0.15)
    assert seen[-1].loss < 0.2 * seen[0].loss
    assert router.queries == seen[-1].frames == student.facts["distilled_frames"] == 32 * 60
    assert student.facts["task"] == "count"
    assert not any(parameter.requires_grad for parameter in student.parameters())
    for name, tensor in start.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_critic_learns_what_the_student_earns() -> None:
    """2 a step, 2 steps, gamma 0.9, at scale 4: 0.5 + 0.45 at the beginning, then 0.5; it began with 0, 5."""
    task = make()
    task.propose = lambda n: np.full((n, 1), 0.5)
    start = constant(0.0, facts={"gamma": 0.9, "reward_scale": 4.0})
    config = replace(SMALL, frames=32 * 120, updates=60, learning_rate=3e-2)
    student = distil_state(task, constant(0.0), start, config, seed=0)
    value = student.advise({"privileged": torch.tensor([[0.5, 0.0], [0.5, 1.0]])}).value
    assert value is not None
    torch.testing.assert_close(value / 4, torch.tensor([0.95, 0.5]), rtol=0, atol=0.05)  # in task's units


def test_it_repeats() -> None:
    first, again, other = (
        distil_state(make(), constant(0.5), constant(0.0), SMALL, seed) for seed in (1, 1, 2)
    )
    same, different = (
        [torch.equal(a, b.state_dict()[name]) for name, a in first.state_dict().items()]
        for b in (again, other)
    )
    assert all(same)
    assert not all(different)


def test_without_a_critic_the_actor_learns_alone() -> None:
    student = distil_state(make(), constant(0.5), constant(0.0, critic=False), SMALL, 0)
    assert student.critic is None
    assert student.act(make().obs_dict).mean() > 0.05


def test_what_does_not_fit_is_named() -> None:
    wrong = constant(0.0)
    wrong.config = ExpertConfig("privileged", 2, 2, (16,), "policy", 1, ())
    with pytest.raises(ValueError, match="wants one view"):
        distil_state(make(), constant(0.5), wrong, SMALL, 0)

    class Lost(MLPExpert):
        def advise(self, obs_dict: Mapping[str, Tensor]) -> Advice:
            return Advice(torch.full((32, 2), torch.nan), torch.ones(32, 2), None)

    lost = constant(0.5)
    lost.__class__ = Lost
    with pytest.raises(RuntimeError, match="learning rate"):
        distil_state(make(), lost, constant(0.0), SMALL, 0)
    with pytest.raises(ValueError, match="updates must be above 0"):
        StateDaggerConfig(updates=0)
    with pytest.raises(ValueError, match="gae_lambda in"):
        StateDaggerConfig(gae_lambda=1.1)

"""Several experts distilled into one student: each environment is labelled by the expert for its task."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.envs.batched.cameras.camera_config import CameraConfig
from tutelage.envs.batched.worlds.reach import Reach
from tutelage.students import distillation
from tutelage.students.distillation import (
    Budget,
    LearningConfig,
    aacd,
    dagger_value,
    distil_then_rl,
    evaluate_student,
    kickstarting,
)
from tutelage.students.distillation.machinery.learner import LABEL
from tutelage.students.ppo.formulas import PPOConfig
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent
from tutelage.teachers.experts.expert_router import ExpertRouter, box_rule
from tutelage.teachers.experts.mlp_expert import Advice, ExpertConfig, MLPExpert

LEARNING = LearningConfig(batch_size=64, sequence_length=6, burn_in=0, threads=1, learning_rate=2e-3)
PPO = PPOConfig(rollout_steps=6, epochs=1)
BUDGET = Budget(frames=3 * 96)
CONFIGS: dict[str, Any] = {
    "dagger": distillation.DaggerConfig(BUDGET, LEARNING, rollout_steps=6, updates=2),
    "behaviour_cloning": distillation.BehaviourCloningConfig(BUDGET, LEARNING, rollout_steps=6, updates=2),
    "on_policy": distillation.OnPolicyConfig(BUDGET, LEARNING, rollout_steps=6),
    "dagger_value": dagger_value.DaggerValueConfig(BUDGET, LEARNING, rollout_steps=6, updates=2),
    "kickstarting": kickstarting.KickstartingConfig(BUDGET, LEARNING, ppo=PPO),
    "distil_then_rl": distil_then_rl.DistilThenRLConfig(
        BUDGET, LEARNING, rollout_steps=6, updates=2, ppo=PPO, warmup_rounds=0
    ),
}
METHODS: dict[str, Any] = {
    "dagger_value": dagger_value,
    "kickstarting": kickstarting,
    "distil_then_rl": distil_then_rl,
}


class Half:
    """Goes to the goal where that is on its side (1: right, -1: left), and the other way elsewhere."""

    view, num_actions = "privileged", 1

    def __init__(self, side: float) -> None:
        self.side, self.queries, self.strange = side, 0, 0

    def advise(self, obs_dict: Mapping[str, Tensor]) -> Advice:
        x, goal = obs_dict[self.view].unbind(1)
        mine = goal * self.side >= 0
        self.queries += len(x)
        self.strange += int((~mine).sum())
        mean = (torch.where(mine, goal - x, x - goal) / 0.3)[:, None]
        return Advice(mean, torch.full_like(mean, 0.3), None)


def halves(task: Any) -> tuple[ExpertRouter, Half, Half]:
    left, right = Half(-1), Half(1)
    rule = box_rule(task.task_space, [{"goal": (-0.8, 0.0)}, {"goal": (0.0, 0.8)}])
    return ExpertRouter([left, right], rule, lambda: task.tasks), left, right


@pytest.mark.parametrize("method", CONFIGS)
def test_every_method_asks_the_right_expert(method: str, slider: Any, new_student: Any) -> None:
    task = slider(num_envs=16)
    router, left, right = halves(task)
    student = new_student(task, head="gaussian", critic_view="privileged", critic_hidden=(16,))
    module = METHODS.get(method) or getattr(distillation, method)
    result = module.distil(task, router, student, CONFIGS[method], 0)
    assert result.queries == router.queries == left.queries + right.queries == 3 * 96
    assert min(left.queries, right.queries) > 48
    assert left.strange == right.strange == 0


def test_one_student_learns_from_both(slider: Any, new_student: Any, better: Any) -> None:
    task, test = slider(), slider(seed=1)
    router, *experts = halves(task)
    student = new_student(task)
    config = replace(CONFIGS["dagger"], budget=Budget(frames=9_000), updates=8)
    distillation.dagger.distil(task, router, student, config, 0)
    found = evaluate_student(test, student, 128, seed=7)
    for expert in experts:
        assert better(found, evaluate_student(test, expert, 128, seed=7))
    assert evaluate_student(test, router.on(test), 128, seed=7).success == 1


def random_expert(seed: int) -> MLPExpert:
    """A network that knows nothing, for Reach."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (8, 21), "0.bias": (8,), "2.weight": (4, 8), "2.bias": (4,)}
    tensors = {f"actor.layers.{name}": torch.randn(s, generator=generator) for name, s in shapes.items()}
    tensors |= {"actor.mean": torch.zeros(21), "actor.scale": torch.ones(21), "log_std": torch.zeros(4)}
    return MLPExpert(ExpertConfig("privileged", 21, 4, (8,)), tensors)


def test_labels_of_reach_come_from_the_expert_for_each_half_of_its_tasks() -> None:
    task = Reach(16, seed=0, threads=1, cameras=[CameraConfig("front", 32, 32, ("rgb",))])
    near, far = random_expert(0), random_expert(1)
    rule = box_rule(task.task_space, [{"radius": (0.25, 0.4)}, {"radius": (0.4, 0.55)}])
    router = ExpertRouter([near, far], rule, lambda: task.tasks)
    student = VisionStudent.of_task(VisionConfig(critic_view="privileged", hidden=(16,)), task)
    method = distillation.dagger.Dagger(task, router, student, CONFIGS["dagger"], 0)
    method.round()
    steps, envs = torch.meshgrid(torch.arange(6), torch.arange(16), indexing="ij")
    frames = method.buffer.gather(steps, envs)
    is_near = task.tasks[:, 0] <= 0.4  # episodes last 50 steps: they are still the same
    assert 0 < int(is_near.sum()) < 16
    for expert, mine in ((near, is_near), (far, ~is_near)):
        wanted = expert.actor(frames["privileged"][:, mine].flatten(0, 1)).clamp(-1, 1)
        torch.testing.assert_close(frames[LABEL][:, mine].flatten(0, 1), wanted)
        assert expert.queries == 6 * int(mine.sum())
    task.close()


def test_a_critic_of_several_is_refused(slider: Any, new_student: Any) -> None:
    task = slider(num_envs=2)
    student = new_student(task, head="gaussian")
    with pytest.raises(ValueError, match="the critic of one expert, and ExpertRouter is none"):
        aacd.distil(task, halves(task)[0], student, aacd.AACDConfig(), 0)

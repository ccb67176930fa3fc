"""Vision students as Stable-Baselines3 policies: reinforcement learning goes on where distillation ended.

::

    env = SB3VecTask(task, views=("front/rgb", "policy"))
    model = PPO("MultiInputPolicy", env, policy_kwargs=sb3_policy_kwargs(student))
    copy_to_sb3(student, model.policy)
    model.learn(100_000)
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import gymnasium
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from tutelage.students.vision.vision_config import STUDENT_VIEW

if TYPE_CHECKING:
    from tutelage.students.vision.vision_student import VisionStudent


class VisionFeatures(BaseFeaturesExtractor):
    """A copy of a student's encoder, with the vector behind its features.

    SB3 hands out images with channels in front, as floating-point numbers.

    Args:
        observation_space: a dict of the student's views; others in it are not used.
        student: single frames, without memory.

    Raises:
        ValueError: when the student cannot be used so, or sees a view that is not in the space.
    """

    def __init__(self, observation_space: gymnasium.spaces.Dict, student: VisionStudent) -> None:
        _check(student)
        config = student.config
        for name in (*config.images, *([config.vector] if config.vector else [])):
            if name not in observation_space.spaces:
                known = ", ".join(observation_space.spaces)
                raise ValueError(f"the student sees {name!r}, which is not in the observations ({known})")
        inputs = student.actor[0].in_features
        assert isinstance(inputs, int)
        super().__init__(observation_space, inputs)
        self.student = copy.deepcopy(student)
        self.student.actor = self.student.critic = None  # type: ignore[assignment]  # SB3 has its own
        self.student.log_std = self.student.predictor = None

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features, ``(n, features_dim)``."""
        inputs = dict(observations)
        for name in self.student.config.images:
            if len(self.student.shapes[name]) == 3:
                inputs[name] = inputs[name].to(torch.uint8).permute(0, 2, 3, 1)
        return self.student.see(inputs)


def sb3_policy_kwargs(student: VisionStudent) -> dict[str, Any]:
    """``policy_kwargs`` of SB3's ``MultiInputPolicy``: the student's encoder and layers of its sizes.

    The critic gets what the student sees, and layers of the sizes in ``config.critic_hidden``. Weights of
    encoders are the student's from the start; `copy_to_sb3` copies those of the actor, and of a critic with
    ``critic_view="student"``.

    Raises:
        ValueError: for students with memory or stacked frames, which SB3's PPO cannot take; or with a critic
            that SB3's cannot be like.
    """
    _check(student)
    config = student.config
    return {
        "features_extractor_class": VisionFeatures,
        "features_extractor_kwargs": {"student": student},
        "normalize_images": False,  # the encoder does
        "net_arch": {"pi": list(config.hidden), "vf": list(config.critic_hidden)},
        "activation_fn": nn.ELU,
        "ortho_init": False,  # would overwrite the encoder
    }


def copy_to_sb3(student: VisionStudent, policy: ActorCriticPolicy) -> None:
    """Let an actor-critic policy, made with `sb3_policy_kwargs`, act as the student does.

    A critic that sees what the student sees is copied too; SB3's PPO has no place for one that sees more.
    Standard deviations are the student's, or its config's ``init_std``. SB3's image pipeline and ours differ
    in nothing else, so that the mean actions are equal.

    Raises:
        ValueError: when the policy's layers are of other sizes.
    """
    *hidden, last = student.actor
    try:
        policy.mlp_extractor.policy_net.load_state_dict(nn.Sequential(*hidden).state_dict())
        policy.action_net.load_state_dict(last.state_dict())
        if student.critic is not None and student.config.critic_view == STUDENT_VIEW:
            *hidden, last = student.critic.network.layers
            policy.mlp_extractor.value_net.load_state_dict(nn.Sequential(*hidden).state_dict())
            policy.value_net.load_state_dict(last.state_dict())
            with torch.no_grad():  # SB3 knows no scale of values
                policy.value_net.weight.mul_(student.critic.value_scale)
                policy.value_net.bias.mul_(student.critic.value_scale).add_(student.critic.value_mean)
    except RuntimeError as error:
        raise ValueError(f"the policy was not made with sb3_policy_kwargs of this student: {error}") from None
    with torch.no_grad():
        if student.log_std is None:
            policy.log_std.fill_(math.log(student.config.init_std))
        else:
            policy.log_std.copy_(student.log_std)


def _check(student: VisionStudent) -> None:
    config = student.config
    if not isinstance(student.actor, nn.Sequential):
        raise ValueError(
            "SB3's policies end in layers of their own, this student in its expert's: distil a VisionStudent"
        )
    if config.frames > 1 or config.memory:
        raise ValueError(
            f"SB3's policies act on single observations; this student has frames={config.frames} and "
            f"memory={config.memory}: distil one with frames=1 and memory=0"
        )
    critic = (config.critic_activation, config.critic_clip)
    if config.critic_view == STUDENT_VIEW and critic != ("ELU", None):
        raise ValueError(
            f"the policy's critic has ELU between its layers and clips nothing; this student's has {critic}"
        )

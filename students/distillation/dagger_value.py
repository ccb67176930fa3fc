"""DAgger that trains the student's critic too, on its own roll-outs, so that PPO can go on from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from tutelage.students.distillation.dagger import Dagger, DaggerConfig, mixture
from tutelage.students.distillation.machinery.actor_critic import discount
from tutelage.students.distillation.machinery.card import MethodCard
from tutelage.students.distillation.machinery.progress import DistillationResult, OnProgress
from tutelage.students.distillation.machinery.roll_out import Drive
from tutelage.students.ppo.formulas import PPOConfig, gae
from tutelage.students.torch_tools.threads import torch_threads
from tutelage.students.vision.vision_config import STUDENT_VIEW

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.students.distillation.machinery.method import MethodConfig
    from tutelage.students.vision.critics import Critic
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Expert


@dataclass(frozen=True)
class DaggerValueConfig(DaggerConfig):
    """Settings of `DaggerValue`: those of `DaggerConfig`, whose `learning` is the critic's too, and more.

    Attributes:
        beta_end: 0, as values are to be those of the student alone.
        stochastic: students with a Gaussian head act by drawing from it, as PPO has them do: values are then
            those that PPO needs.
        gamma: discount; None: the expert's if it tells, or else 0.99.
        lam: of the returns: 1 for sums of rewards until the roll-out ends, 0 for one step.
        value_epochs: passes of the critic over each roll-out, in minibatches of `learning`.

    Raises:
        ValueError: for an unknown schedule, or a number out of range.
    """

    beta_end: float = 0.0
    stochastic: bool = True
    gamma: float | None = None
    lam: float = 0.95
    value_epochs: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        PPOConfig(gamma=self.gamma, lam=self.lam)  # which checks its numbers
        if self.value_epochs < 1:
            raise ValueError(f"value_epochs must be at least 1, not {self.value_epochs}")


class Steps(NamedTuple):
    """The critic's lesson: `T` steps of `n` environments.

    Attributes:
        views: what it sees of the states in which the actions were taken, ``(T, n, size)``.
        next_views: of the states that followed, the last ones of episodes included, ``(T, n, size)``.
        rewards: ``(T, n)``.
        ended, terminated: whether an episode ended with this step; not by the time limit. Bool ``(T, n)``.
    """

    views: Tensor
    next_views: Tensor
    rewards: Tensor
    ended: Tensor
    terminated: Tensor


class DaggerValue(Dagger):
    """`Dagger` whose critic learns the values of the policy that acts.

    Wan et al. 2023, "UniDexGrasp++: Improving Dexterous Grasping Policy Learning via Geometry-aware
    Curriculum and Iterative Generalist-Specialist Learning" (ICCV): so that a distilled generalist can be
    fine-tuned by reinforcement learning, which with a new critic would first damage it. Here, after each
    round::

        V(s_t) -> R_t = V(s_t) + A_t,    A_t as in `tutelage.students.ppo.formulas.gae`

    on the last roll-out alone, as older ones are of older students. The public code stores the observations
    after a step in place of those before it, so that its targets are one step off; here s_t is the state in
    which a_t was taken, and where the time limit ends an episode, the value of its own last state is added,
    not that of the next episode's first.

    The critic sees a vector of the task, mostly ``privileged``; its normalisers of inputs and returns follow
    what is met. The values are those of the expert in the rounds in which it acts.

    Args:
        task, expert, seed: as in `DistillationMethod`.
        student: with a critic, ``VisionConfig(critic_view="privileged")``.
        config: settings.

    Attributes:
        diagnostics: of the last round.

    Logged metrics: those of `DistillationMethod`, and

    - ``diagnostics/value_loss``, the mean squared error in units of the critic's scale, over the updates;
    - ``diagnostics/explained_variance`` of returns by the values before them.

    Raises:
        ValueError: when the student has no critic, or one that sees what the student sees.
    """

    card: ClassVar[MethodCard] = MethodCard(
        "DAgger that trains a critic too", critic="privileged", predicts=True
    )
    config_class: ClassVar[type[MethodConfig]] = DaggerValueConfig

    def __init__(
        self, task: VecTask, expert: Expert, student: VisionStudent, config: DaggerValueConfig, seed: int
    ) -> None:
        view = student.config.critic_view
        if student.critic is None or view is None or view == STUDENT_VIEW:
            raise ValueError(
                "DAgger with values trains a critic that sees a vector of the task: make the student with "
                f"VisionConfig(critic_view='privileged'), not critic_view={view!r}"
            )
        super().__init__(task, expert, student, config, seed)
        self.values, self.expert = config, expert
        self.critic: Critic = student.critic
        self.critic_view: str = view
        self.gamma = discount(PPOConfig(gamma=config.gamma), expert)
        self.stochastic = config.stochastic and student.config.head == "gaussian"
        self.diagnostics: dict[str, float] = {}

    def round(self) -> float:
        """Visit states as DAgger does, learn actions from all so far, and values from the last ones."""
        config, counts, learner = self.values, self.counts, self.learner
        share = self.config.expert_share(self.rounds)
        with counts.clock("rollout"), torch_threads(1):
            steps = self.visit(mixture(share, config.noise, self.generator))
        with counts.clock("learning"), torch_threads(1):
            learner.decay(counts.spent)
            for _ in range(config.updates):
                counts.add_update(*learner.update(self.buffer))
            self.learn_values(steps)
        self.rounds += 1
        return share

    def visit(self, drive: Drive) -> Steps:
        """Take `rollout_steps` steps, add them with their labels to the ring; return the critic's lesson."""
        rolling, view = self.rolling, self.critic_view
        steps: list[Steps] = []
        for _ in range(self.values.rollout_steps):
            shown = rolling.obs_dict
            advice = self.expert.advise(shown)
            self.buffer.add(self.learner.fields(shown, advice.mean, advice.std), rolling.started)
            self.student.observe(shown)
            actions, state = self.student.act(shown, rolling.state, not self.stochastic, self.generator)
            right = advice.mean.clamp(-1, 1)
            rolling.refresh(self.learner)
            rolling.obs_dict, rewards, dones, extras = self.task.step(drive(actions, right))
            rolling.started = ended = dones.bool()
            rolling.state = state.reset(ended)
            self.counts.add_step(ended, extras["success"], (actions - right).abs())
            # The terminal observations are the last ones of what ended, and elsewhere what is shown now.
            last = extras["terminal_obs"][view]
            steps.append(Steps(shown[view], last, rewards.clone(), ended, ended & ~extras["time_outs"]))
        return Steps(*(torch.stack(column) for column in zip(*steps, strict=True)))

    @torch.no_grad()
    def targets(self, steps: Steps) -> tuple[Tensor, Tensor]:
        """Values of the states of `views`, and the returns they are to learn, ``(T, n)`` each.

        ``R_t = r_t + gamma ((1 - lam) V(s_{t+1}) + lam R_{t+1})``, with ``lam = 0`` where the roll-out or an
        episode ends, and nothing after r_t where it was terminated.
        """
        values = self.critic(steps.views.flatten(0, 1)).view(steps.rewards.shape)
        following = self.critic(steps.next_views.flatten(0, 1)).view(steps.rewards.shape)
        following = torch.where(steps.terminated, 0.0, following)
        advantages = gae(steps.rewards, values, following, steps.ended, self.gamma, self.values.lam)
        return values, values + advantages

    def learn_values(self, steps: Steps) -> None:
        """Bring the critic nearer to the returns: ``min mean ((V(s_t) - R_t) / scale)^2``."""
        critic, views = self.critic, steps.views.flatten(0, 1)
        critic.observe(views)
        values, returns = (part.flatten() for part in self.targets(steps))
        critic.follow(returns)
        losses = []
        for _ in range(self.values.value_epochs):
            order = torch.randperm(len(views), generator=self.generator, device=views.device)
            for rows in order.split(self.values.learning.batch_size):
                errors = (critic(views[rows]) - returns[rows]) / critic.value_scale
                losses.append(self.learner.step(errors.square().mean()))
        explained = 1 - (returns - values).var() / returns.var().clamp(min=1e-12)
        numbers = torch.stack([torch.stack(losses).mean(), explained]).tolist()
        self.diagnostics = dict(zip(("value_loss", "explained_variance"), numbers, strict=True))


def distil(
    task: VecTask,
    expert: Expert,
    student: VisionStudent,
    config: DaggerValueConfig,
    seed: int,
    on_progress: OnProgress | None = None,
) -> DistillationResult:
    """Train a student by `DaggerValue`, from the first round to the last."""
    return DaggerValue(task, expert, student, config, seed).run(on_progress)

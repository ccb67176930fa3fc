"""DAgger between policies that see the same: several specialists become one generalist, critic included.

For students that see images there is `tutelage.students.distillation`; here the student is an `MLPExpert`,
which begins as one that there is and can be trained by PPO again, as generalist-specialist learning wants it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tutelage.students.ppo.formulas import gae
from tutelage.students.torch_tools.threads import torch_threads
from tutelage.teachers.experts.mlp_expert import MLPExpert, check_expert, read_view

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import VecTask
    from tutelage.teachers.experts.mlp_expert import Expert


@dataclass(frozen=True)
class StateDaggerConfig:
    """Settings of `distil_state`.

    Attributes:
        frames: environment steps of all environments together, rounded up to whole rounds.
        rollout_steps: steps of all environments in a round.
        updates: gradient steps after each round.
        batch_size: frames of a gradient step.
        buffer_frames: the last so many frames are learnt from.
        learning_rate: Adam's, falling linearly to a tenth.
        noise: standard deviation of Gaussian noise on the student's actions, never on labels.
        gae_lambda: of the returns that the critic learns.
        max_grad_norm: gradients of actor and of critic are scaled down to it.

    Raises:
        ValueError: for a number out of range.
    """

    frames: int = 150_000
    rollout_steps: int = 25
    updates: int = 100
    batch_size: int = 1024
    buffer_frames: int = 300_000
    learning_rate: float = 1e-3
    noise: float = 0.1
    gae_lambda: float = 0.95
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("frames", "rollout_steps", "updates", "batch_size", "buffer_frames", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.noise < 0 or not 0 <= self.gae_lambda <= 1 or not self.max_grad_norm > 0:
            raise ValueError(f"need noise >= 0, gae_lambda in [0, 1] and max_grad_norm > 0: {self}")


@dataclass(frozen=True)
class StateDaggerProgress:
    """Figures of one round of `distil_state`.

    Attributes:
        frames: environment steps so far, which is also how often the expert was asked.
        loss, critic_loss: means over the round's updates.
        success: share of the episodes that ended in the round; NaN where none did.
    """

    frames: int
    loss: float
    critic_loss: float
    success: float


def distil_state(
    task: VecTask,
    expert: Expert,
    start_from: MLPExpert,
    config: StateDaggerConfig,
    seed: int,
    on_progress: Callable[[StateDaggerProgress], None] | None = None,
) -> MLPExpert:
    """Train an expert towards the actions of another, or of a router; and its critic on its returns.

    UniDexGrasp++ (Wan et al. 2023, section 4.2): the student acts, always; the loss of the actor is the mean
    squared error to the expert's means, on all states that it met, that of the critic the squared error to
    returns by GAE, on the states of the last round. How far a mean lies beyond the limits of actions makes no
    difference to what happens, and none to the loss.

    Args:
        task: environments of the tasks to learn; reset here.
        expert: whose labels; queries are counted by it.
        start_from: what the student begins as; it is not changed.
        config: settings.
        seed: of minibatches and noise. The same task (freshly made) and seed give the same student on a CPU.
        on_progress: called after every round.

    Returns:
        The student, with the `facts` of `start_from` and ``distilled_frames``; the noise of its actions is
        that of `start_from`.

    Raises:
        ValueError: when an expert does not fit the task, or the student's critic sees another view than its
            actor.
        RuntimeError: when the loss is no longer finite.
    """
    task.auto_reset = True
    obs = task.reset()
    check_expert(expert, task)
    check_expert(start_from, task)
    view, critic_view = start_from.config.view, start_from.config.critic_view
    if critic_view not in (None, view):
        raise ValueError(f"actor and critic see {view!r} and {critic_view!r}; distil_state wants one view")
    student = copy.deepcopy(start_from).to(task.device).requires_grad_(True)
    parameters = [p for name, p in student.named_parameters() if name != "log_std"]
    optimizer = torch.optim.Adam(parameters, config.learning_rate)
    generator = torch.Generator(task.device).manual_seed(seed)
    per_round = config.rollout_steps * task.num_envs
    rounds = math.ceil(config.frames / per_round)
    memory: list[tuple[Tensor, Tensor]] = []  # observations and labels of rounds
    with torch_threads(1):
        for round_ in range(rounds):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * (1 - 0.9 * round_ / rounds)
            obs, rolled = _roll_out(task, obs, expert, student, config, generator)
            memory.append((rolled.observations, rolled.labels))
            del memory[: -max(1, config.buffer_frames // per_round)]
            losses = _learn(student, optimizer, memory, rolled, config, generator)
            if not math.isfinite(sum(losses)):
                raise RuntimeError(f"the loss became {losses}; lower the learning rate")
            if on_progress is not None:
                on_progress(StateDaggerProgress((round_ + 1) * per_round, *losses, rolled.success))
    student.facts = {**start_from.facts, "distilled_frames": rounds * per_round}
    student.queries = 0
    return student.requires_grad_(False)


@dataclass(frozen=True)
class _Round:
    """Frames of a round, ``(n, ...)``, and the share of its episodes that succeeded."""

    observations: Tensor
    labels: Tensor
    returns: Tensor
    success: float


@torch.no_grad()
def _roll_out(
    task: VecTask,
    obs: dict[str, Tensor],
    expert: Expert,
    student: MLPExpert,
    config: StateDaggerConfig,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], _Round]:
    """Let the student act and the expert label; returns for the critic by GAE (Schulman et al. 2016)."""
    view, gamma = student.config.view, float(student.facts.get("gamma", 0.99))
    seen, labels, rewards, values, next_values, ended = [], [], [], [], [], []
    counts = torch.zeros(2, device=task.device)
    for _ in range(config.rollout_steps):
        now = read_view(view, student.config.num_obs, obs, "the observations")
        seen.append(now)
        labels.append(expert.advise(obs).mean)
        values.append(_value(student, now))
        jitter = torch.randn(task.actions.shape, generator=generator, device=task.device)
        obs, reward, dones, extras = task.step(student.actor(now) + config.noise * jitter)
        rewards.append(reward / student.reward_scale)
        ended.append(dones.bool())
        # V = 0 beyond a true end; what follows is seen before any reset
        terminated = ended[-1] & ~extras["time_outs"]
        next_values.append(_value(student, extras["terminal_obs"][view]) * ~terminated)
        counts += torch.stack([extras["success"].sum(), dones.sum()])
    # R_t = A_t + V(s_t)
    before, after = torch.stack(values), torch.stack(next_values)
    advantages = gae(torch.stack(rewards), before, after, torch.stack(ended), gamma, config.gae_lambda)
    returns = (advantages + before).flatten()
    succeeded, ended_count = counts.tolist()
    success = succeeded / ended_count if ended_count else math.nan
    return obs, _Round(torch.cat(seen), torch.cat(labels), returns, success)


def _learn(
    student: MLPExpert,
    optimizer: torch.optim.Optimizer,
    memory: list[tuple[Tensor, Tensor]],
    rolled: _Round,
    config: StateDaggerConfig,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Gradient steps of actor and critic; mean losses."""
    observations, labels = (torch.cat(part) for part in zip(*memory, strict=True))
    device = observations.device
    sums = torch.zeros(2, device=device)
    for _ in range(config.updates):
        rows = torch.randint(len(observations), (config.batch_size,), generator=generator, device=device)
        mean = student.actor(observations[rows])
        loss = ((mean - reachable_label(labels[rows], mean.detach())) ** 2).mean()
        rows = torch.randint(len(rolled.returns), (config.batch_size,), generator=generator, device=device)
        value = _value(student, rolled.observations[rows])
        critic_loss = ((value - rolled.returns[rows]) ** 2).mean()
        optimizer.zero_grad()
        (loss + critic_loss).backward()
        for network in (student.actor, student.critic):  # apart: a critic far off must not slow the actor
            if network is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
        optimizer.step()
        sums += torch.stack([loss.detach(), critic_loss.detach()])
    loss_sum, critic_sum = (sums / config.updates).tolist()
    return loss_sum, critic_sum


def reachable_label(label: Tensor, mean: Tensor) -> Tensor:
    """Return the value nearest to `mean` that acts as `label` does: actions are clipped to [-1, 1].

    Example:
        >>> reachable_label(torch.tensor([0.5, 3.0, 3.0, -2.0]), torch.tensor([2.0, 0.0, 5.0, -1.5]))
        tensor([ 0.5000,  1.0000,  5.0000, -1.5000])
    """
    clipped = label.clamp(-1, 1)
    above, below = mean.clamp(min=1), mean.clamp(max=-1)
    return torch.where(label >= 1, above, torch.where(label <= -1, below, clipped))


def _value(student: MLPExpert, observations: Tensor) -> Tensor:
    """The critic's output, in units of scaled rewards; 0 where there is none."""
    if student.critic is None:
        return torch.zeros(len(observations), device=observations.device)
    value: Tensor = student.critic(observations)[:, 0]
    return value

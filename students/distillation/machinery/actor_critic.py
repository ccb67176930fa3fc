"""PPO of students that see, the base of all methods that learn from rewards.

The update is ours, not rsl_rl's or SB3's, as these methods need parts that neither takes: a term of imitation
in the loss, a critic that is foreign or frozen, stacks and memory together, and pictures that are kept once,
as bytes. Tests compare the loss with rsl_rl's on the same batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from tutelage.students.distillation.machinery.frames import FrameBuffer
from tutelage.students.distillation.machinery.method import DistillationMethod, MethodConfig
from tutelage.students.ppo.formulas import PPOConfig, Terms, adapted_rate, gae, log_prob, ppo_terms
from tutelage.students.torch_tools.threads import torch_threads
from tutelage.students.vision.student_state import StudentOutput, StudentState
from tutelage.students.vision.vision_config import STUDENT_VIEW
from tutelage.teachers.experts.mlp_expert import Advice

if TYPE_CHECKING:
    from tutelage.envs.batched.task.vec_task import Observations, VecTask
    from tutelage.students.distillation.machinery.learner import LearningConfig
    from tutelage.students.vision.vision_student import VisionStudent
    from tutelage.teachers.experts.mlp_expert import Expert

GAMMA = 0.99  # where neither the settings nor an expert say


Trajectories = dict[str, Tensor]
"""``T`` steps of ``n`` environments, beside their views: fields of shape ``(T, n, ...)``.

``actions`` as drawn, before clipping; ``means`` and ``stds`` of what they were drawn from; ``log_probs``;
``values`` of the states; ``next_values``, of the states that followed, the last ones of episodes included, 0
where an episode was terminated; ``rewards``; ``ended``, whether an episode ended with this step; ``judged``,
what a critic of a vector saw; ``expert/mean``, ``expert/std`` and ``expert/value``, what an expert said
in every step.
"""


class ActorCriticConfig(MethodConfig, Protocol):
    """Settings that every method with a reward has."""

    @property
    def ppo(self) -> PPOConfig:
        """Settings of PPO."""
        ...


class ActorCritic(DistillationMethod):
    """PPO of a student, in rounds: `rollout_steps` of all environments, `epochs` over them.

    Methods are made of it by overriding `advise` (asking an expert about each state), `added_losses` (a term
    beside PPO's) or `update_normalizers` (of the critic). Episodes cut off by the time limit go on in value:
    the critic judges ``extras["terminal_obs"]``. Augmentation, where `learning` has
    one, is of what the student sees when it acts (RAD, Laskin et al. 2020): what PPO compares is then one
    policy in two states of learning, on the same pictures. `learning.batch_size` frames make a minibatch; of
    students with memory, whole roll-outs of as many environments, from the memory that they had.

    Args:
        task, expert, student, config, seed: as of `DistillationMethod`.

    Attributes:
        diagnostics: of the last round.

    Logged metrics: those of `DistillationMethod` (``action_error`` where an expert is asked), and means over
    the round's gradient steps:

    - ``diagnostics/surrogate``, PPO's clipped objective, negated; ``diagnostics/value``, the critic's squared
      error in units of its scale; ``diagnostics/entropy`` of the policy;
    - ``diagnostics/kl``, KL(old policy || new policy); ``diagnostics/clipped``, share of clipped ratios;
    - ``diagnostics/std``, mean deviation of actions; ``diagnostics/explained_variance`` of returns by values.

    Raises:
        ValueError: also when the student has no critic, or no distribution of actions to draw from; or when
            pictures that it compares, in a stack or by memory, would be augmented.
    """

    def __init__(
        self,
        task: VecTask,
        expert: Expert | None,
        student: VisionStudent,
        config: ActorCriticConfig,
        seed: int,
    ) -> None:
        check_actor_critic(student)
        check_augmentation(student, config.learning)
        super().__init__(task, expert, student, config, seed)
        self.expert, self.ppo = expert, config.ppo
        self.gamma = discount(config.ppo, expert)
        self.diagnostics: dict[str, float] = {}
        # The frames of stacks that reach back before the roll-out are kept too.
        frames = task.num_envs * (config.ppo.rollout_steps + student.config.frames - 1)
        self.buffer = FrameBuffer(frames, task.num_envs, self.frame_fields(), task.device)
        if student.config.critic_view == STUDENT_VIEW:
            task.terminal_images = True

    # --- what methods change ---------------------------------------------------------------------------

    def advise(self, obs_dict: Observations) -> Advice | None:
        """Return an expert's answers about the states of a step; None without a question."""
        return None

    def added_losses(self, output: StudentOutput, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Return a term of the loss beside PPO's, of each sample, ``(...)``, weight included; None for none.

        Args:
            output: what the student answers.
            batch: fields of `Trajectories`, ``advantages`` (normalised), ``returns``, and what was seen.
        """
        return None

    def update_normalizers(self, judged: Tensor | None, returns: Tensor) -> None:
        """Let the critic's normalisers follow what it saw, ``(T, n, size)``, and the returns, ``(T, n)``.

        Args:
            judged: None where the critic sees what the student sees.
            returns: estimated, in the task's rewards.
        """
        assert self.student.critic is not None
        if judged is not None:
            self.student.critic.observe(judged.flatten(0, 1))
        self.student.critic.follow(returns)

    # --- a round ---------------------------------------------------------------------------------------

    def round(self) -> float:
        """Roll out, then learn from the roll-out."""
        with self.counts.clock("rollout"), torch_threads(1):
            memory = self.rolling.state.memory
            trajectories = self.roll_out()
        # Threads work at shards alone: sums that torch cuts up depend on how many there are.
        with self.counts.clock("learning"), torch_threads(1):
            if self.ppo.desired_kl is None:
                self.learner.decay(self.counts.spent)
            self.learn(trajectories, memory)
        return 0.0

    @torch.no_grad()
    def roll_out(self) -> Trajectories:
        """Take `rollout_steps` steps of all environments; the views go to `buffer`."""
        rolling, student = self.rolling, self.student
        critic_view, steps = student.config.critic_view, []
        for _ in range(self.ppo.rollout_steps):
            shown = self._shown(rolling.obs_dict)
            state = rolling.state.push(shown)
            output: StudentOutput = student({**shown, **state.frames}, state)
            assert output.std is not None
            assert output.value is not None
            noise = torch.randn(output.mean.shape, generator=self.generator, device=output.mean.device)
            actions = output.mean + output.std * noise
            advice = self.advise(rolling.obs_dict)
            self.buffer.add(shown, rolling.started)
            step = {
                "actions": actions,
                "means": output.mean,
                "stds": output.std,
                "log_probs": log_prob(actions, output.mean, output.std),
                "values": output.value,
            }
            if critic_view in shown:
                step["judged"] = shown[critic_view]

            rolling.obs_dict, rewards, dones, extras = self.task.step(actions)
            ended, time_outs = dones.bool(), extras["time_outs"]
            last = torch.zeros_like(rewards)  # value of the last state of episodes that were cut off
            if critic_view != STUDENT_VIEW or bool(time_outs.any()):
                last = self.judge(extras["terminal_obs"], output.state) * time_outs
            rolling.started, rolling.state = ended, output.state.reset(ended)
            errors = None
            if advice is not None:
                errors = (output.mean.clamp(-1, 1) - advice.mean.clamp(-1, 1)).abs()
                step |= {f"expert/{k}": v for k, v in advice._asdict().items() if v is not None}
            self.counts.add_step(ended, extras["success"], errors)
            steps.append({**step, "rewards": rewards, "ended": ended, "next_values": last})
        # Of several experts, those that are asked in a step may all have values, and in the next not.
        names = [name for name in steps[0] if all(name in step for step in steps)]
        trajectories = {name: torch.stack([step[name] for step in steps]) for name in names}
        after = torch.cat([trajectories["values"][1:], self.judge(rolling.obs_dict, rolling.state)[None]])
        trajectories["next_values"] = torch.where(trajectories["ended"], trajectories["next_values"], after)
        return trajectories

    def judge(self, obs_dict: Observations, state: StudentState) -> Tensor:
        """Return the critic's values of the views after a step, ``(n,)``; `state` stays as it is."""
        view, critic = self.student.config.critic_view, self.student.critic
        assert view is not None
        assert critic is not None
        if view != STUDENT_VIEW:
            values: Tensor = critic(obs_dict[view])
            return values
        shown = self._shown(obs_dict)
        state = state.push(shown)
        output: StudentOutput = self.student({**shown, **state.frames}, state)
        assert output.value is not None
        return output.value

    def learn(self, trajectories: Trajectories, memory: Tensor) -> None:
        """Go `epochs` times over a roll-out, a gradient step for each minibatch.

        Args:
            trajectories: see `roll_out`.
            memory: of the students before its first step.
        """
        values = trajectories["values"]
        advantages = gae(
            trajectories["rewards"],
            values,
            trajectories["next_values"],
            trajectories["ended"],
            self.gamma,
            self.ppo.lam,
        )
        returns = values + advantages
        self.update_normalizers(trajectories.get("judged"), returns)
        normal = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        data = {**trajectories, "advantages": normal, "returns": returns}
        terms_of_steps: list[Terms] = []
        for _ in range(self.ppo.epochs):
            for step, env in self._minibatches(*values.shape):
                terms_of_steps.append(self._gradient_step(data, memory, step, env))
        means = torch.stack([torch.stack(terms) for terms in terms_of_steps]).mean(0)
        explained = 1 - advantages.var() / returns.var().clamp(min=1e-12)
        numbers = [*means, trajectories["stds"].mean(), explained]
        names = (*Terms._fields, "std", "explained_variance")
        self.diagnostics = dict(zip(names, torch.stack(numbers).tolist(), strict=True))

    def losses(self, output: StudentOutput, batch: Mapping[str, Tensor]) -> tuple[Tensor, Terms]:
        """Return the loss of each sample, ``(...)``, and PPO's parts of it.

        ``L = L_clip + value_loss L_value - entropy H + what a method adds``
        """
        ppo, critic = self.ppo, self.student.critic
        assert critic is not None
        terms = ppo_terms(output, batch, ppo, critic.value_scale)
        losses = terms.surrogate + ppo.value_loss * terms.value - ppo.entropy * terms.entropy
        added = self.added_losses(output, batch)
        return losses if added is None else losses + added, terms

    # --- inner works -----------------------------------------------------------------------------------

    def _minibatches(self, length: int, n: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Steps and environments of minibatches, in random order; sequences for students with memory."""
        device, recurrent = self.task.device, self.learner.recurrent
        count = max(1, round(length * n / self.learner.config.batch_size))
        order = torch.randperm(n if recurrent else length * n, generator=self.generator, device=device)
        for part in order.tensor_split(min(count, len(order))):
            if recurrent:
                steps = torch.arange(length, device=device)[:, None].expand(-1, len(part))
                yield steps, part.expand(length, -1)
            else:
                yield part // n, part % n

    def _gradient_step(self, data: Mapping[str, Tensor], memory: Tensor, step: Tensor, env: Tensor) -> Terms:
        """Follow the gradient of the mean loss of a minibatch; return the sums of its terms."""
        config, frames = self.learner.config, step.numel()
        shards = min(math.ceil(frames / config.shard_size), step.shape[-1])
        if step.device.type == "cuda":
            shards = 1
        parts = zip(step.tensor_split(shards, -1), env.tensor_split(shards, -1), strict=True)
        sums: list[Terms | None] = [None] * shards  # in the order of the shards, not of their ends
        work = [partial(self._shard, data, memory, *part, sums, k) for k, part in enumerate(parts)]
        loss = self.learner.gradients(work)
        columns = zip(*filter(None, sums), strict=True)
        terms = Terms(*(torch.stack(column).sum() / frames for column in columns))
        if self.ppo.desired_kl is not None:
            rate = adapted_rate(self.learner.learning_rate, float(terms.kl), self.ppo.desired_kl)
            for group in self.learner.optimizer.param_groups:
                group["lr"] = rate
        self.learner.descend()
        self.counts.add_update(loss, frames)
        return terms

    def _shard(
        self,
        data: Mapping[str, Tensor],
        memory: Tensor,
        step: Tensor,
        env: Tensor,
        sums: list[Terms | None],
        k: int,
        student: VisionStudent,
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses of a part of a minibatch, and how many; sums of its terms become ``sums[k]``."""
        learner, first = self.learner, self.buffer.size - self.ppo.rollout_steps
        seen = self.buffer.gather(step + first, env, learner.stacks, age=True)
        batch = {**seen, **{name: values[step, env] for name, values in data.items()}}
        inputs = {name: batch[name] for name in learner.inputs}
        which = env[0] if learner.recurrent else env
        state = StudentState({}, memory[which], torch.zeros_like(which, dtype=torch.bool))
        if learner.recurrent:
            output = student.forward_sequence(inputs, state, batch["age"] == 0)
        else:
            output = student(inputs, state)
        losses, terms = self.losses(output, batch)
        sums[k] = Terms(*(values.detach().sum() for values in terms))
        return losses.sum(), losses.new_tensor(losses.numel())

    def frame_fields(self) -> dict[str, Tensor]:
        """Return example fields of a step for the ring: the views of student and critic."""
        return {name: self.rolling.obs_dict[name] for name in self.learner.inputs}

    def _shown(self, obs_dict: Observations) -> Observations:
        """What the student sees: the same, with pictures augmented, each differently."""
        augment, student = self.learner.config.augmentation, self.student
        if augment is None:
            return obs_dict
        pictures = {name: augment(obs_dict[name], self.generator) for name in student.config.images}
        return {**obs_dict, **pictures}


def discount(ppo: PPOConfig, expert: object) -> float:
    """Return the discount of the settings, or else of the expert, or else 0.99."""
    if ppo.gamma is not None:
        return ppo.gamma
    gamma = getattr(expert, "gamma", None)
    return GAMMA if gamma is None else float(gamma)


def check_actor_critic(student: VisionStudent) -> None:
    """Check that a student can learn from rewards.

    Raises:
        ValueError: when it has no distribution of actions, or no critic.
    """
    check_head(student)
    if student.config.critic_view is None:
        raise ValueError(
            "reinforcement learning needs a critic: make the student with critic_view='privileged', or "
            "another vector of the task, or critic_view='student', what the student itself sees"
        )


def check_augmentation(student: VisionStudent, learning: LearningConfig) -> None:
    """Check that a student which acts on augmented pictures compares none of them.

    Raises:
        ValueError: when it does, in a stack or by memory.
    """
    if learning.augmentation is not None and (student.config.frames > 1 or student.config.memory):
        raise ValueError(
            "a student that acts on augmented pictures sees each one shifted differently, and so cannot "
            "tell how things move; use single frames and no memory, or no augmentation"
        )


def check_head(student: VisionStudent) -> None:
    """Check that a student has a distribution of actions.

    Raises:
        ValueError: when it has none.
    """
    if student.config.head != "gaussian":
        raise ValueError(
            "reinforcement learning draws actions from the student's distribution, and this student has "
            "none: make it with VisionConfig(head='gaussian')"
        )

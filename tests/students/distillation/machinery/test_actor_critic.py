"""PPO's machinery: formulas against numbers by hand and against rsl_rl, roll-outs, minibatches."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tutelage.students.distillation.asymmetric_ppo import AsymmetricPPO, AsymmetricPPOConfig
from tutelage.students.distillation.machinery.actor_critic import ActorCritic, check_actor_critic, discount
from tutelage.students.distillation.machinery.learner import LearningConfig
from tutelage.students.distillation.machinery.progress import Budget
from tutelage.students.ppo.formulas import PPOConfig, adapted_rate, gae, log_prob, ppo_terms
from tutelage.students.vision.student_state import StudentOutput
from tutelage.students.vision.vision_student import VisionConfig, VisionStudent

LEARNING = LearningConfig(batch_size=64, learning_rate=1e-3, threads=1)
CONFIG = AsymmetricPPOConfig(Budget(frames=100), LEARNING, PPOConfig(rollout_steps=8, epochs=2))
RL = {"head": "gaussian", "critic_view": "privileged"}


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers)[:, None]


# --- formulas --------------------------------------------------------------------------------------------


def test_gae_of_three_steps() -> None:
    """Step 2 ends by the time limit in the first environment, by termination in the second."""
    rewards = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    values = torch.tensor([[10.0, 10.0], [20.0, 20.0], [30.0, 30.0]])
    next_values = torch.tensor([[20.0, 20.0], [7.0, 0.0], [40.0, 40.0]])
    ended = torch.tensor([[False, False], [True, True], [False, False]])
    found = gae(rewards, values, next_values, ended, gamma=0.9, lam=0.5)
    last = 3 + 0.9 * 40 - 30
    limit, stop = 2 + 0.9 * 7 - 20, 2 - 20  # nothing of the next episode, which is worth 30
    first = 1 + 0.9 * 20 - 10
    wanted = [[first + 0.45 * limit, first + 0.45 * stop], [limit, stop], [last, last]]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_terms_by_hand() -> None:
    """Ratios 1.5 and 0.5 with advantages 2 and -2; clipping is at 1 -+ 0.2."""
    mean, std = torch.zeros(4, 1), torch.ones(4, 1)
    log_density = -0.5 - 0.5 * math.log(2 * math.pi)
    old = log_density - torch.tensor([1.5, 1.5, 0.5, 0.5]).log()
    batch = {
        "actions": torch.ones(4, 1),
        "log_probs": old,
        "means": torch.full((4, 1), 0.5),
        "stds": std,
        "advantages": torch.tensor([2.0, -2.0, 2.0, -2.0]),
        "values": torch.tensor([0.0, 0.0, 2.0, 2.0]),
        "returns": torch.tensor([1.0, 1.0, 1.0, 1.0]),
    }
    value = torch.tensor([3.0, 1.0, 1.0, 2.5])
    output = StudentOutput(mean, std, value, None)  # type: ignore[arg-type]
    terms = ppo_terms(output, batch, PPOConfig(), torch.tensor(2.0))
    torch.testing.assert_close(terms.surrogate, torch.tensor([-1.2 * 2, 1.5 * 2, -0.5 * 2, 0.8 * 2]))
    torch.testing.assert_close(terms.value, torch.tensor([1.0, 0.0, 0.0, 0.75**2]))
    torch.testing.assert_close(terms.kl, torch.full((4,), 0.5**2 / 2))
    torch.testing.assert_close(terms.entropy, torch.full((4,), 0.5 + 0.5 * math.log(2 * math.pi)))
    assert terms.clipped.tolist() == [1, 1, 1, 1]
    # In units of 2, returns are 0.5, old values 0 or 1, and may move by 0.2 at most: to 0.2 or 0.8.
    clipped = ppo_terms(output, batch, PPOConfig(clip_values=True), torch.tensor(2.0))
    torch.testing.assert_close(clipped.value, torch.tensor([1.0, 0.3**2, 0.3**2, 0.75**2]))
    # KL(N(0.5, 2) || N(0, 1)) = ln(1 / 2) + (4 + 0.25) / 2 - 1 / 2; the other way it would be 0.35
    wider = ppo_terms(output, {**batch, "stds": 2 * std}, PPOConfig(), torch.tensor(2.0))
    torch.testing.assert_close(wider.kl, torch.full((4,), -math.log(2) + 4.25 / 2 - 0.5))
    limited = ppo_terms(output, batch, PPOConfig(ratio_limit=1.4), torch.tensor(2.0))
    torch.testing.assert_close(limited.surrogate, torch.tensor([-1.2 * 2, 1.4 * 2, -0.5 * 2, 0.8 * 2]))


def test_rate_follows_the_divergence() -> None:
    assert adapted_rate(3e-3, kl=0.021, desired=0.01) == pytest.approx(2e-3)
    assert adapted_rate(2e-3, kl=0.0049, desired=0.01) == pytest.approx(3e-3)
    assert adapted_rate(2e-3, kl=0.01, desired=0.01) == 2e-3
    assert adapted_rate(2e-3, kl=0.0, desired=0.01) == 2e-3
    assert adapted_rate(1.2e-5, kl=1.0, desired=0.01) == 1e-5
    assert adapted_rate(9e-3, kl=1e-9, desired=0.01) == 1e-2


def test_discount() -> None:
    expert = type("Expert", (), {"gamma": 0.95})()
    assert discount(PPOConfig(gamma=0.9), expert) == 0.9
    assert discount(PPOConfig(), expert) == 0.95
    assert discount(PPOConfig(), None) == 0.99


@pytest.mark.parametrize("clip_values", [False, True])
def test_loss_and_gradient_are_those_of_rsl_rl(clip_values: bool) -> None:
    pytest.importorskip("rsl_rl")
    from rsl_rl.algorithms import PPO
    from rsl_rl.models import MLPModel
    from rsl_rl.storage import RolloutStorage
    from tensordict import TensorDict

    length, n, gamma, lam = 5, 16, 0.9, 0.8
    generator = torch.Generator().manual_seed(0)

    def observe() -> Any:
        return TensorDict({"o": torch.randn(n, 3, generator=generator)}, [n])

    groups = {"actor": ["o"], "critic": ["o"]}
    gaussian = {"class_name": "GaussianDistribution", "init_std": 0.7}
    checks = torch.distributions.Distribution._validate_args
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        actor = MLPModel(observe(), groups, "actor", 2, [8], distribution_cfg=gaussian)
        critic = MLPModel(observe(), groups, "critic", 1, [8])
        storage = RolloutStorage("rl", n, length, observe(), [2], "cpu")
        ppo = PPO(
            *(actor, critic, storage),
            **{"num_learning_epochs": 1, "num_mini_batches": 1, "gamma": gamma, "lam": lam},
            **{"value_loss_coef": 0.7, "entropy_coef": 0.03, "schedule": "fixed", "max_grad_norm": 1e9},
            use_clipped_value_loss=clip_values,
        )
        observation, ends = observe(), []
        for _ in range(length):
            ppo.act(observation)
            observation, rewards = observe(), torch.randn(n, generator=generator)
            ends.append(torch.rand(n, generator=generator) < 0.2)
            ppo.process_env_step(observation, rewards, ends[-1].long(), {})
        ppo.compute_returns(observation)
        last_value = critic(observation).detach()[:, 0]
        with torch.no_grad():  # as if some updates had been made: ratios are not 1
            for parameter in (*actor.parameters(), *critic.parameters()):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        kept = {
            name: getattr(storage, name).clone()
            for name in ("actions", "values", "rewards", "returns", "advantages", "actions_log_prob")
        }
        means, stds = (part.clone() for part in storage.distribution_params)
        seen = storage.observations.clone()

        # ours, before rsl_rl's update changes the networks
        values, ended = kept["values"][..., 0], torch.stack(ends)
        next_values = torch.where(ended, 0.0, torch.cat([values[1:], last_value[None]]))
        advantages = gae(kept["rewards"][..., 0], values, next_values, ended, gamma, lam)
        torch.testing.assert_close(values + advantages, kept["returns"][..., 0])
        batch = {
            **{"actions": kept["actions"], "means": means, "stds": stds, "values": values},
            "log_probs": kept["actions_log_prob"][..., 0],
            "advantages": (advantages - advantages.mean()) / (advantages.std() + 1e-8),
            "returns": values + advantages,
        }
        flat = {name: tensor.flatten(0, 1) for name, tensor in batch.items()}
        actor(seen.flatten(0, 1), stochastic_output=True)
        mean, std = actor.output_distribution_params
        output = StudentOutput(mean, std, critic(seen.flatten(0, 1))[:, 0], None)  # type: ignore[arg-type]
        terms = ppo_terms(output, flat, PPOConfig(clip_values=clip_values), torch.ones(()))
        (terms.surrogate + 0.7 * terms.value - 0.03 * terms.entropy).mean().backward()
        networks = (*actor.parameters(), *critic.parameters())
        gradients = [parameter.grad.clone() for parameter in networks if parameter.grad is not None]
        theirs = ppo.update()
    torch.distributions.Distribution.set_default_validate_args(checks)
    assert 0 < float(terms.clipped.mean()) < 1
    for name in ("surrogate", "value", "entropy"):
        assert theirs[name] == pytest.approx(getattr(terms, name).mean().item(), rel=1e-5)
    assert len(gradients) == len(networks)
    for ours, parameter in zip(gradients, networks, strict=True):
        torch.testing.assert_close(ours, parameter.grad, atol=1e-6, rtol=1e-4)


# --- roll-outs -------------------------------------------------------------------------------------------


def made(slider: Any, new_student: Any, n: int = 8, config: Any = CONFIG, **student: Any) -> AsymmetricPPO:
    task = slider(num_envs=n)
    return AsymmetricPPO(task, None, new_student(task, **{**RL, **student}), config, seed=3)


def test_roll_out_bootstraps_from_the_last_states(slider: Any, new_student: Any) -> None:
    """Episodes of 6 steps end by the time limit: the value is that of the state before the reset."""
    method = made(slider, new_student, init_std=1.0)
    critic = method.student.critic
    assert critic is not None
    critic.value_mean.fill_(5.0)
    found = method.roll_out()
    again = slider(num_envs=8)
    shown = again.reset()
    for t, actions in enumerate(found["actions"]):
        with torch.no_grad():
            torch.testing.assert_close(found["values"][t], critic(shown["privileged"]))
        shown, rewards, dones, extras = again.step(actions)
        assert torch.equal(found["rewards"][t], rewards)
        assert torch.equal(found["ended"][t], dones.bool())
        assert bool(dones.all()) == (t == 5)
        last = extras["terminal_obs"] if t == 5 else shown
        with torch.no_grad():
            torch.testing.assert_close(found["next_values"][t], critic(last["privileged"]))
    assert not torch.allclose(found["next_values"][5], found["values"][6])
    assert (found["actions"].abs() > 1).any()  # as drawn


def test_a_termination_is_worth_nothing(slider: Any, new_student: Any) -> None:
    method = made(slider, new_student)
    task, outcomes = method.task, type(method.task).compute_outcomes
    halted = torch.arange(8) < 3
    task.compute_outcomes = lambda: (halted & (task.progress_buf == 4), outcomes(task)[1])  # type: ignore[method-assign]
    found = method.roll_out()
    assert torch.equal(found["ended"][3], halted)
    assert torch.equal(found["next_values"][3] == 0, halted)
    assert torch.equal(found["ended"][5], ~halted)
    assert (found["next_values"][5] != 0).all()


@pytest.mark.parametrize(
    "student",
    [
        {},
        {"frames": 3},
        {"memory": 8},
        {"memory": 8, "frames": 2, "critic_view": "student"},
        {"critic_view": "student", "vector": None},
    ],
)
def test_learning_meets_what_was_seen(student: dict[str, Any], slider: Any, new_student: Any) -> None:
    """Before a gradient step, probabilities and values of a minibatch are those of the roll-out."""
    differences: list[Tensor] = []

    class Watched(AsymmetricPPO):
        def added_losses(self, output: StudentOutput, batch: Any) -> Tensor | None:
            assert output.std is not None
            assert output.value is not None
            now = log_prob(batch["actions"], output.mean, output.std)
            differences.append((now - batch["log_probs"]).abs().max().detach())
            differences.append((output.value - batch["values"]).abs().max().detach())
            return None

        def update_normalizers(self, judged: Tensor | None, returns: Tensor) -> None:
            pass

    task = slider(num_envs=8)
    new = new_student(task, **{**RL, "precision": "float32", **student})
    still = replace(LEARNING, learning_rate=1e-30, batch_size=16, shard_size=8)
    method = Watched(task, None, new, replace(CONFIG, learning=still), seed=0)
    for _ in range(3):  # roll-outs of 8 steps begin within episodes of 6
        method.round()
    assert len(differences) == 3 * 2 * 4 * 2 * 2  # rounds, epochs, minibatches, shards, numbers
    assert torch.stack(differences).max() < 1e-5
    assert method.diagnostics["kl"] < 1e-9
    assert method.diagnostics["clipped"] == 0


def test_all_shards_have_the_normalisers(slider: Any, new_student: Any) -> None:
    """They follow from round to round, and replicas of the student, which work at shards, follow too."""
    differences: list[Tensor] = []

    class Watched(AsymmetricPPO):
        def added_losses(self, output: StudentOutput, batch: Any) -> Tensor | None:
            assert self.student.critic is not None
            assert output.value is not None
            differences.append((output.value - self.student.critic(batch["judged"])).abs().max().detach())
            return None

    task, still = slider(num_envs=8), replace(LEARNING, learning_rate=1e-30, shard_size=16)
    method = Watched(task, None, new_student(task, **RL), replace(CONFIG, learning=still), seed=0)
    for _ in range(3):
        method.round()
    assert len(differences) == 3 * 2 * 4  # rounds, epochs, shards
    assert torch.stack(differences).max() < 1e-5
    critic = method.student.critic
    assert critic is not None
    assert float(critic.value_scale) != 1
    assert int(critic.seen) == 3 * 8 * 8


def test_critic_of_the_student_judges_last_pictures(slider: Any, new_student: Any) -> None:
    """The value of an episode's last state is of its own pictures, behind those before it."""
    method = made(slider, new_student, critic_view="student", frames=2, precision="float32", vector=None)
    assert method.task.terminal_images
    found = method.roll_out()
    again, student = slider(num_envs=8), method.student
    shown, state = again.reset(), student.start(8)
    for actions in found["actions"][:6]:
        state = state.push(shown)
        shown, _, _, extras = again.step(actions)
    last = state.push(extras["terminal_obs"])
    with torch.no_grad():
        value = student({**extras["terminal_obs"], **last.frames}, last).value
        fresh = student({**shown, **last.frames}, last).value
    torch.testing.assert_close(found["next_values"][5], value)
    assert fresh is not None


def test_loss_of_a_minibatch(slider: Any, new_student: Any) -> None:
    """Weights and signs of PPO's terms; advantages are normalised over the whole roll-out."""
    found: list[Tensor] = []

    class Watched(AsymmetricPPO):
        def losses(self, output: StudentOutput, batch: Any) -> Any:
            assert self.student.critic is not None
            losses, terms = super().losses(output, batch)
            plain = ppo_terms(output, batch, self.ppo, self.student.critic.value_scale)
            wanted = plain.surrogate + 0.7 * plain.value - 0.3 * plain.entropy
            torch.testing.assert_close(losses, wanted)
            found.append(batch["advantages"])
            return losses, terms

    task, ppo = slider(num_envs=8), replace(CONFIG.ppo, epochs=1, value_loss=0.7, entropy=0.3)
    method = Watched(task, None, new_student(task, **RL), replace(CONFIG, ppo=ppo), seed=0)
    method.round()
    advantages = torch.cat(found)
    assert len(advantages) == 8 * 8
    assert float(advantages.mean()) == pytest.approx(0, abs=1e-5)
    assert float(advantages.std()) == pytest.approx(1, abs=1e-4)


def test_the_rate_of_rounds_follows_the_divergence(slider: Any, new_student: Any) -> None:
    """Two epochs of one minibatch: before the first step nothing differs, before the second too much."""
    ppo = replace(CONFIG.ppo, desired_kl=1e-9)
    method = made(slider, new_student, config=replace(CONFIG, ppo=ppo))
    rates = []
    for _ in range(2):
        method.round()
        rates.append(method.learner.learning_rate)
    assert rates == pytest.approx([1e-3 / 1.5, 1e-3 / 1.5**2])


def test_the_rate_of_rounds_falls_with_the_budget(slider: Any, new_student: Any) -> None:
    """To 5 %; it is set after each roll-out, of a quarter of the budget."""
    config = replace(CONFIG, budget=Budget(frames=4 * 64), ppo=replace(CONFIG.ppo, epochs=1))
    method, rates = made(slider, new_student, config=config), []
    method.run(lambda progress: rates.append(progress.learning_rate))
    assert rates == pytest.approx([1e-3 * (1 - 0.95 * part / 4) for part in range(1, 5)])


def test_only_shards_are_worked_at_by_several_threads(slider: Any, new_student: Any) -> None:
    """Torch's own sums of many numbers depend on its threads, and results must not."""
    found: list[int] = []

    class Watched(AsymmetricPPO):
        def update_normalizers(self, judged: Tensor | None, returns: Tensor) -> None:
            found.append(torch.get_num_threads())

    task, learning = slider(num_envs=8), replace(LEARNING, threads=2)
    Watched(task, None, new_student(task, **RL), replace(CONFIG, learning=learning), seed=0).round()
    assert found == [1]


def test_explained_variance(slider: Any, new_student: Any) -> None:
    """1 where values are the returns, 0 where they say the same of every state."""
    for right, explained in ((True, 1.0), (False, 0.0)):
        method = made(slider, new_student, config=replace(CONFIG, ppo=replace(CONFIG.ppo, gamma=0.0)))
        memory = method.rolling.state.memory
        found = method.roll_out()
        values = found["rewards"] if right else torch.full_like(found["rewards"], 3.0)
        method.learn({**found, "values": values.clone()}, memory)
        assert method.diagnostics["explained_variance"] == pytest.approx(explained, abs=1e-5)


# --- the whole -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("student", [{}, {"memory": 4}, {"frames": 2, "critic_view": "student"}])
def test_same_seed_same_student(student: dict[str, Any], slider: Any, new_student: Any) -> None:
    """Whatever number of threads; and no global random state is touched."""
    before, weights = torch.get_rng_state(), []
    for seed, threads in ((0, 1), (0, 2), (1, 1)):
        task = slider(num_envs=8)
        new = new_student(task, **{**RL, **student})
        learning = replace(LEARNING, threads=threads, shard_size=8)
        config = replace(CONFIG, learning=learning, ppo=replace(CONFIG.ppo, desired_kl=0.01))
        method = AsymmetricPPO(task, None, new, config, seed)
        result = method.run()
        assert result.frames == 128  # two rounds
        assert result.queries == 0
        assert all(math.isfinite(number) for number in method.diagnostics.values())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in new.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(before, torch.get_rng_state())


def test_pictures_are_augmented_once(slider: Any, new_student: Any) -> None:
    """The student acts on, and learns from, the same augmented pictures; the critic's view stays."""
    from tutelage.envs.batched.looks.image_augmentation import ImageAugmentation

    learning = replace(LEARNING, augmentation=ImageAugmentation(noise=60.0))
    method = made(slider, new_student, config=replace(CONFIG, learning=learning))
    plain = method.rolling.obs_dict["front/rgb"].clone()
    judged = method.rolling.obs_dict["privileged"].clone()
    method.roll_out()
    kept = method.buffer.gather(torch.zeros(8, dtype=torch.int64), torch.arange(8))
    assert not torch.equal(kept["front/rgb"], plain)
    assert torch.equal(kept["privileged"], judged)
    for kind in ({"frames": 2}, {"memory": 4}):
        with pytest.raises(ValueError, match="cannot tell how things move"):
            made(slider, new_student, config=replace(CONFIG, learning=learning), **kind)


def test_what_cannot_learn_from_rewards(slider: Any, new_student: Any) -> None:
    task = slider(num_envs=2)
    with pytest.raises(ValueError, match="head='gaussian'"):
        check_actor_critic(new_student(task, critic_view="privileged"))
    with pytest.raises(ValueError, match=r"needs a critic: .*critic_view='privileged'"):
        check_actor_critic(new_student(task, head="gaussian"))
    shapes = {"front/rgb": (32, 32, 3), "policy": (1,), "privilege": (2,)}
    other = VisionStudent(VisionConfig(head="gaussian", critic_view="privilege"), shapes, 1)
    with pytest.raises(ValueError, match=r"Slider does not show: .*did you mean 'privileged'"):
        AsymmetricPPO(task, None, other, CONFIG, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rollout_steps": 0},
        {"epochs": 0},
        {"gamma": 1.1},
        {"lam": -0.1},
        {"clip": 0.0},
        {"desired_kl": 0.0},
        {"ratio_limit": 1.1},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PPOConfig(**wrong)


def test_a_method_adds_a_term(slider: Any, new_student: Any) -> None:
    """Here one that pulls all actions to 0.5, stronger than any reward."""

    class Pulled(ActorCritic):
        def added_losses(self, output: StudentOutput, batch: Any) -> Tensor:
            return 100 * (output.mean - 0.5).square().sum(-1)

    task = slider(num_envs=16)
    config = replace(CONFIG, budget=Budget(frames=10_000))
    method = Pulled(task, None, new_student(task, **RL), config, 0)
    assert (method.roll_out()["means"] - 0.5).abs().mean() > 0.4
    for _ in range(20):
        method.round()
    assert (method.roll_out()["means"] - 0.5).abs().mean() < 0.1

"""Scores of episodes at the end of an SB3 student's roll-outs, for task teachers that want them.

Values and advantages exist only in the student, and only between a roll-out and the update that follows.
`RolloutScores` stands there, cuts the roll-out into episodes by the ids of their proposals, and hands over
the scores of those that ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from tutelage.envs.contract.episodes import episode_success
from tutelage.envs.contract.state import StateDict
from tutelage.students.sb3.training_mask import taught_layer
from tutelage.teachers.replay.episode_scores import EpisodeScores
from tutelage.teachers.replay.regret_scores import td_errors


class RolloutScores(BaseCallback):
    """Calls `score` at the end of every roll-out in which an episode ended, before the student's update.

    ::

        scores = RolloutScores(model, task_teacher.score)
        model.learn(100_000, callback=[scores, ...])

    Names and meanings of the scores are those of `EpisodeScores`. All are in units of the task's return:

    - Returns are sums of the rewards as the task gives them. SB3 adds the value of the terminal observation
      to the last reward where a time limit cut an episode off; the advantage keeps that, the return does not.
    - Under `VecNormalize`, values and advantages are multiplied by the scale that rewards were divided by,
      each step's by the scale of its time: that undoes the division of its reward exactly, and what an
      earlier roll-out brought stays as it is. The scale moves little within a roll-out, apart from the
      first ones. Rewards that were clipped are clipped in advantages, not in returns.

    Save it with the student: what running episodes have brought so far decides their scores.

    Args:
        model: PPO, RecurrentPPO, A2C or another on-policy algorithm, over a taught environment.
        score: takes ids ``(n,)`` and named scores ``(n,)``, as `Scores.score` does.
        score_pieces: score pieces of unfinished episodes too, see `EpisodeScores`.

    Raises:
        TypeError: when `model` has no roll-outs.
        ValueError: when its environments do not say which proposal runs.
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        score: Callable[[NDArray[np.int64], dict[str, NDArray[np.float64]]], None],
        score_pieces: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(model, OnPolicyAlgorithm):
            raise TypeError(
                f"{type(model).__name__} has no roll-outs to score; take an on-policy student, such as ppo"
            )
        self._taught = taught_layer(model.get_env(), "ids")
        if self._taught is None:
            raise ValueError("the student's environments have no `ids`; put a TaughtVecEnv around them")
        self._student = model
        self._normalizer = model.get_vec_normalize_env()
        self._score = score
        self._episodes = EpisodeScores(model.n_envs, score_pieces)
        self._running: NDArray[
            np.int64
        ]  # remembered: after a step, `ids` are those of the successors already
        self._steps: list[tuple[Any, ...]] = []  # of the present roll-out

    def state_dict(self) -> StateDict:
        """What the running episodes have brought so far; complete between two roll-outs."""
        return self._episodes.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`.

        Raises:
            StateError: when it is of another number of environments.
        """
        self._episodes.load_state_dict(state)

    def _on_rollout_start(self) -> None:
        self._running = self._taught.ids.copy()
        self._steps.clear()

    def _on_step(self) -> bool:
        normalizer = self._normalizer
        dones, infos = self.locals["dones"], self.locals["infos"]
        successes = np.full(len(dones), np.nan)
        for index in np.flatnonzero(dones):
            successes[index] = episode_success(infos[index])
        # SB3 adds to its rewards in place, after this call.
        rewards = self.locals["rewards"].copy() if normalizer is None else normalizer.get_original_reward()
        scale = 1.0
        if normalizer is not None and normalizer.norm_reward:
            scale = float(np.sqrt(normalizer.ret_rms.var + normalizer.epsilon))
        self._steps.append((self._running, np.array(dones, dtype=bool), rewards, successes, scale))
        self._running = self._taught.ids.copy()
        return True

    def _on_rollout_end(self) -> None:
        ids, dones, rewards, successes, scales = (np.array(part) for part in zip(*self._steps, strict=True))
        buffer, scale = self._student.rollout_buffer, scales[:, None]
        errors = td_errors(buffer.advantages, dones, buffer.gamma * buffer.gae_lambda)
        ended, scores = self._episodes.add_rollout(
            ids,
            dones,
            rewards,
            successes,
            values=buffer.values * scale,
            advantages=buffer.advantages * scale,
            errors=errors * scale,
        )
        if len(ended):
            self._score(ended, scores)

"""A stand-in for the taught environment: it counts episodes and says which of them train."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper


class CountedVecEnv(VecEnvWrapper):
    """`ids` and `trains` of the running episodes, which after a step are those of the successors.

    Args:
        venv: steps.
        trains: from ids and environments of new episodes, which of them train.

    Attributes:
        played: `trains` of the episodes that took each step, so far.
    """

    def __init__(self, venv: VecEnv, trains: Callable[[Any, Any], Any]) -> None:
        super().__init__(venv)
        self.played: list[Any] = []
        self._trains, self._following = trains, 0
        self.ids = np.zeros(self.num_envs, dtype=np.int64)
        self.trains = np.ones(self.num_envs, dtype=bool)

    def reset(self) -> Any:
        self._begin(np.arange(self.num_envs))
        return self.venv.reset()

    def step_wait(self) -> Any:
        self.played.append(self.trains.copy())
        observations, rewards, dones, infos = self.venv.step_wait()
        self._begin(np.flatnonzero(dones))
        return observations, rewards, dones, infos

    def _begin(self, environments: Any) -> None:
        self.ids[environments] = self._following + np.arange(len(environments))  # in place, as a trap
        self.trains[environments] = self._trains(self.ids[environments], environments)
        self._following += len(environments)


@pytest.fixture
def counted() -> Callable[..., CountedVecEnv]:
    """Makes the stand-in around a vector environment; by default, everything trains."""

    def make(venv: VecEnv, trains: Callable[[Any, Any], Any] = lambda ids, _: ids >= 0) -> CountedVecEnv:
        return CountedVecEnv(venv, trains)

    return make

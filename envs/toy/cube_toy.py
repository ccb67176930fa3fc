"""The cube toy: an analytic student on which task teachers are exercised in seconds, without deep learning.

The unit hypercube is cut into cubes, and the student has a competence in each. It learns in a cube only once
it masters a neighbour nearer to the corner, so a task teacher does well that finds the frontier and stays on
it. The toy and its score are those of Portelas et al. 2019 (appendix, "toy environment"); irrelevant
dimensions are theirs too, the other options are added so that each challenge of TeachMyAgent (Romac et al.
2021) has a counterpart that runs in seconds.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.episodes import Episodes
from tutelage.envs.contract.state import StateDict, StateError, rng_state, set_rng_state
from tutelage.envs.contract.tasks import BoxTasks, Tasks

MASTERED = 75
"""A cube is mastered when its competence, from 0 to 100, is above this; from this on it unlocks others."""


@dataclass(frozen=True)
class CubeToyConfig:
    """Settings of the cube toy.

    Attributes:
        dims: dimensions that matter, at least 1.
        cubes_per_side: cubes along each of them, at least 1.
        irrelevant_dims: further task parameters that change nothing.
        unlearnable: fraction of the first dimension, from its upper end, where nothing can be learnt and
            the return stays 0; in [0, 1).
        noise: standard deviation of the noise added to returns (which lie in [0, 1] without it).
        forget_at: numbers of episodes after which the student is reset to knowing nothing.
        shuffled: True scatters the cubes by one random permutation, so that neighbours in task space are no
            longer neighbours in difficulty.
    """

    dims: int = 2
    cubes_per_side: int = 10
    irrelevant_dims: int = 0
    unlearnable: float = 0.0
    noise: float = 0.0
    forget_at: tuple[int, ...] = ()
    shuffled: bool = False


CHALLENGES: Mapping[str, CubeToyConfig] = MappingProxyType(
    {
        "plain": CubeToyConfig(),
        "irrelevant-dimensions": CubeToyConfig(irrelevant_dims=3),
        "unlearnable": CubeToyConfig(unlearnable=0.6),
        "noise": CubeToyConfig(noise=0.1),
        "forgetting": CubeToyConfig(forget_at=(10_000,)),
        "shuffled": CubeToyConfig(shuffled=True),
    }
)
"""The plain toy and five challenges, by name."""


def cube_toy_config(challenge: str) -> CubeToyConfig:
    """Look up one of `CHALLENGES`.

    Raises:
        ValueError: when there is no such challenge; the nearest name is suggested.
    """
    if challenge not in CHALLENGES:
        near = difflib.get_close_matches(challenge, CHALLENGES, n=1, cutoff=0.0)
        raise ValueError(
            f"no cube-toy challenge {challenge!r}; did you mean {near[0]!r}? Known: {', '.join(CHALLENGES)}"
        )
    return CHALLENGES[challenge]


class CubeToy:
    """An analytic student on a grid of cubes (Portelas et al. 2019).

    Every cube has a competence, an integer from 0 to 100, at first 0. An episode at task p falls into the
    cube c of p's first `dims` parameters. If c is the corner cube, or if the competence of any of its
    2^dims - 1 lower neighbours (each index lowered by 0 or 1, not all by 0) is at least 75, c's competence
    rises by 1, at most to 100. The episode's return is the competence of c, after the rise, divided by 100,
    and its success tells whether c is mastered then. The score is the percentage of learnable cubes with
    competence above 75.

    Args:
        config: which toy; presets in `CHALLENGES`.
        rng: draws the permutation of a shuffled toy, then the noise.

    Attributes:
        task_space: the unit box of `dims` + `irrelevant_dims` parameters.
        easy_task: centre of the one cube that can be learnt at first, shape ``(task_space.dim,)``.
        competence: integers in task-space order, shape ``(cubes_per_side,) * dims``; a copy.
        episodes: number of episodes attempted so far.

    Example:
        >>> toy = CubeToy(CubeToyConfig(dims=1, cubes_per_side=2), np.random.default_rng(0))
        >>> toy.attempt(np.array([[0.2], [0.3], [0.9]])).returns
        array([0.01, 0.02, 0.  ])
        >>> for _ in range(74):
        ...     _ = toy.attempt(np.array([[0.2]]))
        >>> toy.attempt(np.array([[0.9]])).returns, toy.score()
        (array([0.01]), 50.0)
    """

    def __init__(self, config: CubeToyConfig, rng: np.random.Generator) -> None:
        if config.dims < 1 or config.cubes_per_side < 1 or config.irrelevant_dims < 0:
            raise ValueError(
                f"the cube toy needs dims, cubes_per_side >= 1 and irrelevant_dims >= 0; got {config}"
            )
        if not 0 <= config.unlearnable < 1 or config.noise < 0:
            raise ValueError(f"the cube toy needs unlearnable in [0, 1) and noise >= 0; got {config}")
        self.config = config
        self.rng = rng
        names = [f"cube_{i}" for i in range(config.dims)] + [
            f"irrelevant_{i}" for i in range(config.irrelevant_dims)
        ]
        self.task_space = BoxTasks(dict.fromkeys(names, (0.0, 1.0)))
        self.episodes = 0
        side, dims = config.cubes_per_side, config.dims
        self._strides = side ** np.arange(dims - 1, -1, -1)
        cubes = np.arange(side**dims)
        # Position in task space -> cube of the landscape, whose index 0 is the corner.
        self._cube_at = rng.permutation(cubes) if config.shuffled else cubes
        first_index = cubes // self._strides[0]
        feasible = max(1, round((1.0 - config.unlearnable) * side))
        self._learnable = first_index < feasible
        self._competence = [0] * len(cubes)
        self._lower: dict[int, list[int]] = {}

    @property
    def easy_task(self) -> NDArray[np.float64]:
        """Centre of the corner cube, wherever it lies; irrelevant parameters at 0.5."""
        position = int(np.flatnonzero(self._cube_at == 0)[0])
        index = position // self._strides % self.config.cubes_per_side
        return np.concatenate(
            [(index + 0.5) / self.config.cubes_per_side, np.full(self.config.irrelevant_dims, 0.5)]
        )

    @property
    def competence(self) -> NDArray[np.int64]:
        """Competences by position in task space."""
        shape = (self.config.cubes_per_side,) * self.config.dims
        return np.asarray(self._competence)[self._cube_at].reshape(shape)

    def score(self) -> float:
        """Percentage of the learnable cubes that are mastered."""
        mastered = np.asarray(self._competence) > MASTERED
        return float(100 * mastered.sum() / self._learnable.sum())

    def attempt(self, tasks: Tasks) -> Episodes:
        """Let the student attempt the tasks one after another, each learning from the one before.

        Args:
            tasks: shape ``(n, task_space.dim)``.

        Raises:
            TaskError: when a task lies outside the unit box.
        """
        batch = self.task_space.check(tasks, "attempted tasks")
        side = self.config.cubes_per_side
        index = np.minimum((batch[:, : self.config.dims] * side).astype(np.int64), side - 1)
        cubes = self._cube_at[index @ self._strides]
        competences = np.fromiter(map(self._practise, cubes.tolist()), dtype=np.float64, count=len(cubes))
        returns = competences / 100.0
        if self.config.noise:
            returns = returns + self.config.noise * self.rng.standard_normal(len(returns))
        return Episodes.of(batch, returns, successes=(competences > MASTERED).astype(np.float64))

    def _practise(self, cube: int) -> int:
        """One episode in `cube`: its competence afterwards."""
        competence = self._competence
        if self.episodes in self.config.forget_at:
            competence[:] = [0] * len(competence)
        self.episodes += 1
        if competence[cube] < 100 and self._learnable[cube] and self._unlocked(cube):
            competence[cube] += 1
        return competence[cube]

    def _unlocked(self, cube: int) -> bool:
        if cube not in self._lower:
            index = cube // self._strides % self.config.cubes_per_side
            lower = itertools.product(*[{i, max(0, i - 1)} for i in index.tolist()])
            self._lower[cube] = [c for c in (int(np.dot(i, self._strides)) for i in lower) if c != cube]
        return cube == 0 or any(self._competence[c] >= MASTERED for c in self._lower[cube])

    def state_dict(self) -> StateDict:
        """Competences, permutation, episode count and generator, by value."""
        return {
            "competence": np.asarray(self._competence, dtype=np.int64),
            "cube_at": self._cube_at.copy(),
            "episodes": self.episodes,
            "rng": rng_state(self.rng),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict` of a toy of the same config.

        Raises:
            StateError: when the state is of a toy with another number of cubes.
        """
        if np.shape(state.get("competence", ())) != (len(self._competence),):
            raise StateError(f"the state is not of a cube toy with {len(self._competence)} cubes")
        self._competence = state["competence"].tolist()
        self._cube_at = state["cube_at"].copy()
        self.episodes = state["episodes"]
        set_rng_state(self.rng, state["rng"])

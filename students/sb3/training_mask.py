"""Episodes that a student must not learn from (``trains=False``), left out of SB3's updates.

PPO, RecurrentPPO, A2C and TRPO get their minibatches from `rollout_buffer.get`, which is what is replaced
here, on the instance: rows of those episodes are in no minibatch, so neither the policy's loss nor the
critic's nor the entropy's sees them, and advantages are normalised without them. While everything trains,
numbers are those of plain SB3, to the last bit.

What still sees them: `num_timesteps`, which counts what was played; `VecNormalize`, whose statistics of
observations and rewards are over all episodes; the logged explained variance.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnvWrapper

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.vec_env import VecEnv


def taught_layer(venv: VecEnv | None, attribute: str) -> Any:
    """The outermost vector environment in a stack of wrappers that has `attribute` itself, or None."""
    while venv is not None:
        if attribute in vars(venv) or hasattr(type(venv), attribute):
            return venv
        venv = venv.venv if isinstance(venv, VecEnvWrapper) else None
    return None


def leave_out_untrained(model: BaseAlgorithm) -> None:
    """Let `model` learn from no episode whose proposal has ``trains=False``.

    Nothing happens where its environments do not say which episodes train. Off-policy algorithms keep all
    they meet in a replay buffer: they are stopped at the first episode that must not train.

    Raises:
        ValueError: at that time.
    """
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

    taught = taught_layer(model.get_env(), "trains")
    if taught is not None and isinstance(model, OnPolicyAlgorithm):
        TrainingMask(model, taught)
    elif taught is not None and isinstance(model, OffPolicyAlgorithm):
        _refuse_untrained(model, taught)


class TrainingMask:
    """Marks each row of an on-policy algorithm's roll-out, and hands out just those that train.

    An episode that crosses roll-outs keeps its mark. With fewer than two rows there is no update: the
    advantage of a single one cannot be normalised.

    Args:
        model: its `rollout_buffer` and `train` are replaced on the instance.
        taught: has `trains`, bool ``(num_envs,)``, of the running episodes.

    Attributes:
        trains: whether each row trains, bool ``(n_steps, num_envs)``.
    """

    def __init__(self, model: OnPolicyAlgorithm, taught: Any) -> None:
        self._buffer = buffer = model.rollout_buffer
        self._taught = taught
        self.trains: NDArray[np.bool_] = np.ones((buffer.buffer_size, buffer.n_envs), dtype=bool)
        self._running = self.trains[0].copy()  # after a step, `taught` speaks of the successors already
        self._sb3: dict[str, Any] = {
            "reset": buffer.reset,
            "add": buffer.add,
            "get": buffer.get,
            "train": model.train,
        }
        buffer.reset, buffer.add, buffer.get = self._reset, self._add, self._get  # type: ignore[method-assign]
        model.train = self._train  # type: ignore[method-assign]

    def _reset(self) -> None:
        self._running = self._taught.trains.copy()
        self._sb3["reset"]()

    def _add(self, *args: Any, **kwargs: Any) -> None:
        self.trains[self._buffer.pos] = self._running
        self._running = self._taught.trains.copy()
        self._sb3["add"](*args, **kwargs)

    def _get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        if self.trains.all():
            yield from self._sb3["get"](batch_size)
            return
        buffer: Any = self._buffer
        rows = np.flatnonzero(self.trains.T)  # the buffer is flattened one environment after the other
        if not buffer.generator_ready:
            next(self._sb3["get"](1))  # flattens it
        # SB3's own generator and ways to shuffle: a permutation, or, for sequences, a cut of the deck.
        extra: tuple[Any, ...] = ()
        if hasattr(buffer, "hidden_state_shape"):
            rows = np.roll(rows, -np.random.randint(len(rows)))  # noqa: NPY002
            extra = ((np.arange(self.trains.size) % buffer.buffer_size == 0)[:, None],)
        else:
            rows = rows[np.random.permutation(len(rows))]  # noqa: NPY002
        # Minibatches of nearly one size: a last one of a few rows would take a step as large as the others.
        for batch in np.array_split(rows, -(-len(rows) // (batch_size or len(rows)))):
            yield buffer._get_samples(batch, *extra)

    def _train(self) -> None:
        if np.count_nonzero(self.trains) >= 2:
            self._sb3["train"]()


def _refuse_untrained(model: OffPolicyAlgorithm, taught: Any) -> None:
    store = model._store_transition

    def checked(*args: Any, **kwargs: Any) -> None:
        if not taught.trains.all():
            raise ValueError(
                f"{type(model).__name__} learns from everything in its replay buffer and cannot leave out "
                "episodes proposed with trains=False; use a student such as ppo, or propose trains=True"
            )
        store(*args, **kwargs)

    model._store_transition = checked  # type: ignore[method-assign]

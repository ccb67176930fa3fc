"""Scores of whole episodes, from roll-outs that cut them anywhere.

A student's roll-out holds the ends of episodes that began before it, whole episodes, and beginnings of
others. `EpisodeScores` keeps what the beginnings brought, and gives each episode its scores at the end of
the roll-out in which it ended.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.envs.contract.state import StateDict, StateError
from tutelage.teachers.replay.regret_scores import gae_l1, max_mc, piece_means, piece_sums, pvl, td

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MEANS = ("gae_l1", "pvl", "td", "mean_value")  # these are kept as sums over steps


class EpisodeScores:
    """Accumulates roll-outs of any student, and scores the episodes that ended in each.

    Scores of an episode are over all its steps, with the advantages and values that its student had in the
    roll-outs in which they were made. They do not depend on the number of environments, and on where a
    roll-out ends only through the critic that advantages are bootstrapped with there. Names:

    - ``gae_l1``, ``pvl``, ``td``, ``max_mc``, ``mna``: see `tutelage.teachers.replay.regret_scores`.
      ``max_mc`` and ``mna`` know this one episode: its return is the best, its success says whether the
      level was solved. A task teacher that remembers levels has them from the others:
      ``max_mc(best_returns, mean_value)``, and ``solved * (gae_l1 - pvl) * steps``. ``mna`` is NaN where
      success is not defined.
    - ``mean_value``, ``initial_value``: the critic's values of the observations, on average and of the first.
    - ``return``: undiscounted, without any bootstrap at a time limit.
    - ``steps``: what the means are over.

    Learnability is missing: it takes several attempts at one level, which only a task teacher recognises.

    Args:
        num_envs: environments in a roll-out.
        score_pieces: score also the pieces of episodes that go on, at the end of each roll-out, each piece
            by itself, as level-replay does since an update makes earlier advantages stale. ``return``,
            ``max_mc`` and ``mna`` of pieces that no episode ends are NaN.
    """

    def __init__(self, num_envs: int, score_pieces: bool = False) -> None:
        self.score_pieces = score_pieces
        self._ids: Ints = np.full(num_envs, -1, dtype=np.int64)  # of the episodes that go on
        # Sums over their steps so far, and the first value.
        self._sums = {name: np.zeros(num_envs) for name in (*_MEANS, "steps", "return", "initial_value")}

    def add_rollout(
        self,
        ids: Ints,
        dones: NDArray[np.bool_],
        rewards: ArrayLike,
        successes: ArrayLike,
        values: ArrayLike,
        advantages: ArrayLike,
        errors: ArrayLike,
    ) -> tuple[Ints, dict[str, Floats]]:
        """Add a roll-out; all arrays have the shape ``(steps, num_envs)``.

        Episodes that were cut off between two roll-outs, by a reset, are forgotten.

        Args:
            ids: proposal of the episode that each step belongs to.
            dones: whether an episode ended with the step.
            rewards: of the task, neither normalised nor with a bootstrap.
            successes: 1, 0 or NaN (not defined) where an episode ended; not read elsewhere.
            values: the critic's, of the observations before the steps, in units of return.
            advantages: in units of return; with the bootstrap where a time limit cut an episode off.
            errors: one-step errors of the critic, in units of return (see `td_errors`).

        Returns:
            Ids ``(n,)`` and scores, name -> ``(n,)``, in the order in which the episodes ended; pieces of
            those that go on come last.

        Raises:
            ValueError: when an id changes within an episode.
        """
        # Pieces lie one after the other, an environment at a time, cut where episodes and the roll-out end.
        cut = dones.T.copy()
        cut[:, -1] = True
        last = np.flatnonzero(cut)
        lengths = np.diff(last, prepend=-1)
        first = last - lengths + 1
        finished = _flat(dones)[last]
        piece_ids = _flat(ids)[first]
        if not np.array_equal(piece_ids, _flat(ids)[last]):
            raise ValueError(
                "an episode's id changed before it ended; record the ids from before each step, since after "
                "it they are those of the successors"
            )
        sums = {
            "gae_l1": gae_l1(_flat(advantages), lengths) * lengths,
            "pvl": pvl(_flat(advantages), lengths) * lengths,
            "td": td(_flat(errors), lengths) * lengths,
            "mean_value": piece_means(_flat(values), lengths) * lengths,
            "steps": lengths.astype(np.float64),
            "return": piece_sums(_flat(rewards), lengths),
            "initial_value": np.asarray(_flat(values)[first], dtype=np.float64),
        }
        steps = len(dones)
        self._add_earlier_pieces(sums, piece_ids, opening=first % steps == 0)

        # Episodes in the order in which they ended: by step, then by environment.
        scored = np.flatnonzero(finished | self.score_pieces)
        scored = scored[np.lexsort((scored, last[scored] % steps, ~finished[scored]))]
        whole = np.where(finished, 1.0, np.nan)
        scores = {name: sums[name][scored] / sums["steps"][scored] for name in _MEANS}
        scores |= {name: sums[name][scored] for name in ("steps", "initial_value")}
        scores["return"] = (whole * sums["return"])[scored]
        scores["max_mc"] = max_mc(scores["return"], scores["mean_value"])
        solved = (whole * _flat(successes)[last])[scored]
        scores["mna"] = solved * (scores["gae_l1"] - scores["pvl"]) * scores["steps"]

        self._keep_unfinished(sums, piece_ids, finished, closing=last % steps == steps - 1)
        return piece_ids[scored], scores

    def _add_earlier_pieces(
        self, sums: dict[str, Floats], piece_ids: Ints, opening: NDArray[np.bool_]
    ) -> None:
        """Join the first piece in each environment to the earlier pieces of the same episode."""
        goes_on = self._ids == piece_ids[opening]  # no reset has begun another since
        for name, kept in self._sums.items():
            if name == "initial_value":
                sums[name][opening] = np.where(goes_on, kept, sums[name][opening])
            else:
                sums[name][opening] += np.where(goes_on, kept, 0.0)

    def _keep_unfinished(
        self,
        sums: dict[str, Floats],
        piece_ids: Ints,
        finished: NDArray[np.bool_],
        closing: NDArray[np.bool_],
    ) -> None:
        """Keep the last piece in each environment, where its episode goes on, for the next roll-out."""
        goes_on = ~finished[closing]
        self._ids = np.where(goes_on, piece_ids[closing], -1)
        for name in self._sums:
            of_episode = name in ("return", "initial_value")  # the others are scored already
            keep = goes_on & (of_episode or not self.score_pieces)
            self._sums[name] = np.where(keep, sums[name][closing], 0.0)

    def state_dict(self) -> StateDict:
        """Return the sums of the running episodes, by value."""
        return {"ids": self._ids.copy(), "sums": {name: part.copy() for name, part in self._sums.items()}}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict` of as many environments.

        Raises:
            StateError: when it is of another number of environments.
        """
        for name, part in {"ids": state["ids"], **state["sums"]}.items():
            if part.shape != self._ids.shape:
                raise StateError(
                    f"saved scores: {name} has shape {part.shape}, expected {self._ids.shape}; resume with "
                    "the number of environments that the run began with"
                )
        self._ids = state["ids"].copy()
        self._sums = {name: state["sums"][name].copy() for name in self._sums}


def _flat(part: ArrayLike) -> NDArray[Any]:
    """Lay steps ``(steps, num_envs)`` one environment after the other."""
    return np.asarray(part).T.reshape(-1)

"""Scores of whole episodes, from roll-outs that cut them anywhere.

A student's roll-out holds the ends of episodes that began before it, whole episodes, and beginnings of
others. `EpisodeScores` keeps what the beginnings brought, and gives each episode its scores at the end of
the roll-out in which it ended.
"""

from __future__ import annotations

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
        self._steps: Ints = np.zeros(num_envs, dtype=np.int64)
        self._floats = {
            name: np.zeros(num_envs) for name in (*_MEANS, "return", "initial_value")
        }  # sums over the steps so far, and the first value

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
        """Take in a roll-out; all arrays have the shape ``(steps, num_envs)``.

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
        steps = len(dones)
        ended = dones.T.reshape(-1)
        by_piece = [np.asarray(part, dtype=np.float64).T.reshape(-1) for part in (advantages, errors, values)]
        flat_advantages, flat_errors, flat_values = by_piece
        flat_ids = np.asarray(ids, dtype=np.int64).T.reshape(-1)

        # Pieces: one environment after the other, cut where episodes end and where the roll-out does.
        cut = dones.T.copy()
        cut[:, -1] = True
        last = np.flatnonzero(cut)
        lengths = np.diff(last, prepend=-1)
        first = last - lengths + 1
        opening, closing = first % steps == 0, last % steps == steps - 1  # one of each in an environment
        finished = ended[last]
        if not np.array_equal(flat_ids[first], flat_ids[last]):
            raise ValueError(
                "an episode's id changed before it ended; record the ids from before each step, since after "
                "it they are those of the successors"
            )

        # What earlier roll-outs brought, unless a reset has begun another episode since.
        goes_on = self._ids == flat_ids[first[opening]]
        count, sums = (
            lengths.copy(),
            {
                "gae_l1": gae_l1(flat_advantages, lengths) * lengths,
                "pvl": pvl(flat_advantages, lengths) * lengths,
                "td": td(flat_errors, lengths) * lengths,
                "mean_value": piece_means(flat_values, lengths) * lengths,
                "return": piece_sums(np.asarray(rewards, dtype=np.float64).T.reshape(-1), lengths),
            },
        )
        count[opening] += np.where(goes_on, self._steps, 0)
        for name, values_of_pieces in sums.items():
            values_of_pieces[opening] += np.where(goes_on, self._floats[name], 0.0)
        sums["initial_value"] = flat_values[first]
        sums["initial_value"][opening] = np.where(
            goes_on, self._floats["initial_value"], flat_values[first[opening]]
        )

        # Scores, in the order in which episodes ended: by step, then by environment.
        scored = np.flatnonzero(finished | self.score_pieces)
        scored = scored[np.lexsort((scored, last[scored] % steps, ~finished[scored]))]
        scores = {name: sums[name][scored] / count[scored] for name in _MEANS}
        whole = np.where(finished[scored], 1.0, np.nan)
        success = whole * np.asarray(successes, dtype=np.float64).T.reshape(-1)[last[scored]]
        scores |= {
            "return": whole * sums["return"][scored],
            "initial_value": sums["initial_value"][scored],
            "steps": count[scored].astype(np.float64),
        }
        scores["max_mc"] = max_mc(scores["return"], scores["mean_value"])
        scores["mna"] = success * (scores["gae_l1"] - scores["pvl"]) * scores["steps"]

        unfinished = ~finished[closing]
        self._ids = np.where(unfinished, flat_ids[last[closing]], -1)
        kept = unfinished & (not self.score_pieces)
        self._steps = np.where(kept, count[closing], 0)
        for name in self._floats:
            keep = unfinished if name in ("return", "initial_value") else kept
            self._floats[name] = np.where(keep, sums[name][closing], 0.0)
        return flat_ids[last[scored]], scores

    def state_dict(self) -> StateDict:
        """What the running episodes have brought so far, by value."""
        floats = {name: part.copy() for name, part in self._floats.items()}
        return {"ids": self._ids.copy(), "steps": self._steps.copy(), "sums": floats}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict` of as many environments.

        Raises:
            StateError: when it is of another number of environments.
        """
        parts = {"ids": state["ids"], "steps": state["steps"], **state["sums"]}
        for name, part in parts.items():
            if part.shape != self._ids.shape:
                raise StateError(
                    f"saved scores: {name} has shape {part.shape}, expected {self._ids.shape}; resume with "
                    "the number of environments that the run began with"
                )
        self._ids, self._steps = state["ids"].copy(), state["steps"].copy()
        self._floats = {name: state["sums"][name].copy() for name in self._floats}

"""What a batch of episodes earned, term by term, and the means of those that ended."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tutelage.envs.batched.task.rows import Rows


class EpisodeLog:
    """Sums of each reward term over each running episode.

    Args:
        num_envs: environments.
        device: where the sums live.

    Attributes:
        sums: term -> float32, shape ``(num_envs,)``; terms are there once they have been added.
    """

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self._zeros = torch.zeros(num_envs, device=device)
        self.sums: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}
        self._nan = torch.full((), torch.nan, device=device)

    def add(self, terms: Mapping[str, Tensor], valid: Tensor) -> Tensor:
        """Add a step's terms, 0 where not `valid`; return their sum, the reward, ``(num_envs,)``."""
        reward = self._zeros.clone()
        for name, term in terms.items():
            term = torch.where(valid, term, 0.0)
            reward += term
            if name not in self.sums:
                self.sums[name] = self._zeros.clone()
            self.sums[name] += term
        return reward

    def clear(self, rows: Rows) -> None:
        """Begin new episodes in these environments."""
        for sums in self.sums.values():
            rows.put(sums, 0.0)

    def forget(self) -> None:
        """Know of no term and no episode, as at the beginning."""
        self.sums, self._last = {}, {}

    def restore(self, rows: Rows, sums: Mapping[str, Tensor]) -> None:
        """Go on from saved sums, ``(rows.n,)``, in these environments; a term that has none starts at 0."""
        for name in dict.fromkeys((*self.sums, *sums)):
            if name not in self.sums:
                self.sums[name] = self._zeros.clone()
            rows.put(self.sums[name], sums.get(name, 0.0))

    def means(self, done: Tensor, lengths: Tensor, success: Tensor) -> dict[str, Tensor]:
        """Means over the episodes that ended, scalars: each term's sum, length, success; and their number.

        Where `done` is all False, as it may be under a mask, ``episode/count`` is 0 and the means are the
        last ones, as zeros would go into users' averages; NaN until the first episode ends.
        """
        count = done.sum()

        def mean(values: Tensor) -> Tensor:
            return torch.where(done, values, 0).sum() / count

        now = {
            **{f"reward/{name}": mean(sums) for name, sums in self.sums.items()},
            "episode/length": mean(lengths.to(torch.float32)),
            "episode/success": mean(success.to(torch.float32)),
        }
        self._last = {
            name: torch.where(count > 0, value, self._last.get(name, self._nan))
            for name, value in now.items()
        }
        return {**self._last, "episode/count": count.to(torch.float32)}

"""Bookkeeping of running episodes: the proposal that each environment plays, its return, its time limit.

The taught vector environments, Stable-Baselines3's and Gymnasium's, differ in how they step and reset; what
they count, ask the task teacher and report to it is the same, and is here.
"""

from __future__ import annotations

import math
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.envs.contract.episodes import Episodes, check_successes
from tutelage.envs.contract.interface import TaskTeacher
from tutelage.envs.contract.proposals import KINDS, check_proposals
from tutelage.envs.contract.state import StateDict
from tutelage.envs.contract.tasks import Tasks, TaskSpace

NO_HORIZON = 1 << 62
"""The horizon of an episode that the environment's own time limit alone ends."""

_KIND = np.dtype(f"U{max(map(len, KINDS))}")


class NumberedProposals(NamedTuple):
    """Checked proposals with their running numbers; None stands for the default in every row.

    Attributes:
        tasks: shape ``(n, *task_space.shape)``.
        ids: running numbers, int64 ``(n,)``.
        horizons, trains, kinds: as in `tutelage.envs.Proposals`, ``(n,)``.
    """

    tasks: Tasks
    ids: NDArray[np.int64]
    horizons: NDArray[np.int64] | None = None
    trains: NDArray[np.bool_] | None = None
    kinds: NDArray[np.str_] | None = None


class _ProposalOfEach:
    """One proposal for each environment, as arrays over the environments."""

    def __init__(self, num_envs: int, space: TaskSpace) -> None:
        self.tasks: Tasks = np.zeros((num_envs, *space.shape), dtype=space.dtype)
        self.ids = np.full(num_envs, -1, dtype=np.int64)
        self.horizons = np.full(num_envs, NO_HORIZON, dtype=np.int64)
        self.trains = np.ones(num_envs, dtype=np.bool_)
        self.kinds = np.full(num_envs, KINDS[0], dtype=_KIND)
        self._plain = True  # no horizon, use or kind has been given yet: there is nothing to overwrite

    def put(self, rows: NDArray[np.int64], new: NumberedProposals) -> None:
        self.tasks[rows], self.ids[rows] = new.tasks, new.ids
        if self._plain and new.horizons is None and new.trains is None and new.kinds is None:
            return
        self._plain = False
        self.horizons[rows] = NO_HORIZON if new.horizons is None else new.horizons
        self.trains[rows] = True if new.trains is None else new.trains
        self.kinds[rows] = KINDS[0] if new.kinds is None else new.kinds

    def take(self, rows: NDArray[np.int64]) -> NumberedProposals:
        return NumberedProposals(
            self.tasks[rows], self.ids[rows], self.horizons[rows], self.trains[rows], self.kinds[rows]
        )


class EpisodeBookkeeping:
    """Counts the running episodes of a vector environment, asks its task teacher and reports to it.

    In each step: `add_rewards`; where it says so, `reached_horizon` and cut those off; then, for the finished
    ones, `end`, `observe`, `propose`, and `begin`.

    Args:
        num_envs: environments.
        task_space: where proposals must lie.
        task_teacher: proposes and observes.
        queues: proposals wait for one episode in a queue before they begin, as in worker processes.
        defines_success: whether the environments are known to define success; else that is seen at the end
            of their episodes.

    Attributes:
        running: proposal of each environment's episode: `tasks`, `ids`, `horizons`, `trains`, `kinds`.
        returns: sums of rewards of the running episodes, float64 ``(num_envs,)``.
        started: environment steps, of all environments together, taken before each running episode began,
            int64 ``(num_envs,)``; -1 where unknown.
        next_id: number of the next proposal.
        steps: environment steps taken, of all environments together.
        task_teacher_seconds: time spent in proposing and observing.
    """

    def __init__(
        self,
        num_envs: int,
        task_space: TaskSpace,
        task_teacher: TaskTeacher,
        queues: bool = False,
        defines_success: bool = False,
    ) -> None:
        self.num_envs = num_envs
        self.task_space = task_space
        self.task_teacher = task_teacher
        self.running = _ProposalOfEach(num_envs, task_space)
        self._queued = _ProposalOfEach(num_envs, task_space) if queues else None
        self.returns = np.zeros(num_envs)
        self.started = np.full(num_envs, -1, dtype=np.int64)
        self.next_id = 0
        self.steps = 0
        self.task_teacher_seconds = 0.0
        self._defines_success = defines_success
        self._clock = 0  # calls of `add_rewards`
        self._began = np.zeros(num_envs, dtype=np.int64)  # the clock when each episode began
        self._first_cut = NO_HORIZON  # the clock at which a running episode can first reach its horizon

    def propose(self, n: int) -> NumberedProposals:
        """Ask the task teacher for `n` proposals; check and number them.

        Raises:
            TaskError, ValueError: as `check_proposals` does.
        """
        begin = perf_counter()
        proposed = self.task_teacher.propose(n)
        checked = check_proposals(proposed, self.task_space, n, type(self.task_teacher).__name__)
        self.task_teacher_seconds += perf_counter() - begin
        ids = np.arange(self.next_id, self.next_id + n)
        self.next_id += n
        return NumberedProposals(checked.tasks, ids, checked.horizon, checked.trains, checked.kind)

    def begin_all(self, proposals: NumberedProposals, queued: NumberedProposals | None = None) -> None:
        """Begin a new episode in every environment; `queued` begin after them, where there is a queue."""
        everyone = np.arange(self.num_envs)
        if queued is not None and self._queued is not None:
            self._queued.put(everyone, queued)
        self._begin(everyone, proposals)

    def begin(self, rows: NDArray[np.int64], proposals: NumberedProposals) -> None:
        """Begin these proposals; or, where there is a queue, those that waited, and let these wait."""
        if self._queued is not None:
            waited = self._queued.take(rows)
            self._queued.put(rows, proposals)
            proposals = waited
        self._begin(rows, proposals)

    def _begin(self, rows: NDArray[np.int64], proposals: NumberedProposals) -> None:
        self.running.put(rows, proposals)
        self.returns[rows] = 0.0
        self._began[rows] = self._clock
        self.started[rows] = self.steps
        if proposals.horizons is not None or self._first_cut < NO_HORIZON:
            self._find_first_cut()

    def _find_first_cut(self) -> None:
        horizons = self.running.horizons
        limited = np.count_nonzero(horizons < NO_HORIZON)
        self._first_cut = int((self._began + horizons).min()) if limited else NO_HORIZON

    def add_rewards(self, rewards: NDArray[Any], steps: int | None = None) -> bool:
        """Count one step of every environment; tell whether an episode may have reached its horizon.

        Args:
            rewards: of the step, ``(num_envs,)``.
            steps: how many environments took it; default: all.

        Raises:
            ValueError: when a return is not finite any more.
        """
        self.returns += rewards
        self._clock += 1
        self.steps += self.num_envs if steps is None else steps
        if not math.isfinite(np.add.reduce(self.returns)):
            index = int(np.argmin(np.isfinite(self.returns)))
            raise ValueError(
                f"environment {index} gave the reward {rewards[index]} in step "
                f"{self._clock - self._began[index]} of task {self.running.tasks[index]}, which makes its "
                f"return {self.returns[index]}; mend the reward, or end the episode before it is no number"
            )
        return self._clock >= self._first_cut

    def reached_horizon(self, ended: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Environments whose episode has reached its horizon and is not among those that `ended`."""
        reached = (self._clock - self._began >= self.running.horizons) & ~ended
        return np.flatnonzero(reached)

    def end(self, rows: NDArray[np.int64], successes: NDArray[np.float64]) -> Episodes:
        """Make the episodes that end in these environments into a batch.

        An episode that its horizon cut off before the environment spoke of success has none: 0, or NaN while
        no episode has been seen that defines it.

        Args:
            rows: environments, ``(n,)``.
            successes: what each said, 1, 0 or NaN, ``(n,)``.

        Raises:
            ValueError: when some of the episodes that ended by themselves define success and others do not.
        """
        lengths = self._clock - self._began[rows]
        if not self._defines_success:
            self._defines_success = not np.isnan(successes).all()
        if self._first_cut < NO_HORIZON:
            cut = lengths >= self.running.horizons[rows]
            check_successes(successes[~cut])
            if self._defines_success:
                successes = np.where(cut & np.isnan(successes), 0.0, successes)
        else:
            check_successes(successes)
        return Episodes(
            self.running.tasks[rows],
            self.returns[rows],
            lengths,
            successes,
            ids=self.running.ids[rows],
            environments=rows,
            started=self.started[rows],
        )

    def observe(self, episodes: Episodes) -> None:
        """Report finished episodes to the task teacher."""
        begin = perf_counter()
        self.task_teacher.observe(episodes)
        self.task_teacher_seconds += perf_counter() - begin

    def save_with(self, environments: Any) -> StateDict:
        """Running episodes and environments; of environments without ``state_dict`` the counters alone."""
        if not hasattr(environments, "state_dict"):
            return self.counters()
        return {"environments": environments.state_dict(), **self.state_dict()}

    def load_with(self, environments: Any, state: StateDict) -> None:
        """Continue from `save_with`; where that saved counters alone, new episodes must begin."""
        if "environments" not in state:
            self.load_counters(state)
            return
        environments.load_state_dict(state["environments"])
        self.load_state_dict(state)

    def counters(self) -> StateDict:
        """The numbers that go on from one episode to the next, by value."""
        return {"next_id": self.next_id, "steps": self.steps, "defines_success": self._defines_success}

    def load_counters(self, state: StateDict) -> None:
        """Go on counting from `counters`."""
        self.next_id = int(state.get("next_id", self.next_id))
        self.steps = int(state.get("steps", self.steps))
        self._defines_success |= bool(state.get("defines_success", False))

    def state_dict(self) -> StateDict:
        """The running episodes and all counters, by value; the task teacher saves itself."""
        return {
            "running": self.running.tasks.copy(),
            "ids": self.running.ids.copy(),
            "horizons": self.running.horizons.copy(),
            "trains": self.running.trains.copy(),
            "kinds": self.running.kinds.copy(),
            "returns": self.returns.copy(),
            "lengths": self._clock - self._began,
            "started": self.started.copy(),
            **self.counters(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from a `state_dict`; of one that has no numbers of proposals they are -1, unknown."""
        self.load_counters(state)
        n = self.num_envs
        self.running.put(
            np.arange(n),
            NumberedProposals(
                state["running"],
                state.get("ids", np.full(n, -1)),
                state.get("horizons"),
                state.get("trains"),
                state.get("kinds"),
            ),
        )
        self.returns[:] = state["returns"]
        self._began[:] = self._clock - state["lengths"]
        self.started[:] = state.get("started", -1)
        self._find_first_cut()


class RunningProposals:
    """What the proposals of the running episodes are, as attributes of a taught vector environment.

    Updated in place when episodes begin: copy what is to be kept.
    """

    episodes: EpisodeBookkeeping

    @property
    def tasks(self) -> Tasks:
        """The task that runs in each environment, ``(num_envs, *task_space.shape)``."""
        return self.episodes.running.tasks

    @property
    def ids(self) -> NDArray[np.int64]:
        """Running number of the proposal that each environment plays, ``(num_envs,)``."""
        return self.episodes.running.ids

    @property
    def trains(self) -> NDArray[np.bool_]:
        """Whether the student may learn from each running episode, ``(num_envs,)``."""
        return self.episodes.running.trains

    @property
    def kinds(self) -> NDArray[np.str_]:
        """What the proposal of each running episode is, one of ``proposals.KINDS``, ``(num_envs,)``."""
        return self.episodes.running.kinds

    @property
    def horizons(self) -> NDArray[np.int64]:
        """Steps after which each running episode is cut off, ``(num_envs,)``; `NO_HORIZON`: not at all."""
        return self.episodes.running.horizons

    @property
    def task_teacher_seconds(self) -> float:
        """Time spent in proposing and observing."""
        return self.episodes.task_teacher_seconds

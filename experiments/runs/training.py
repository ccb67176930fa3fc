"""What a cell of any grid runs: the protocol between a training and the machinery around it.

A training knows how to advance, which policies are evaluated, and how to save itself. When that happens, what
is written and how a killed run goes on, `tutelage.experiments.runs.cell` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tutelage.envs.contract.episodes import Episodes
    from tutelage.envs.contract.state import StateDict
    from tutelage.experiments.runs.report import Report

PlayTestSet = Callable[[str, bool], "Episodes"]
"""Plays one policy on a test set, by its name; True at the end of training, when all its episodes count."""

Results = Mapping[str, Mapping[str, "Episodes"]]
"""An evaluation: policy -> test set -> episodes."""


@dataclass
class Costs:
    """Environment steps by who took them, queries of experts, and seconds, all counted from the beginning.

    Attributes:
        student: steps that the student learns from or could have.
        antagonist: steps of a second student, as in PAIRED.
        adversary: steps of a policy that builds tasks.
        scouting: steps that only found out about tasks.
        editing: steps that only scored edited tasks.
        expert: steps of the training of an expert that this run has anything of.
        evaluation: steps of evaluations; charged to nobody.
        queries: labels asked of an expert.
        seconds: part -> seconds.
    """

    student: int = 0
    antagonist: int = 0
    adversary: int = 0
    scouting: int = 0
    editing: int = 0
    expert: int = 0
    evaluation: int = 0
    queries: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def charged(self) -> int:
        """All steps but those of evaluations."""
        return sum(getattr(self, name) for name in STEP_COSTS if name != "evaluation")

    def to_json(self) -> dict[str, Any]:
        """JSON values of all fields, and ``charged``."""
        counts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "seconds"}
        return {**counts, "charged": self.charged, "seconds": dict(self.seconds)}


STEP_COSTS = ("student", "antagonist", "adversary", "scouting", "editing", "expert", "evaluation")
"""Fields of `Costs` that count environment steps."""


@dataclass(frozen=True)
class Progress:
    """How far a training has come, in the unit of its budget.

    Attributes:
        at, total: done, and asked for.
        unit: ``steps``, ``frames``, ``updates`` or ``seconds``.
    """

    at: float
    total: float
    unit: str = "steps"


class Training(Protocol):
    """A training in one folder. It is built from its config, and then loaded or begun.

    Attributes:
        costs: kept up to date by the training; the machinery adds evaluations.
        evaluations: shares of the budget, ascending, the last one 1.0, after which policies are evaluated;
            0.0 comes before all training where `evaluates_untrained`, or else after the first round.
        evaluates_untrained: see there.

    Two more are optional: ``task_space``, where there are training episodes to record, and ``seconds`` of the
    training so far, against which curves are drawn in place of the wall clock.
    """

    costs: Costs
    evaluations: Sequence[float]
    evaluates_untrained: bool

    @property
    def step(self) -> int:
        """The student's environment steps (or gradient steps, without environments): where curves have x."""
        ...

    @property
    def spent(self) -> float:
        """The share of the budget that is used up; 1 and more is all of it."""
        ...

    @property
    def progress(self) -> Progress:
        """How far it is, for people."""
        ...

    def hyperparameters(self) -> Mapping[str, bool | int | float | str]:
        """What distinguishes this cell from others, for TensorBoard's HParams."""
        ...

    def advance(self, until: float, report: Report) -> None:
        """Train until `spent` reaches `until`; tell `report` of progress, and where it can be saved."""
        ...

    def test_sets(self, at_end: bool) -> Sequence[str]:
        """Names of the test sets of an evaluation on the way, or at the end; the main one first."""
        ...

    def policies(self) -> Mapping[str, PlayTestSet]:
        """What is evaluated, by name; the first is the student, whose episodes the tables are made of."""
        ...

    def scores(self, results: Mapping[str, Episodes]) -> Mapping[str, float]:
        """Numbers to log of the student's evaluation: TensorBoard tag -> value."""
        ...

    def evaluated(self, results: Results, report: Report) -> None:
        """Log what else there is to say after an evaluation: pictures, clips, other curves."""
        ...

    def finish(self, report: Report) -> Mapping[str, Any]:
        """Save what users load, in the run's folder; return the values of ``results.json``, if any."""
        ...

    def save(self, folder: Path, run: StateDict) -> None:
        """Write all that decides further training, and `run`; the one before stays until it is whole."""
        ...

    def load(self, folder: Path) -> StateDict | None:
        """Continue from what `save` wrote; return its `run`, or None where there is nothing.

        Raises:
            StateError: when what is there is damaged or of another training.
        """
        ...

    def close(self) -> None:
        """Free environments."""
        ...

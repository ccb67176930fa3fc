"""The report of a training that advances: records, TensorBoard, status and checkpoints in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.experiments.runs.records import RunRecord
from tutelage.experiments.tensorboard.event_log import RunLog

if TYPE_CHECKING:
    from tutelage.envs.contract.episodes import Episodes


class Report:
    """The running cell's record and logs, as a training sees them.

    Args:
        folder: of the run.
        record: its tables and status.
        log: its TensorBoard log against the student's steps.
        on_progress: called by `progress`, with True where the training can be saved now.

    Attributes:
        progress: lets the status be written, and where its argument says so, perhaps a checkpoint.
        logs: further TensorBoard logs by name (folders inside the run's), e.g. against seconds.
    """

    def __init__(
        self, folder: Path, record: RunRecord, log: RunLog, on_progress: Callable[[bool], None]
    ) -> None:
        self.folder, self.record, self.log = folder, record, log
        self.logs: dict[str, RunLog] = {}
        self.progress = on_progress

    def episodes(self, step: int, episodes: Episodes) -> None:
        """Note finished training episodes."""
        self.record.add_episodes(step, episodes)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers by tag."""
        self.log.scalars(values, step)

    def flush(self) -> None:
        """Put all events on disk."""
        for log in (self.log, *self.logs.values()):
            log.flush()

    def close(self) -> None:
        """Close all logs."""
        for log in (self.log, *self.logs.values()):
            log.close()


def quietly(what: str, draw: Callable[[], Any], failed: set[str]) -> None:
    """Draw what no number depends on; where a user's code fails at it, say so once, and go on."""
    import traceback

    try:
        draw()
    except Exception:  # whatever a user's render() or picture() does, training goes on
        if what not in failed:
            traceback.print_exc()
            print(f"{what} could not be drawn; training goes on without", flush=True)
        failed.add(what)

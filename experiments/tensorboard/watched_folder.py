"""The curves over seeds of runs that other programs log, beside those runs, for TensorBoard.

TensorBoard is given a folder of its own with links to the event files, and the curves over seeds in
``_grid``. Nothing is written where the runs are, each keeps its name, and the address is one folder:
`--logdir_spec` would do without links, but TensorBoard then leaves out its fast loader. Links are made to
regular files within the runs' folder alone; TensorBoard by itself would follow every link out of it.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from pathlib import Path

from tutelage.experiments.tensorboard.grid_log import GRID_FOLDER, GridLog
from tutelage.experiments.tensorboard.run_groups import event_folders, group_runs

MARK = "made-by-tutelage-watch"
"""Name of a file in folders that `WatchedFolder` made, so that it never cleans up in another."""


class WatchedFolder:
    """A folder for TensorBoard that follows the runs in another one.

    Args:
        runs: where they are.
        out: the folder for TensorBoard: a new or empty one, or one that was made so before.
        pattern: of run folders, see `compile_groups`; None for what is usual.
        seconds: how often to look for new runs and new data, at most.

    Raises:
        ValueError: when `out` holds something else.
    """

    def __init__(self, runs: Path, out: Path, pattern: re.Pattern[str] | None, seconds: float = 5.0) -> None:
        self.runs, self.out, self.pattern, self.seconds = runs.resolve(), out.resolve(), pattern, seconds
        self.out.mkdir(parents=True, exist_ok=True)
        if any(self.out.iterdir()) and not (self.out / MARK).is_file():
            raise ValueError(f"{out} holds other files; choose a new folder with --out")
        (self.out / MARK).touch()
        self._links: set[Path] = {
            Path(place, name)
            for place, _, files in os.walk(self.out)
            for name in files
            if os.path.islink(os.path.join(place, name))
        }
        self.log = GridLog(self.out, {}, write_seconds=seconds, cells={}, cells_folder=self.runs)
        self.groups: Counter[str] = Counter()
        self.example = ""  # the name of a run
        self.follow()

    def follow(self) -> None:
        """Link what is new, take away links to what is gone, and put new runs into their groups."""
        folders = event_folders(self.runs, without=self.out)
        self._link(folders)
        own = [name for name in folders if GRID_FOLDER not in name.split("/")]
        self.example = own[-1] if own else ""
        cells = group_runs(own, self.pattern, self.runs.name or "all")
        self.groups = Counter(group for group, _ in cells.values())
        self.log.add_cells(cells)

    def refresh_until(self, stop: threading.Event) -> None:
        """Follow the runs until `stop` is set, and keep the curves up to date."""
        followed = time.monotonic()
        while not stop.is_set():
            busy = self.log.refresh(share=0.5)
            if time.monotonic() - followed > self.seconds:
                began = time.monotonic()
                self.follow()
                followed = time.monotonic() + 5 * (time.monotonic() - began)  # large folders, seldom
            stop.wait(0.01 if busy else min(0.25, self.seconds))

    def _link(self, folders: list[str]) -> None:
        wanted = set()
        for name in folders:
            if name.split("/")[0] == GRID_FOLDER:
                continue  # there are the new curves
            with os.scandir(self.runs / name) as entries:
                wanted |= {
                    self.out / name / entry.name
                    for entry in entries
                    if "tfevents" in entry.name and entry.is_file(follow_symlinks=False)
                }
        for link in self._links - wanted:
            link.unlink(missing_ok=True)
        for link in wanted - self._links:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self.runs / link.relative_to(self.out))
        self._links = wanted

"""`tutelage watch`: TensorBoard on the folder of a run or a grid, with the options that suit it."""

from __future__ import annotations

import difflib
import errno
import os
import signal
import socket
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import tyro

from tutelage.experiments.tensorboard.grid_log import GRID_FOLDER

if TYPE_CHECKING:
    from tutelage.experiments.tensorboard.watched_folder import WatchedFolder


@dataclass(frozen=True)
class WatchConfig:
    """Show runs in TensorBoard while they train, or afterwards; stop with Ctrl-C.

    Grids of tutelage hold curves over their seeds. For runs that others made (Stable-Baselines3, rsl_rl,
    skrl, CleanRL), these curves are made here, where several runs differ in their seed alone; nothing is
    written into the folder.

    Attributes:
        folder: of a comparison, of one run, or of many of them.
        port: where TensorBoard listens; 0 takes a free one.
        host: address to listen at; 0.0.0.0 lets other machines look on, without any password.
        reload_seconds: how often to look for new data.
        groups: which runs are seeds of the same thing: a pattern over their folders, such as
            '{group}_{seed}' or '*/{env}/{algorithm}/s{seed}'; 'none' for no curves over seeds. Without it,
            names such as seed-3, s3, PPO_3, and dates in front, are understood.
        out: where to keep the curves over seeds, a new folder; otherwise they go when this stops.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    port: int = 6006
    host: str = "localhost"
    reload_seconds: float = 5.0
    groups: str | None = None
    out: Path | None = None

    def run(self) -> int:
        """Become TensorBoard, see `watch`; or serve it, with curves over seeds, see `watch_groups`."""
        options = tensorboard_options(self)
        if makes_curves(self):
            return watch_groups(self)
        watch(self, options)


class WatchError(RuntimeError):
    """Nothing to watch, or nowhere to show it; the message says what to do."""


def tensorboard_options(config: WatchConfig, folder: Path | None = None) -> list[str]:
    """The options with which TensorBoard shows a folder, that of the runs if no other is given.

    Raises:
        WatchError: when the folder does not exist or holds no TensorBoard events, or the port is taken.
    """
    _check_folder(config.folder)
    _check_port(config.host, config.port)
    return [
        f"--logdir={folder or config.folder}",
        f"--host={config.host}",
        f"--port={config.port}",
        f"--reload_interval={config.reload_seconds:g}",
        # Defaults show 10 pictures of a run and a random tenth of long curves.
        "--samples_per_plugin=images=200,scalars=10000,text=100",
        f"--window_title={config.folder.resolve().name} - tutelage",
    ]


def makes_curves(config: WatchConfig) -> bool:
    """Whether curves over seeds are to be made: asked for, or there are seeds and no curves of them.

    Raises:
        ValueError: when the pattern of the groups is no good.
    """
    from tutelage.experiments.tensorboard.run_groups import compile_groups, event_folders, group_runs

    if config.groups == "none":
        return False
    if config.groups is not None:
        compile_groups(config.groups)
        return True
    if config.out is None and (config.folder / GRID_FOLDER).is_dir():
        return False
    runs = event_folders(config.folder.resolve(), without=config.out and config.out.resolve())
    if any(GRID_FOLDER in run.split("/") for run in runs):
        return config.out is not None
    groups = [group for group, _ in group_runs(runs, None).values()]
    return config.out is not None or len(set(groups)) < len(groups)


def links(config: WatchConfig, grid: Path | None = None) -> dict[str, str]:
    """Address of each page worth opening, by what it shows; `grid` is what TensorBoard shows, if another."""
    base = f"http://{'localhost' if config.host == '0.0.0.0' else config.host}:{config.port}/"
    compared = "methods" if (config.folder / "distill.json").is_file() else "task teachers"
    pages = {
        f"comparison of {'groups' if grid else compared}": "#custom_scalars&_smoothingWeight=0"
        f"&regexInput={GRID_FOLDER}",
        "curves": "#scalars",
        "task space and clips": "#images&regexInput=seed-0",
        "hyperparameters": "#hparams",
    }
    if not ((grid or config.folder) / GRID_FOLDER).is_dir():
        pages = {"charts": "#custom_scalars", **dict(list(pages.items())[1:])}
    if grid:
        del pages["task space and clips"]
    return {title: base + page for title, page in pages.items()}


def watch(config: WatchConfig, options: list[str]) -> NoReturn:
    """Become TensorBoard: signals reach it, and nothing is left behind when this process is stopped."""
    _print_links(config, links(config))
    command = [sys.executable, "-m", "tensorboard.main", *options]
    os.execv(command[0], command)


def watch_groups(config: WatchConfig) -> int:
    """Serve TensorBoard from this process, and keep curves over seeds beside it; return the exit status.

    One process, so that whatever ends it ends all: TensorBoard's loader stops with its standard input.

    Raises:
        WatchError: when no run belongs to a group.
        ValueError: when `out` holds something else.
    """
    from tutelage.experiments.tensorboard.run_groups import compile_groups
    from tutelage.experiments.tensorboard.watched_folder import WatchedFolder

    pattern = compile_groups(config.groups) if config.groups is not None else None
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda number, frame: sys.exit(0))  # by way of what cleans up
    with tempfile.TemporaryDirectory(prefix="tutelage-watch-", ignore_cleanup_errors=True) as temporary:
        shown = config.out or Path(temporary)
        followed = WatchedFolder(config.folder, shown, pattern, config.reload_seconds)
        if not followed.groups:
            raise WatchError(
                f"no run in {config.folder} fits {config.groups or 'any usual name'}; runs there are named "
                f"like {_printable(followed.example)}: give --groups a pattern such as '{{group}}_{{seed}}'"
            )
        for group, runs in sorted(followed.groups.items()):
            print(f"{_printable(group):>28}: {runs} run{'s' * (runs > 1)}")
        if pattern is None:
            print(f"{'by their names;':>28}  --groups PATTERN groups otherwise, --groups none not at all")
        _print_links(config, links(config, shown))
        stop = threading.Event()
        thread = threading.Thread(target=_follow, args=(followed, stop), daemon=True)
        thread.start()
        try:
            return _serve(tensorboard_options(config, shown))
        finally:
            stop.set()
            thread.join(10.0)  # what is being written is written, before the folder goes


def _serve(options: list[str]) -> int:
    """TensorBoard in this process, as its own command starts it."""
    from tensorboard import default, program

    board = program.TensorBoard(plugins=default.get_plugins())
    board.configure(["tensorboard", *options])
    return board.main()


def _follow(followed: WatchedFolder, stop: threading.Event) -> None:
    try:
        followed.refresh_until(stop)
    except (OSError, ValueError) as error:
        print(f"tutelage watch: the curves over seeds stay as they are: {error}", file=sys.stderr)


def _print_links(config: WatchConfig, pages: dict[str, str]) -> None:
    if config.port != 0:
        for title, address in pages.items():
            print(f"{title:>28}: {address}")
    sys.stdout.flush()


def _printable(name: str) -> str:
    """A folder's name without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        near = []
        if folder.parent.is_dir():
            names = [path.name for path in folder.parent.iterdir() if path.is_dir()]
            near = difflib.get_close_matches(folder.name, names, n=1)
        hint = (
            f"did you mean {folder.parent / near[0]}?"
            if near
            else "name the folder given to `tutelage compare --out`"
        )
        raise WatchError(f"there is no folder {folder}; {hint}")
    if next(folder.rglob("*tfevents*"), None) is None:
        raise WatchError(
            f"{folder} holds no TensorBoard events: no run has started there yet, or it is another folder; "
            "start one with `tutelage compare --out " + str(folder) + "`"
        )


def _check_port(host: str, port: int) -> None:
    if not 0 <= port <= 65535:
        raise WatchError(f"there is no port {port}; choose --port from 1024 to 65535")
    if _is_free(host, port):
        return
    free = next((other for other in range(port + 1, min(port + 100, 65536)) if _is_free(host, other)), 0)
    raise WatchError(
        f"port {port} is taken, perhaps by another TensorBoard; choose a free one with --port {free}"
    )


def _is_free(host: str, port: int) -> bool:
    """Whether a server could listen there.

    Raises:
        WatchError: when the address itself is no good.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except PermissionError:
        raise WatchError(
            f"port {port} is reserved for the system; choose one above 1023 with --port"
        ) from None
    except socket.gaierror:
        raise WatchError(f"there is no address {host}; check --host, or leave it out") from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise WatchError(f"cannot listen at {host}:{port} ({error.strerror}); check --host") from None
        return False
    return True


if __name__ == "__main__":
    from tutelage.experiments.command import run_as_module

    sys.exit(run_as_module(WatchConfig))

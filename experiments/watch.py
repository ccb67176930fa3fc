"""`tutelage watch`: TensorBoard on the folder of a run or a grid, with the options that suit it."""

from __future__ import annotations

import difflib
import errno
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import tyro

from tutelage.experiments.tensorboard.grid_log import GRID_FOLDER


@dataclass(frozen=True)
class WatchConfig:
    """Show runs in TensorBoard while they train, or afterwards; stop with Ctrl-C.

    Attributes:
        folder: of a comparison, of one run, or of many of them.
        port: where TensorBoard listens; 0 takes a free one.
        host: address to listen at; 0.0.0.0 lets other machines look on, without any password.
        reload_seconds: how often to look for new data.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    port: int = 6006
    host: str = "localhost"
    reload_seconds: float = 5.0

    def run(self) -> int:
        """Become TensorBoard; see `watch`."""
        watch(self)


class WatchError(RuntimeError):
    """Nothing to watch, or nowhere to show it; the message says what to do."""


def tensorboard_command(config: WatchConfig) -> list[str]:
    """The command that starts TensorBoard.

    Raises:
        WatchError: when the folder does not exist or holds no TensorBoard events, or the port is taken.
    """
    _check_folder(config.folder)
    _check_port(config.host, config.port)
    return [
        sys.executable,
        "-m",
        "tensorboard.main",
        f"--logdir={config.folder}",
        f"--host={config.host}",
        f"--port={config.port}",
        f"--reload_interval={config.reload_seconds:g}",
        # Defaults show 10 pictures of a run and a random tenth of long curves.
        "--samples_per_plugin=images=200,scalars=10000,text=100",
        f"--window_title={config.folder.resolve().name} - tutelage",
    ]


def links(config: WatchConfig) -> dict[str, str]:
    """Address of each page worth opening, by what it shows."""
    base = f"http://{'localhost' if config.host == '0.0.0.0' else config.host}:{config.port}/"
    compared = "methods" if (config.folder / "distill.json").is_file() else "task teachers"
    pages = {
        f"comparison of {compared}": f"#custom_scalars&_smoothingWeight=0&regexInput={GRID_FOLDER}",
        "curves": "#scalars",
        "task space and clips": "#images&regexInput=seed-0",
        "hyperparameters": "#hparams",
    }
    if not (config.folder / GRID_FOLDER).is_dir():
        pages = {"charts": "#custom_scalars", **dict(list(pages.items())[1:])}
    return {title: base + page for title, page in pages.items()}


def watch(config: WatchConfig) -> NoReturn:
    """Become TensorBoard: signals reach it, and nothing is left behind when this process is stopped.

    Raises:
        WatchError: see `tensorboard_command`.
    """
    command = tensorboard_command(config)
    if config.port != 0:
        for title, address in links(config).items():
            print(f"{title:>28}: {address}")
    sys.stdout.flush()
    os.execv(command[0], command)


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

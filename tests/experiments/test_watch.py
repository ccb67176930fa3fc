import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.experiments.command import run_command
from tutelage.experiments.tensorboard.event_log import RunLog
from tutelage.experiments.watch import WatchConfig, WatchError, links, tensorboard_command


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "quick"
    with RunLog(folder / "ppo" / "riac" / "seed-0") as log:
        log.scalars({"a": 1.0}, 1)
    return folder


def test_missing_folders_suggest_the_nearest(run: Path) -> None:
    with pytest.raises(WatchError, match=r"did you mean .*quick\?"):
        tensorboard_command(WatchConfig(run.parent / "qick"))
    with pytest.raises(WatchError, match="tutelage compare --out"):
        tensorboard_command(WatchConfig(run / "no" / "such"))


def test_folders_without_events_say_so(tmp_path: Path) -> None:
    with pytest.raises(WatchError, match="no TensorBoard events"):
        tensorboard_command(WatchConfig(tmp_path))


def test_a_taken_port_names_a_free_one(run: Path, taken: socket.socket) -> None:
    port = taken.getsockname()[1]
    with pytest.raises(WatchError, match=rf"port {port} is taken.*--port \d+") as caught:
        tensorboard_command(WatchConfig(run, port=port, host="127.0.0.1"))
    free = int(str(caught.value).split()[-1])
    assert free > port
    assert f"--port={free}" in tensorboard_command(WatchConfig(run, port=free, host="127.0.0.1"))


@pytest.mark.parametrize(
    ("port", "host", "named"),
    [
        (70_000, "localhost", "--port from"),
        (0, "no.such.host.invalid", "check --host"),
        (6543, "203.0.113.7", "check --host"),
    ],
)
def test_bad_addresses_are_refused(run: Path, port: int, host: str, named: str) -> None:
    with pytest.raises(WatchError, match=named):
        tensorboard_command(WatchConfig(run, port=port, host=host))


def test_links_fit_what_is_there(run: Path) -> None:
    config = WatchConfig(run, port=7000, host="0.0.0.0")
    assert links(config)["charts"] == "http://localhost:7000/#custom_scalars"
    (run / "_grid").mkdir()
    assert links(replace(config, host="here"))["comparison of task teachers"].startswith(
        "http://here:7000/#custom"
    )
    (run / "distill.json").write_text("{}")
    assert "comparison of task teachers" not in links(config)
    assert "comparison of methods" in links(config)


def test_mistakes_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(WatchConfig(tmp_path / "nothing")) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tutelage: there is no folder")


def test_it_serves_the_run_and_ends_with_ctrl_c(run: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tutelage.experiments.watch", str(run), "--port", str(port)]
    process = subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Shells let what they start in the background ignore Ctrl-C, the tests included.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    found, deadline = b"", time.monotonic() + 60
    try:
        while b"seed-0" not in found:
            assert time.monotonic() < deadline, found
            assert process.poll() is None
            time.sleep(0.3)
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://localhost:{port}/data/runs", timeout=5) as reply,
            ):
                found = reply.read()
        assert found == b'["ppo/riac/seed-0"]'
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"#custom_scalars" in out

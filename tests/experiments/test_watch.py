import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.experiments.command import run_as_module
from tutelage.experiments.tensorboard.event_log import RunLog
from tutelage.experiments.tensorboard.watched_folder import WatchedFolder
from tutelage.experiments.watch import WatchConfig, WatchError, links, makes_curves, tensorboard_options


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
        tensorboard_options(WatchConfig(run.parent / "qick"))
    with pytest.raises(WatchError, match="tutelage compare --out"):
        tensorboard_options(WatchConfig(run / "no" / "such"))


def test_folders_without_events_say_so(tmp_path: Path) -> None:
    with pytest.raises(WatchError, match="no TensorBoard events"):
        tensorboard_options(WatchConfig(tmp_path))


def test_a_taken_port_names_a_free_one(run: Path, taken: socket.socket) -> None:
    port = taken.getsockname()[1]
    with pytest.raises(WatchError, match=rf"port {port} is taken.*--port \d+") as caught:
        tensorboard_options(WatchConfig(run, port=port, host="127.0.0.1"))
    free = int(str(caught.value).split()[-1])
    assert free > port
    assert f"--port={free}" in tensorboard_options(WatchConfig(run, port=free, host="127.0.0.1"))


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
        tensorboard_options(WatchConfig(run, port=port, host=host))


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


def test_mistakes_end_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["watch", str(tmp_path / "nothing")])
    assert run_as_module(WatchConfig) == 2
    assert capsys.readouterr().err.startswith("tutelage: there is no folder")


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


def foreign_run(folder: Path, seed: int) -> None:
    """A run as Stable-Baselines3 logs it."""
    from stable_baselines3.common.logger import configure

    logger = configure(str(folder), ["tensorboard"])
    for step in (100, 200, 300):
        logger.record("rollout/ep_rew_mean", float(step * seed))
        logger.record("time/fps", 1000.0)
        logger.dump(step)
    logger.close()


def ask(port: int, page: str) -> Any:
    with urllib.request.urlopen(f"http://localhost:{port}/data/{page}", timeout=5) as reply:
        return json.load(reply)


def wait_for(port: int, page: str, wanted: Callable[[Any], bool], process: subprocess.Popen[bytes]) -> Any:
    found, deadline = None, time.monotonic() + 90
    while found is None or not wanted(found):
        assert time.monotonic() < deadline, found
        assert process.poll() is None
        time.sleep(0.3)
        with suppress(OSError):
            found = ask(port, page)
    return found


def files_in(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_runs_of_others_get_curves_over_seeds(tmp_path: Path, number: int) -> None:
    runs, temporary = tmp_path / "logs", tmp_path / "temporary"
    temporary.mkdir()
    for seed in (1, 2):
        foreign_run(runs / f"PPO_{seed}", seed)
    foreign_run(tmp_path / "outside", 7)
    (runs / "PPO_9").symlink_to(tmp_path / "outside")
    before = files_in(runs)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--reload-seconds", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tutelage.experiments.watch", str(runs), *options],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    group = "plugin/custom_scalars/scalars?run=_grid%2FPPO&tag="
    try:
        names = wait_for(port, "runs", lambda names: "_grid/PPO" in names, process)
        assert {"PPO_1", "PPO_2"} < set(names)
        assert "PPO_9" not in names
        layout = wait_for(
            port, "plugin/custom_scalars/layout", lambda found: "rollout" in str(found), process
        )
        charts = [
            chart["margin"]["series"][0]
            for box in layout["category"]
            for chart in box["chart"]
            if "margin" in chart
        ]
        assert {chart["value"] for chart in charts} == {"grid/rollout/ep_rew_mean", "grid/time/fps"}
        for chart in charts:  # none of them is empty under the filter of the link
            for tag in chart.values():
                events = wait_for(port, f"{group}^{tag}$", lambda found: found["tag_to_events"], process)
                assert len(events["tag_to_events"][tag]) == 3
        tag = "grid/rollout/ep_rew_mean"
        mean = ask(port, f"{group}^{tag}$")["tag_to_events"][tag]
        assert [point[1:] for point in mean] == [[100, 150.0], [200, 300.0], [300, 450.0]]
        assert files_in(runs) == before
        foreign_run(runs / "PPO_3", 6)  # a run that begins later: (1 + 2 + 6) / 3
        wait_for(
            port,
            f"{group}^{tag}$",
            lambda found: [p[2] for p in found["tag_to_events"][tag]] == [300.0, 600.0, 900.0],
            process,
        )
    finally:
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"PPO: 2 runs" in out
    assert b"comparison of groups" in out
    assert [path for path in temporary.rglob("*") if path.name != ".tensorboard-info"] == []
    deadline = time.monotonic() + 20
    while True:  # its loader ends with it
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) != 0:
                break
        assert time.monotonic() < deadline


def test_curves_over_seeds_are_made_where_they_are_needed(tmp_path: Path, run: Path) -> None:
    assert not makes_curves(WatchConfig(run))  # one seed
    assert makes_curves(WatchConfig(run, groups="{group}/seed-{seed}"))
    for seed in range(2):
        with RunLog(tmp_path / "own" / "riac" / f"seed-{seed}") as log:
            log.scalars({"a": 1.0}, 1)
    own = WatchConfig(tmp_path / "own")
    assert makes_curves(own)
    assert not makes_curves(replace(own, groups="none"))
    with RunLog(own.folder / "_grid" / "riac") as log:
        log.scalars({"grid/a": 1.0}, 1)
    assert not makes_curves(own)  # a grid has its own
    with pytest.raises(ValueError, match=r"write \{seed\}"):
        makes_curves(replace(own, groups="riac"))


def test_curves_over_seeds_never_take_the_place_of_other_files(tmp_path: Path, run: Path) -> None:
    with pytest.raises(ValueError, match="choose a new folder with --out"):
        WatchedFolder(run, run, None)
    out = tmp_path / "out"
    WatchedFolder(run, out, None).log.close()
    [link] = [path for path in out.rglob("*tfevents*") if path.is_symlink()]
    assert link.relative_to(out).parts[:-1] == ("ppo", "riac", "seed-0")
    shutil.rmtree(run / "ppo")
    again = WatchedFolder(run, out, None)  # what is gone is no longer shown
    again.log.close()
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert not again.groups


def test_no_group_at_all_says_how_runs_are_named(run: Path) -> None:
    with pytest.raises(
        WatchError, match=r"fits \{group\}_\{seed\}; runs there are named like ppo/riac/seed-0"
    ):
        WatchConfig(run, port=0, groups="{group}_{seed}").run()

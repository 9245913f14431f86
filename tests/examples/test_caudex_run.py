"""The launcher of the example: what it says, what it restarts, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import requests

from examples.caudex.processes import ServiceProcess
from examples.caudex.run import EXIT_DIED, EXIT_OK, RESTART_BUDGET, RESTART_WINDOW, Restarts, supervise
from examples.caudex.stopping import StopSignals
from tests.support import wait_until

ROOT = Path(__file__).resolve().parents[2]


def addresses() -> dict[str, str]:
    """Free ports for all five programs, as the environment gives them; no broker and no token."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    names = ("CHROMA", "FILESYSTEM", "BILLING", "GIT")
    urls = {f"{name}_SERVER_URL": f"http://127.0.0.1:{port}" for name, port in zip(names, ports[1:], strict=True)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEAWALL_")}
    return {**kept, **urls, "CAUDEX_BACKEND_PORT": str(ports[0])}


def launch(data: Path, environ: dict[str, str], *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.caudex.run", "--data", str(data), *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=pipe, stderr=pipe, text=True)


def test_a_taken_port_is_named_with_the_way_out_and_nothing_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with launch(tmp_path, {**addresses(), "CHROMA_SERVER_URL": f"http://127.0.0.1:{port}"}) as run:
            assert run.wait(20) == 2
            said = run.stderr.read()
    assert f"port {port} for chroma is taken" in said
    assert f"CHROMA_SERVER_URL=http://127.0.0.1:{port + 1000}" in said
    assert list(tmp_path.iterdir()) == []


def test_an_address_on_another_machine_is_refused(tmp_path):
    with launch(tmp_path, {**addresses(), "GIT_SERVER_URL": "http://git.example:6005"}) as run:
        assert run.wait(20) == 2
        assert "GIT_SERVER_URL must look like http://127.0.0.1:6005" in run.stderr.read()


def test_restarts_wait_longer_each_time_until_the_budget_is_used_up():
    restarts = Restarts()
    delays = [again and again - 100.0 for again in (restarts.after_death(100.0) for _ in range(RESTART_BUDGET + 1))]
    assert delays == [pytest.approx(delay) for delay in (0.2, 0.4, 0.8, 1.6, 3.2)] + [None]
    assert restarts.after_death(101.0 + RESTART_WINDOW) == pytest.approx(101.2 + RESTART_WINDOW)


def test_a_killed_program_comes_back_on_its_port(tmp_path):
    with ServiceProcess("chroma", data=tmp_path) as chroma, StopSignals() as stop:
        url, first = f"{chroma.url}/health", chroma.pid

        def play() -> None:
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: chroma.pid != first and healthy(url), timeout=20)
            os.kill(os.getpid(), signal.SIGTERM)

        player = threading.Thread(target=play)
        player.start()
        assert supervise([chroma], stop, ends_at=time.monotonic() + 20) == EXIT_OK
        player.join()
        assert chroma.pid != first
        assert chroma.running


def test_a_program_that_dies_again_and_again_ends_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("examples.caudex.run.RESTART_BUDGET", 1)
    with ServiceProcess("chroma", data=tmp_path) as chroma, StopSignals() as stop:
        (tmp_path / "chroma.sqlite3").unlink()
        (tmp_path / "chroma.sqlite3").mkdir()  # no database can be opened there, so it cannot start
        os.kill(chroma.pid, signal.SIGKILL)
        assert supervise([chroma], stop, ends_at=time.monotonic() + 20) == EXIT_DIED
    assert "chroma died 2 times" in capsys.readouterr().err


def test_the_whole_example_runs_answers_and_leaves_nothing_behind(tmp_path):
    environ = addresses()
    with launch(tmp_path, environ, "--seconds", "600") as run:
        said = ""
        while "look at the breakers" not in said and (line := run.stdout.readline()):
            said += line
        assert "ctrl-C ends it" in said, run.stderr.read()
        children = psutil.Process(run.pid).children()
        backend = f"http://127.0.0.1:{environ['CAUDEX_BACKEND_PORT']}"
        wanted = {"project_id": "handbook", "query": "When does the breaker close again?"}
        answer = requests.post(f"{backend}/v1/api/chat", json=wanted, timeout=20).json()
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 0
    assert answer["source"] == "chroma"
    assert "the breaker closes" in answer["answer"]
    assert len(children) == 5
    assert not any(child.is_running() for child in children)


def healthy(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False

"""The transport and its surroundings: forks, the environment, descriptors that run out."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from seawall.actors.token import TokenSource
from tests.support.loopback import Loopback, Peer, Seen, always, answer, call_to, transport_to

TOKEN = "tok-3f1c"


def echo(request: Seen) -> bytes:
    return answer(request.target.encode())


def in_child(work: Callable[[], bool]) -> int:
    """Fork, do the work there, and give the child's exit code: 0 when it was true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_mixes_no_answers_and_closes_nothing_of_the_parents() -> None:
    with Loopback(always(echo)) as server:
        transport = transport_to(server.url)
        assert transport.send(call_to(transport, target="/parent-1")).text == "/parent-1"

        def work() -> bool:
            texts = [transport.send(call_to(transport, target=f"/child-{n}")).text for n in range(3)]
            transport.close()
            return texts == ["/child-0", "/child-1", "/child-2"]

        assert in_child(work) == 0
        assert transport.send(call_to(transport, target="/parent-2")).text == "/parent-2"
        transport.close()
    assert [(seen.target, seen.connection) for seen in server.seen] == [
        ("/parent-1", 1),
        *((f"/child-{n}", 2) for n in range(3)),
        ("/parent-2", 1),
    ]


def test_the_deadline_works_in_a_forked_child() -> None:
    """With a drip, which only the watcher can end."""

    def drips(peer: Peer) -> None:
        peer.read()
        peer.write(b"HTTP/1.1 200 OK\r\n")
        peer.drip(b"X: 1\r\n")

    with Loopback(drips) as server:
        transport = transport_to(server.url)

        def times_out() -> bool:
            started = time.monotonic()
            try:
                transport.send(call_to(transport, timeout=0.1))
            except requests.ReadTimeout:
                return time.monotonic() - started < 0.4
            return False

        assert times_out()
        assert in_child(times_out) == 0
        transport.close()


def test_a_fork_while_other_threads_send() -> None:
    with Loopback(always(echo)) as server:
        transport = transport_to(server.url, concurrency=4)
        stop, wrong = threading.Event(), []

        def send_on(name: str) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                if transport.send(call_to(transport, target=f"/{name}-{number}")).text != f"/{name}-{number}":
                    wrong.append(name)

        threads = [threading.Thread(target=send_on, args=(f"thread-{n}",)) for n in range(3)]
        for thread in threads:
            thread.start()
        codes = [
            in_child(lambda n=n: transport.send(call_to(transport, target=f"/child-{n}")).text == f"/child-{n}")
            for n in range(8)
        ]
        stop.set()
        for thread in threads:
            thread.join(5)
        transport.close()
    assert codes == [0] * 8
    assert wrong == []


@pytest.fixture
def hostile_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A netrc with a login for loopback, and proxies that lead nowhere."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password stolen\nmachine localhost login eve password stolen\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    return netrc


@pytest.mark.usefixtures("hostile_environment")
@pytest.mark.parametrize("session_mode", [False, True])
def test_neither_netrc_nor_proxies_of_the_environment_are_used(session_mode: bool) -> None:
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url, session_mode=session_mode)
        transport.send(call_to(transport))
        transport.send(call_to(transport, headers=(("Authorization", "Bearer mine"),)))
        transport.close()
    assert [seen.headers.get("authorization") for seen in server.seen] == [None, "Bearer mine"]
    assert [seen.target for seen in server.seen] == ["/query", "/query"]


@pytest.mark.usefixtures("hostile_environment")
@pytest.mark.parametrize("session_mode", [False, True])
def test_proxies_of_the_environment_are_used_when_asked_for(
    session_mode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Loopback(always(answer(b"by proxy"))) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//ann:pw@"))
        transport = transport_to("http://chroma.test:6003", trust_env=True, session_mode=session_mode)
        assert [transport.send(call_to(transport)).content for _ in range(2)] == [b"by proxy"] * 2
        transport.close()
    assert proxy.seen[0].target == "http://chroma.test:6003/query"
    assert proxy.seen[0].headers["proxy-authorization"].startswith("Basic ")
    assert "authorization" not in proxy.seen[0].headers
    assert proxy.connections == 1


def test_descriptors_that_run_out_are_not_the_services_fault() -> None:
    """In a process of its own, whose descriptors are used up before it sends, for a name as well as an address."""
    program = """
        import os, resource, socket, sys
        from seawall.actors.failures import may_have_been_sent
        from seawall.errors import LocalResourceError
        from tests.support.loopback import call_to, transport_to

        port = sys.argv[1]
        transports = [transport_to(f"http://{host}:{port}") for host in ("127.0.0.1", "localhost")]
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        for transport in transports:
            try:
                transport.send(call_to(transport))
            except LocalResourceError as error:
                sys.stdout.write(f"{error.service}: {may_have_been_sent(error)}\\n")
        for number in taken:
            os.close(number)
        for transport in transports:
            sys.stdout.write(transport.send(call_to(transport)).text + "\\n")
    """
    with Loopback(always(answer())) as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), str(server.port)],
            capture_output=True,
            text=True,
            timeout=20,
            cwd=Path(__file__).resolve().parents[2],
        )
    assert done.stdout.splitlines() == ["Chroma Server: False"] * 2 + ["ok"] * 2, done.stderr


def test_the_token_is_in_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), Loopback(always(answer(status="500 Oops"))) as server:
        transport = transport_to(server.url, token=TokenSource(value=TOKEN))
        transport.send(call_to(transport))
        transport.close()
    assert server.seen[0].headers["x-internal-token"] == TOKEN
    assert TOKEN not in caplog.text


def test_more_threads_than_kept_connections_are_served_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Loopback(always(echo)) as server:
        transport = transport_to(server.url, concurrency=2)
        gate = threading.Barrier(6)
        texts: list[str] = []

        def send(number: int) -> None:
            gate.wait(5)
            texts.append(transport.send(call_to(transport, target=f"/{number}")).text)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        transport.close()
    assert sorted(texts) == [f"/{number}" for number in range(6)]
    assert caplog.messages == []

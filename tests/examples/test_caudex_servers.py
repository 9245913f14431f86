"""The example's four services, each as a real process on a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from examples.caudex.processes import ProcessDied, ServiceProcess
from examples.caudex.projects import file_in_project
from examples.caudex.servers.base import App, Request, route
from examples.caudex.servers.fields import whole_number
from examples.caudex.servers.tally import Tally

TOKEN = "test-only-token"
OPEN_DOORS = {"SEAWALL_INTERNAL_TOKEN": "", "SEAWALL_INTERNAL_TOKEN_FILE": "", "SEAWALL_INTERNAL_TOKEN_HEADER": ""}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ServiceProcess]]:
    """All four over one data folder, started side by side, shared by the tests that leave them as they were."""
    data = tmp_path_factory.mktemp("caudex")
    names = ("chroma", "filesystem", "billing", "git")
    processes = {name: ServiceProcess(name, data=data, environ=OPEN_DOORS) for name in names}
    with ExitStack() as stack:
        for process in processes.values():
            stack.callback(process.stop)
            process.launch()
        for process in processes.values():
            process.wait_ready()
        yield processes
        for process in processes.values():
            process.ask_to_stop()


@pytest.fixture
def billing(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A billing service of its own, for tests that kill it or count everything."""
    with ServiceProcess("billing", data=tmp_path, environ=OPEN_DOORS) as process:
        yield process


# Chroma


def test_search_finds_the_nearest_document_of_its_collection(servers):
    chroma = servers["chroma"]
    documents = ["The breaker opens after failures.", "Cacti store water.", "A trial closes the open breaker again."]
    added = chroma.ask("POST", "/add", json={"collection_name": "one", "documents": documents, "ids": ["a", "b", "c"]})
    assert added.json() == {"added": 3, "count": 3}
    chroma.ask("POST", "/add", json={"collection_name": "two", "documents": ["Breakers of the sea."]})

    wanted = {"collection_name": "one", "query_texts": ["closing breakers", "water?"], "n_results": 2}
    found = chroma.ask("POST", "/query", json=wanted).json()

    assert found["ids"] == [["c", "a"], ["b"]]
    assert found["documents"][1] == ["Cacti store water."]
    near, far = found["distances"][0]
    assert 0 < near <= far <= 1


def test_the_same_id_again_replaces_the_document_in_the_index(servers):
    chroma = servers["chroma"]
    for document in ("an old harbour", "a new lighthouse"):
        chroma.ask("POST", "/add", json={"collection_name": "replace", "documents": [document], "ids": ["x"]})
    wanted = {"collection_name": "replace", "query_texts": ["harbour", "lighthouse"]}
    assert chroma.ask("POST", "/query", json=wanted).json()["ids"] == [[], ["x"]]


@pytest.mark.parametrize("query", ['" OR "', "breaker AND NOT (", "col:*", "???", "' ; DROP TABLE documents"])
def test_a_query_is_words_and_never_the_indexs_language(servers, query):
    answer = servers["chroma"].ask("POST", "/query", json={"query_texts": [query]})
    assert (answer.status_code, len(answer.json()["ids"])) == (200, 1)


def test_chroma_says_when_it_is_ready(servers):
    assert servers["chroma"].ask("GET", "/ready").json()["ready"] is True


# Billing


def test_the_same_key_deducts_once_and_gets_the_same_answer(billing):
    billing.ask("POST", "/add_funds", json={"user_id": "ada", "amount": 100})
    wanted = {"json": {"user_id": "ada", "amount": 30}, "headers": {"Idempotency-Key": "k1"}}
    first, again = (billing.ask("POST", "/deduct_cost", **wanted) for _ in range(2))
    assert first.json() == again.json() == {"entry": 2, "user_id": "ada", "amount": 30, "balance": 70}
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert billing.ask("GET", "/balance/ada").json() == {"user_id": "ada", "balance": 70}


def test_duplicates_that_come_at_once_deduct_once(billing):
    billing.ask("POST", "/add_funds", json={"user_id": "ada", "amount": 1000})
    keys = [f"key-{number % 4}" for number in range(24)]

    def deduct(key: str) -> tuple[str, int]:
        wanted = {"json": {"user_id": "ada", "amount": 10}, "headers": {"Idempotency-Key": key}}
        return key, billing.ask("POST", "/deduct_cost", **wanted).json()["entry"]

    with ThreadPoolExecutor(8) as pool:
        entries = set(pool.map(deduct, keys))

    assert len(entries) == 4
    assert billing.ask("GET", "/balance/ada").json()["balance"] == 960
    assert billing.ask("GET", "/ledger?user_id=ada").json()["total"] == 5


def test_too_little_money_is_402_and_books_nothing(billing):
    billing.ask("POST", "/add_funds", json={"user_id": "bob", "amount": 5})
    wanted = {"json": {"user_id": "bob", "amount": 6}, "headers": {"Idempotency-Key": "too-much"}}
    answers = [billing.ask("POST", "/deduct_cost", **wanted) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [402, 402]
    assert billing.ask("GET", "/balance/bob").json()["balance"] == 5
    assert [entry["amount"] for entry in billing.ask("GET", "/ledger").json()["entries"]] == [5]


def test_a_key_used_for_another_request_is_refused(billing):
    billing.ask("POST", "/add_funds", json={"user_id": "ada", "amount": 100}, headers={"Idempotency-Key": "k"})
    other = billing.ask("POST", "/deduct_cost", json={"user_id": "ada", "amount": 1}, headers={"Idempotency-Key": "k"})
    assert other.status_code == 422
    assert billing.ask("GET", "/balance/ada").json()["balance"] == 100


@pytest.mark.parametrize("amount", [0, -5, 1.5, True, None, "ten", 10**30])
def test_an_amount_that_is_no_positive_whole_number_is_400(servers, amount):
    answer = servers["billing"].ask("POST", "/deduct_cost", json={"user_id": "eve", "amount": amount})
    assert answer.status_code == 400
    assert "amount" in answer.json()["error"]


def test_the_ledger_and_the_counts_outlive_a_kill(billing):
    wanted = {"json": {"user_id": "ada", "amount": 100}, "headers": {"Idempotency-Key": "k1"}}
    first = billing.ask("POST", "/add_funds", **wanted).json()
    port = billing.port
    billing.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    billing.start()
    assert billing.port == port
    assert billing.ask("POST", "/add_funds", **wanted).json() == first
    assert billing.ask("GET", "/admin/requests").json() == {"received": 2, "delivered": 2, "keys": {"k1": [2, 2]}}


# Filesystem


def test_a_saved_file_is_read_back_and_replaced(servers):
    filesystem = servers["filesystem"]
    place = {"project_id": "p1", "file_path": "notes/day one.md"}
    for content in ("first", "zweite Fassung, äöü"):
        saved = filesystem.ask("POST", "/save_file", json={**place, "content": content})
        assert saved.status_code == 200
        assert filesystem.ask("GET", "/read_file", params=place).json() == {"content": content}
    assert filesystem.ask("GET", "/files/p1").json() == {"files": ["notes/day one.md"]}
    assert list((filesystem.data / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    "path",
    ["../p1/x", "a/../../x", "/etc/passwd", "..", ".", "", "a/", "a\\b", "a\0b", ".git/config", "sub/.GIT/hooks/x", 7],
)
def test_a_path_out_of_the_project_is_refused(servers, path):
    filesystem = servers["filesystem"]
    save = {"project_id": "p2", "file_path": path, "content": "x"}
    assert filesystem.ask("POST", "/save_file", json=save).status_code == 400
    if isinstance(path, str):
        read = filesystem.ask("GET", "/read_file", params={"project_id": "p2", "file_path": path})
        assert read.status_code == 400
    assert not (filesystem.data / "files" / "p2").exists()


@pytest.mark.parametrize("project", ["../p1", "..", "", "a/b", "x" * 65, None, True])
def test_a_project_that_is_no_plain_name_is_refused(servers, project):
    save = {"project_id": project, "file_path": "x", "content": "x"}
    assert servers["filesystem"].ask("POST", "/save_file", json=save).status_code == 400


def test_a_link_out_of_the_project_is_not_followed(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "way-out").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="inside the project"):
        file_in_project(tmp_path / "project", "way-out/secret")


def test_a_missing_file_is_404_and_a_folder_in_the_way_409(servers):
    filesystem = servers["filesystem"]
    filesystem.ask("POST", "/save_file", json={"project_id": "p3", "file_path": "a/b", "content": "x"})
    missing = filesystem.ask("GET", "/read_file", params={"project_id": "p3", "file_path": "a"})
    over_folder = filesystem.ask("POST", "/save_file", json={"project_id": "p3", "file_path": "a", "content": "x"})
    under_file = filesystem.ask("POST", "/save_file", json={"project_id": "p3", "file_path": "a/b/c", "content": "x"})
    assert [answer.status_code for answer in (missing, over_folder, under_file)] == [404, 409, 409]


# Git


def commits(git: ServiceProcess, project: str) -> int:
    store = git.data / "git" / f"{project}.git"
    counted = subprocess.run(["git", f"--git-dir={store}", "rev-list", "--count", "HEAD"], capture_output=True)
    return int(counted.stdout)


def test_a_snapshot_commits_the_projects_files_even_when_unchanged(servers):
    git = servers["git"]
    save = {"project_id": "book", "file_path": "ch/one.md", "content": "It was a dark night."}
    servers["filesystem"].ask("POST", "/save_file", json=save)

    messages = ["first draft", "# no comment", "-m --amend", " "]
    answers = [git.ask("POST", "/snapshot/book", json={"message": message}).json() for message in messages]

    assert [answer["count"] for answer in answers] == [1, 2, 3, 4]
    assert commits(git, "book") == 4
    store = git.data / "git" / "book.git"
    show = ["git", f"--git-dir={store}", "show", f"{answers[0]['commit']}:ch/one.md"]
    assert subprocess.run(show, capture_output=True, text=True).stdout == save["content"]
    log = git.ask("GET", "/log/book?limit=3").json()
    assert log["total"] == 4
    assert [commit["message"] for commit in log["commits"]] == ["Auto-save", "-m --amend", "# no comment"]


def test_snapshots_that_come_at_once_all_become_commits(servers):
    git = servers["git"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: git.ask("POST", "/snapshot/busy").json(), range(6)))
    assert sorted(answer["count"] for answer in answers) == [1, 2, 3, 4, 5, 6]
    assert commits(git, "busy") == 6


def test_a_lock_left_by_a_killed_git_is_no_obstacle(servers):
    git = servers["git"]
    git.ask("POST", "/snapshot/stuck")
    (git.data / "git" / "stuck.git" / "index.lock").touch()
    assert git.ask("POST", "/snapshot/stuck").json()["count"] == 2


def test_git_knows_no_project_before_its_first_snapshot(servers):
    assert servers["git"].ask("GET", "/log/unheard-of").status_code == 404
    assert servers["git"].ask("POST", "/snapshot/..%2Fescape").status_code == 400


# What all four share


@pytest.mark.parametrize("name", ["chroma", "filesystem", "billing", "git"])
def test_each_service_is_healthy_and_knows_its_paths(servers, name):
    assert servers[name].ask("GET", "/health").json() == {"status": "ok", "service": name}
    assert servers[name].ask("GET", "/nowhere").status_code == 404
    wrong_method = servers[name].ask("PUT", "/admin/fail")
    assert (wrong_method.status_code, wrong_method.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"text"', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_400(servers, body):
    assert servers["billing"].ask("POST", "/deduct_cost", data=body).status_code == 400


def test_one_connection_serves_many_requests_even_after_an_error(servers):
    with socket.create_connection(("127.0.0.1", servers["billing"].port), timeout=5) as connection:
        answers = connection.makefile("rb")
        for line in (b"GET /health", b"POST /nowhere", b"HEAD /health", b"GET /balance/a%20b"):
            connection.sendall(line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            status = answers.readline().split()[1]
            headers = dict(iter(lambda: answers.readline().strip().partition(b": ")[::2], (b"", b"")))
            body = b"" if line.startswith(b"HEAD") else answers.read(int(headers[b"Content-Length"]))
            assert status == (b"404" if b"nowhere" in line else b"200")
        assert body == b'{"user_id": "a b", "balance": 0}'


def test_the_token_is_required_when_set(tmp_path):
    with ServiceProcess("billing", data=tmp_path, environ={**OPEN_DOORS, "SEAWALL_INTERNAL_TOKEN": TOKEN}) as billing:
        for given in ("", "wrong", "\xe9"):
            refused = billing.ask("GET", "/balance/ada", headers={"X-Internal-Token": given})
            assert refused.status_code == 401
            assert TOKEN not in refused.text
        assert billing.ask("POST", "/admin/fail?seconds=9", headers={"X-Internal-Token": ""}).status_code == 401
        assert billing.ask("GET", "/health", headers={"X-Internal-Token": ""}).status_code == 200
        assert billing.ask("GET", "/balance/ada").status_code == 200


def test_a_service_fails_when_told_to_until_told_otherwise(servers):
    chroma = servers["chroma"]
    chroma.ask("POST", "/admin/fail?seconds=600")
    failing = [chroma.ask("GET", path).status_code for path in ("/health", "/ready")]
    counted = chroma.ask("GET", "/admin/requests").status_code
    chroma.ask("POST", "/admin/fail?seconds=0")
    working = [chroma.ask("GET", path).status_code for path in ("/health", "/ready")]
    assert (failing, counted, working) == ([500, 500], 200, [200, 200])
    assert chroma.ask("POST", "/admin/fail?seconds=soon").status_code == 400


def test_failing_ends_by_itself(tmp_path):
    now = [100.0]
    app = App("clocked", [], tally=Tally(tmp_path / "requests"), monotonic=lambda: now[0])
    app.answer(Request(method="POST", path="/admin/fail", query={"seconds": "20"}))
    statuses = []
    for now[0] in (119.9, 120.0):
        statuses.append(app.answer(Request(method="GET", path="/health")).status)
    assert statuses == [500, 200]


def test_requests_are_counted_by_their_key(tmp_path):
    def work(request: Request):
        whole_number(request.json(), "n", low=0, high=9)
        raise RuntimeError("a bug")

    tally = Tally(tmp_path / "requests")
    app = App("counted", [route("POST", "/work", work)], tally=tally)
    for body, key in ((b"{}", "a"), (b'{"n": 1}', "a"), (b"{}", "b c"), (b"{}", "")):
        app.answer(Request(method="POST", path="/work", headers={"idempotency-key": key}, body=body))
    tally.add("a", 201)
    assert tally.report() == {"received": 4, "delivered": 1, "keys": {"a": [3, 1], "b c": [1, 0]}}
    assert Tally(tmp_path / "requests").report() == tally.report()


# The processes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_cleanly(tmp_path, number):
    command = [sys.executable, "-m", "examples.caudex.servers.chroma", "--port", "0", "--data", str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout.readline().startswith(b"chroma is listening on http://127.0.0.1:")
        server.send_signal(number)
        assert server.wait(10) == 0
        assert server.stderr.read() == b""


def test_a_server_ends_when_its_parent_is_gone(tmp_path):
    with ServiceProcess("chroma", data=tmp_path) as chroma:
        child = chroma._child
        child.stdin.close()  # what the system does when this process dies, however it dies
        assert child.wait(10) == 0


def test_a_taken_port_is_reported_in_the_services_own_words(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ProcessDied, match=f"billing cannot start on port {port}"):
            ServiceProcess("billing", data=tmp_path, port=port).start()


def test_stopping_is_safe_twice_and_before_a_start(tmp_path):
    process = ServiceProcess("chroma", data=tmp_path)
    process.stop()
    process.start()
    pid = process.pid
    process.stop()
    process.stop()
    assert not process.running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)

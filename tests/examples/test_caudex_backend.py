"""The example's backend against its four services, which are real; Seawall runs in memory."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from examples.caudex.fallback import BasicSearch
from examples.caudex.fleet import Fleet
from examples.caudex.processes import ServiceProcess
from examples.caudex.wording import best_sentences

PASSAGES = {
    "caudex": "A caudex stores water. It is a thick stem.",
    "breaker": "The breaker opens after failures. It closes when a trial succeeds.",
    "lamp": "The lighthouse keeper trims the lamp.",
}
OPEN_DOORS = {"SEAWALL_INTERNAL_TOKEN": "", "SEAWALL_INTERNAL_TOKEN_FILE": ""}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The four services on free ports, with their addresses in the environment."""
    with (
        Fleet(tmp_path_factory.mktemp("caudex"), backend=False, environ=OPEN_DOORS) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, url in {**running.addresses(), **OPEN_DOORS}.items():
            patch.setenv(name, url)
        yield running
        forget_modules()


@pytest.fixture
def backend(fleet: Fleet, seawall: Any, tmp_path: Path) -> FlaskClient:
    """A backend with three documents in project "p1" and a user "ada" who has credits."""
    forget_modules()  # importing them declares the services, in this test's own fresh Seawall
    app = importlib.import_module("examples.caudex.backend").create_app(tmp_path)
    client: FlaskClient = app.test_client()
    stored = client.post(
        "/v1/api/documents", json={"project_id": "p1", "ids": list(PASSAGES), "documents": list(PASSAGES.values())}
    )
    assert stored.status_code == 201
    fleet.services["billing"].ask("POST", "/add_funds", json={"user_id": "ada", "amount": 100})
    return client


@pytest.fixture
def failing(fleet: Fleet) -> Iterator[Any]:
    """`failing("git")` makes a service answer 500 until the end of the test; it is given back for more."""
    told: list[ServiceProcess] = []

    def fail(name: str) -> ServiceProcess:
        told.append(fleet.services[name])
        told[-1].ask("POST", "/admin/fail?seconds=600").raise_for_status()
        return told[-1]

    yield fail
    for service in told:
        service.ask("POST", "/admin/fail?seconds=0").raise_for_status()


def forget_modules() -> None:
    for module in ("backend", "services"):
        sys.modules.pop(f"examples.caudex.{module}", None)


def balance(fleet: Fleet) -> int:
    return int(fleet.services["billing"].ask("GET", "/balance/ada").json()["balance"])


def requests_seen(fleet: Fleet, service: str) -> int:
    return int(fleet.services[service].ask("GET", "/admin/requests").json()["received"])


def chat(backend: FlaskClient, project: str, **headers: str) -> Any:
    wanted = {"project_id": project, "user_id": "ada", "query": "When does the breaker close?"}
    return backend.post("/v1/api/chat", json=wanted, headers=headers)


# Fail open: search


def test_search_is_answered_by_chroma(backend):
    answer = backend.post("/v1/api/search", json={"project_id": "p1", "query": "breakers", "n_results": 1})
    assert answer.json["source"] == "chroma"
    assert [hit["id"] for hit in answer.json["results"]] == ["breaker"]


def test_search_falls_back_when_the_breaker_is_open_and_leaves_chroma_alone(backend, fleet, seawall):
    seen = requests_seen(fleet, "chroma")
    seawall.open("chroma")
    answer = backend.post("/v1/api/search", json={"project_id": "p1", "query": "thick stems"})
    assert (answer.status_code, answer.json["source"]) == (200, "fallback")
    assert answer.json["results"] == [{"id": "caudex", "document": PASSAGES["caudex"]}]
    assert requests_seen(fleet, "chroma") == seen


def test_search_falls_back_when_chroma_is_gone(backend, fleet):
    fleet.services["chroma"].kill()
    try:
        answer = backend.post("/v1/api/search", json={"project_id": "p1", "query": "thick stems"})
    finally:
        fleet.services["chroma"].start()
    assert (answer.status_code, answer.json["source"]) == (200, "fallback")


def test_documents_are_refused_while_they_cannot_be_stored(backend, failing):
    failing("chroma")
    assert backend.post("/v1/api/documents", json={"documents": ["a new one"]}).status_code == 503


# Fail closed: billing


def test_a_deduction_answers_with_the_new_balance(backend, fleet):
    before = balance(fleet)
    answer = backend.post("/v1/api/billing/deduct", json={"user_id": "ada", "amount": 7})
    assert answer.json == {"user_id": "ada", "amount": 7, "balance": before - 7}


def test_a_deduction_is_503_while_billing_fails(backend, fleet, failing):
    before = balance(fleet)
    billing = failing("billing")
    answer = backend.post("/v1/api/billing/deduct", json={"user_id": "ada", "amount": 7})
    billing.ask("POST", "/admin/fail?seconds=0")
    assert answer.status_code == 503
    assert balance(fleet) == before


def test_a_chat_is_503_and_leaves_no_trace_while_billing_is_open(backend, fleet, seawall):
    before = balance(fleet)
    seawall.open("billing")
    answer = chat(backend, "unpaid")
    seawall.drain()
    assert answer.status_code == 503
    assert balance(fleet) == before
    assert fleet.services["filesystem"].ask("GET", "/files/unpaid").json()["files"] == []
    assert fleet.services["git"].ask("GET", "/log/unpaid").status_code == 404


def test_too_little_money_is_402_and_no_failure_of_billing(backend):
    answer = backend.post("/v1/api/billing/deduct", json={"user_id": "poor", "amount": 1})
    assert (answer.status_code, answer.json["error"]) == (402, "insufficient funds")
    assert backend.get("/v1/api/status/services").json["billing"]["consecutive_failures"] == 0


def test_the_users_own_retry_is_charged_once(backend, fleet):
    before = balance(fleet)
    answers = [chat(backend, "p1", **{"Idempotency-Key": "from-the-browser"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert balance(fleet) == before - 2


# Best effort: files and snapshots


def test_a_chat_is_answered_paid_saved_and_snapshot(backend, fleet, seawall):
    before = balance(fleet)
    answer = chat(backend, "p1").json
    seawall.drain()

    assert "It closes when a trial succeeds." in answer["answer"]
    assert (answer["source"], answer["saved"], answer["balance"]) == ("chroma", "now", before - 2)
    saved = fleet.services["filesystem"].ask("GET", "/files/p1").json()["files"]
    assert saved
    assert all(path.startswith("chats/") for path in saved)
    log = fleet.services["git"].ask("GET", "/log/p1").json()
    assert log["commits"][0]["message"] == "Chat: When does the breaker close?"


def test_a_chat_goes_on_while_files_cannot_be_saved_and_they_are_saved_later(backend, fleet, failing, seawall):
    filesystem = failing("filesystem")
    answer = chat(backend, "patient")
    assert (answer.status_code, answer.json["saved"]) == (200, "later")
    filesystem.ask("POST", "/admin/fail?seconds=0")
    seawall.advance(61)
    seawall.drain()
    assert len(filesystem.ask("GET", "/files/patient").json()["files"]) == 1


def test_a_chat_goes_on_while_git_is_open(backend, seawall):
    seawall.open("git")
    assert chat(backend, "p1").status_code == 200


# Status and bad input


def test_the_status_shows_all_four_breakers(backend, seawall):
    seawall.open("git")
    status = backend.get("/v1/api/status/services").json
    assert {name: entry["state"] for name, entry in status.items()} == {
        "chroma": "closed",
        "filesystem": "closed",
        "billing": "closed",
        "git": "open",
    }
    thresholds = [status[name]["failure_threshold"] for name in ("chroma", "filesystem", "billing", "git")]
    assert thresholds == [5, 5, 10, 5]
    assert backend.get("/health").json["status"] == "ok"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/api/search", {}),
        ("/v1/api/search", {"query": 7}),
        ("/v1/api/chat", {"query": "x", "project_id": "../other"}),
        ("/v1/api/billing/deduct", {"user_id": "ada", "amount": -1}),
        ("/v1/api/documents", {"documents": ["a"], "ids": ["a", "b"]}),
        ("/v1/api/documents", ["a list"]),
    ],
)
def test_bad_input_is_400_and_reaches_no_service(backend, path, fields):
    answer = backend.post(path, json=fields)
    assert answer.status_code == 400
    assert answer.json["error"]


# The parts that need no service


def test_the_basic_search_outlives_a_restart_and_a_torn_line(tmp_path):
    path = tmp_path / "documents.jsonl"
    BasicSearch(path).add("p", {"a": "A thick stem.", "b": "Nothing else."})
    BasicSearch(path).add("p", {"a": "A thick stem."})
    assert len(path.read_text().splitlines()) == 2
    with path.open("a") as file:
        file.write('["p", "c", "cut sh')
    assert BasicSearch(path).search("p", "stems", 5) == [{"id": "a", "document": "A thick stem."}]


def test_an_answer_is_made_of_the_best_sentences_in_their_order():
    passages = ["Tea is hot. A breaker opens.", "Open breakers close after a trial. Tea is hot."]
    assert best_sentences("opens breaker", passages, limit=2) == "A breaker opens. Open breakers close after a trial."
    assert best_sentences("zebra", passages) == ""

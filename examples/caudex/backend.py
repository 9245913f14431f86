"""The guide's backend: a small Flask application that meets each service's failure in the way that fits it.

    POST /v1/api/search            fails open: when Chroma is away, a basic search of the backend's own
    POST /v1/api/chat              search, answer, pay, save, snapshot: all three patterns in a row
    POST /v1/api/billing/deduct    fails closed: 503 when billing is away
    POST /v1/api/documents         store documents of a project
    GET  /v1/api/status/services   every service's breaker
    GET  /health                   this process answers

Runs as `python -m examples.caudex.backend --port 6001 --data DIR`, or under any WSGI server by `create_app`.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests
from flask import Blueprint, Flask, current_app, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.serving import make_server

import seawall
from examples.caudex.addresses import BACKEND_PORT
from examples.caudex.fallback import BasicSearch
from examples.caudex.projects import project_name
from examples.caudex.servers.fields import Problem, checked, text, texts, whole_number
from examples.caudex.servers.serving import STOP_POLL, arguments, wait_for_end
from examples.caudex.services import billing, chroma, filesystem, git
from examples.caudex.stopping import StopSignals
from examples.caudex.wording import best_sentences
from seawall import ServiceUnavailable

__all__ = ["create_app"]

#: Credits for one answer.
CHAT_COST = 2
#: Passages that an answer is made from.
CONTEXT_PASSAGES = 4
NOTHING_FOUND = "Nothing in this project's documents answers that."

logger = logging.getLogger("caudex.backend")
routes = Blueprint("caudex", __name__)


def create_app(data: Path | None = None) -> Flask:
    """The application; with a `data` folder its copy of the documents outlives a restart."""
    app = Flask("caudex")
    app.extensions["caudex.search"] = BasicSearch(data / "documents.jsonl" if data else None)
    app.register_blueprint(routes)
    app.register_error_handler(Problem, lambda problem: _error(str(problem), problem.status))
    app.register_error_handler(HTTPException, lambda error: _error(error.description or "error", error.code or 500))
    return app


@routes.post("/v1/api/search")
def search() -> ResponseReturnValue:
    fields = _fields()
    limit = whole_number(fields, "n_results", low=1, high=50, default=5)
    results, source = _find(_project(fields), text(fields, "query", longest=2000), limit)
    return jsonify(results=results, source=source)


@routes.post("/v1/api/chat")
def chat() -> ResponseReturnValue:
    fields = _fields()
    project, user = _project(fields), text(fields, "user_id", default="demo", longest=100)
    query = text(fields, "query", longest=2000)
    passages, source = _find(project, query, CONTEXT_PASSAGES)
    answer = best_sentences(query, [passage["document"] for passage in passages]) or NOTHING_FOUND
    balance = _deduct(user, CHAT_COST)
    saved = _save(project, f"chats/{uuid.uuid4().hex}.md", f"# {query}\n\n{answer}\n")
    seawall.snapshot(git, project, message=f"Chat: {' '.join(query.split())[:60]}")
    return jsonify(answer=answer, source=source, cost=CHAT_COST, balance=balance, saved=saved)


@routes.post("/v1/api/billing/deduct")
def deduct() -> ResponseReturnValue:
    fields = _fields()
    user = text(fields, "user_id", longest=100)
    amount = whole_number(fields, "amount", low=1, high=1_000_000)
    return jsonify(user_id=user, amount=amount, balance=_deduct(user, amount))


@routes.post("/v1/api/documents")
def documents() -> ResponseReturnValue:
    fields = _fields()
    project, passages = _project(fields), texts(fields, "documents", most=200)
    default_ids = [hashlib.sha256(passage.encode(errors="replace")).hexdigest()[:16] for passage in passages]
    ids = texts(fields, "ids", most=200) if "ids" in fields else default_ids
    if len(ids) != len(passages):
        raise Problem(400, "ids must be as many as documents")
    wanted = {"collection_name": f"project_{project}", "ids": ids, "documents": passages}
    try:
        chroma.post("/add", json=wanted).raise_for_status()
    except requests.RequestException as error:
        logger.error("Storing documents failed: %s", error)
        return _error("The document store is unavailable", 503)
    _basic_search().add(project, dict(zip(ids, passages, strict=True)))
    return jsonify(stored=len(ids)), 201


@routes.get("/v1/api/status/services")
def status() -> ResponseReturnValue:
    clients = {"chroma": chroma, "filesystem": filesystem, "billing": billing, "git": git}
    return jsonify({name: client.get_status() for name, client in clients.items()})


@routes.get("/health")
def health() -> ResponseReturnValue:
    return jsonify(status="ok", service="backend")


def _find(project: str, query: str, limit: int) -> tuple[list[dict[str, Any]], str]:
    """Fail open: the results and where they are from, "chroma" or "fallback"."""
    wanted = {"collection_name": f"project_{project}", "query_texts": [query], "n_results": limit}
    try:
        response = chroma.post("/query", json=wanted)
        response.raise_for_status()
        return _hits(response.json()), "chroma"
    except ServiceUnavailable as error:
        logger.warning("Chroma is away for another %.0f s, searching here", error.retry_after)
    except requests.RequestException as error:
        logger.warning("Chroma failed, searching here: %s", error)
    return _basic_search().search(project, query, limit), "fallback"


def _hits(found: dict[str, Any]) -> list[dict[str, Any]]:
    columns = zip(found["ids"][0], found["documents"][0], found["distances"][0], strict=True)
    return [{"id": id, "document": document, "distance": distance} for id, document, distance in columns]


def _deduct(user: str, amount: int) -> int:
    """Fail closed: the new balance, or Problem 402 without the funds, or 503 when nobody knows.

    A key that the caller sent is passed on, so that the user's own retry is not charged twice either.
    """
    key = request.headers.get("Idempotency-Key")
    headers = {"Idempotency-Key": key} if key else {}
    try:
        response = billing.post("/deduct_cost", json={"user_id": user, "amount": amount}, headers=headers)
        if response.status_code in (402, 422):
            raise Problem(response.status_code, response.json()["error"])
        response.raise_for_status()
        return int(response.json()["balance"])
    except ServiceUnavailable:
        logger.error("Billing is away, charging nobody")
        raise Problem(503, "Billing is unavailable, please try again later") from None
    except requests.RequestException as error:
        logger.error("Billing failed: %s", error)
        raise Problem(503, "Billing failed, please try again later") from None


def _save(project: str, path: str, content: str) -> str:
    """Best effort: "now", or "later" when the file waits in the queue for its service to return."""
    wanted = {"project_id": project, "file_path": path, "content": content}
    try:
        filesystem.post("/save_file", json=wanted).raise_for_status()
        return "now"
    except requests.RequestException as error:
        logger.warning("Saving %s waits: %s", path, error)
    filesystem.fire("POST", "/save_file", json=wanted)
    return "later"


def _fields() -> dict[str, Any]:
    fields = request.get_json(silent=True)
    if not isinstance(fields, dict):
        raise Problem(400, "send a JSON object")
    return fields


def _project(fields: dict[str, Any]) -> str:
    return str(checked(project_name, fields.get("project_id", "handbook")))


def _basic_search() -> BasicSearch:
    found: BasicSearch = current_app.extensions["caudex.search"]
    return found


def _error(message: str, code: int) -> ResponseReturnValue:
    return jsonify(error=message), code


def main(argv: Sequence[str] | None = None) -> int:
    """Serve on a port of this machine until SIGTERM or ctrl-C."""
    options = arguments("backend", BACKEND_PORT, argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with StopSignals() as stop:
        server = make_server("127.0.0.1", options.port, create_app(options.data), threaded=True)
        threading.Thread(target=server.serve_forever, args=(STOP_POLL,), name="accept", daemon=True).start()
        wait_for_end("backend", server.server_port, stop, with_parent=options.with_parent)
        server.shutdown()
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

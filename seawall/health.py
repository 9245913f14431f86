"""Whether a worker, a supervisor or a web process of this host is at work, for a container's probe; as `health+json` has it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import requests

from seawall.fleet import Fleet

__all__ = ["Checks", "health", "supervisor_checks", "web_checks", "worker_checks"]

#: Checks by name, each with its `status` (pass, warn or fail) and, where it does not pass, what is wrong in `output`.
Checks = dict[str, dict[str, Any]]
#: Whether a report is of the process that is meant.
Meant = Callable[[Mapping[str, Any]], bool]


def health(checks: Checks) -> dict[str, Any]:
    """The whole: the worst of its checks."""
    found = {check["status"] for check in checks.values()}
    return {"status": next(status for status in ("fail", "warn", "pass") if status in found), "checks": checks}


def worker_checks(fleet: Fleet, meant: Meant, declared: Collection[str]) -> Checks:
    """A worker that is meant has a fresh heartbeat, and serves every declared service."""
    workers = [worker for worker in fleet.workers if meant(worker)]
    if not workers:
        return {"worker": _fail("no such worker has a heartbeat of the last seconds")}
    served = {key for worker in workers for key in worker.get("services", {})}
    missing = sorted(set(declared) - served)
    return {
        "worker": {"status": "pass", "componentId": [worker.get("id") for worker in workers]},
        "services": _fail(f"not served: {', '.join(missing)}") if missing else {"status": "pass"},
    }


def supervisor_checks(fleet: Fleet, meant: Meant) -> Checks:
    """A supervisor that is meant has reported lately. That none leads is a warning: another one may be about to."""
    found = [supervisor.get("id") for supervisor in fleet.supervisors if meant(supervisor)]
    leader = {"status": "pass"} if fleet.leader else {"status": "warn", "output": "no supervisor leads"}
    if not found:
        return {"supervisor": _fail("no such supervisor has reported lately"), "leader": leader}
    return {"supervisor": {"status": "pass", "componentId": found}, "leader": leader}


def web_checks(host: str, port: int, timeout: float) -> Checks:
    """The web process at this address answers its own /healthz within `timeout` seconds."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where everybody may ask, ask here
    address = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    try:
        with requests.Session() as session:
            session.trust_env = False
            status = session.get(f"http://{address}/healthz", timeout=timeout).status_code
    except requests.RequestException as error:
        return {"web": _fail(f"{address} does not answer ({type(error).__name__})")}
    return {"web": {"status": "pass"} if status == 200 else _fail(f"{address} answered {status}")}


def _fail(output: str) -> dict[str, Any]:
    return {"status": "fail", "output": output}

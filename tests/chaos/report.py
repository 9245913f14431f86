"""A chaos run for people, as tables, and for machines, as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.checker import Check
from tests.chaos.evidence import Evidence
from tests.chaos.letters import number_in
from tests.chaos.plan import Plan

__all__ = ["figures", "show", "write"]

#: Cases of a failed check that are shown; the file has more of them.
SHOWN, WRITTEN = 5, 200


def figures(evidence: Evidence) -> dict[str, Any]:
    """What happened, counted."""
    asked, visits = evidence.asked, evidence.visits
    ends = Counter(one.end or "caller died" for one in asked if one.waited)
    carried_out = Counter(number_in(visit.path) for visit in visits if visit.status == 200 and visit.key)
    lost = sum(one.missed for one in evidence.breakers.values())
    trials = {service: len(one.trials) for service, one in sorted(evidence.breakers.items())}
    return {
        "waited-for calls": dict(ends.most_common()),
        "background calls": dict(Counter(one.end or "caller died" for one in asked if not one.waited).most_common()),
        "requests that services saw": dict(Counter(str(visit.status or "no answer") for visit in visits).most_common()),
        "carried out more than once": sum(times > 1 for times in carried_out.values()),
        "dead letters": dict(Counter(burial.reason for burial in evidence.burials)),
        "breakers opened": {service: one.opened for service, one in sorted(evidence.breakers.items())},
        "trials": {**trials, "announcements missed": lost},
        "processes started": dict(Counter(life.who.partition(".")[0].rstrip("-0123456789") for life in evidence.lives)),
        "processes ended": dict(Counter(f"{life.how} {life.code}" for life in evidence.lives)),
        "threads and files at the end": {
            name: f"{after.threads} {after.files} (were {evidence.sizes_before[name].threads} {evidence.sizes_before[name].files})"
            for name, after in evidence.sizes_after.items()
        },
    }


def show(checks: Sequence[Check], counted: dict[str, Any]) -> str:
    lines = [f"{name}: " + _inline(values) for name, values in counted.items()]
    width = max(len(check.name) for check in checks)
    lines += [
        "",
        *(f"{check.name:{width}}  {len(check.failures):5}  {'' if check.met else 'FAILED'}" for check in checks),
    ]
    for check in checks:
        lines += [f"  {check.name}: {failure}" for failure in check.failures[:SHOWN]]
    return "\n".join(line.rstrip() for line in lines)


def write(path: Path, plan: Plan, checks: Sequence[Check], counted: dict[str, Any], **more: Any) -> None:
    document = {
        "seed": plan.seed,
        "seconds": plan.seconds,
        **more,
        "met": all(check.met for check in checks),
        "checks": {check.name: {"count": len(check.failures), "cases": check.failures[:WRITTEN]} for check in checks},
        "figures": counted,
        "events": [dataclasses.asdict(event) for event in plan.events],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _inline(values: Any) -> str:
    if isinstance(values, dict):
        return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"
    return str(values)
